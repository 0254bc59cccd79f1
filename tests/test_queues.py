"""Queue, PriorityQueue and LifoQueue: each program with asyncio's classes and with ioxide's (primitives.py)."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import random
import sys
import weakref
from typing import Any

import pytest

import ioxide
from primitives import agree, cancelled_everywhere, ended, told, turns

KINDS = ("Queue", "LifoQueue", "PriorityQueue")
HAS_SHUTDOWN = sys.version_info >= (3, 13)


def putting(queue: Any, log: list[Any], items: list[Any]) -> asyncio.Task[Any]:
    async def put() -> str:
        for item in items:
            await queue.put(item)
            log.append(("put", item, queue.qsize()))
        return "all put"

    return asyncio.create_task(put())


def getting(queue: Any, log: list[Any], count: int, name: str = "") -> asyncio.Task[Any]:
    async def get() -> list[Any]:
        items = []
        for _ in range(count):
            items.append(await queue.get())
            log.append((name, "got", items[-1], queue.qsize()))
            queue.task_done()
        return items

    return asyncio.create_task(get())


@pytest.mark.parametrize("kind", KINDS)
class TestEveryQueue:
    def test_order_and_turns(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue, log = getattr(classes, kind)(3), []
            tasks = [putting(queue, log, [5, 1, 4, 1, 3]), getting(queue, log, 4, "a")]
            tasks += [putting(queue, log, [2, 0]), getting(queue, log, 3, "b")]
            return [await asyncio.gather(*tasks), log, queue._unfinished_tasks]

        assert agree(program)[2] == 0

    def test_cancelled_at_every_point(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            def scenario() -> list[asyncio.Task[Any]]:
                queue = getattr(classes, kind)(1)
                return [
                    putting(queue, log, [3, 1, 2]),
                    getting(queue, log, 2, "a"),
                    putting(queue, log, [6, 4]),
                    getting(queue, log, 3, "b"),
                    asyncio.create_task(queue.join()),
                ]

            return await cancelled_everywhere(scenario, log, 10)

        assert len(agree(program)) == 50

    def test_shows_itself(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue = getattr(classes, kind)(2)
            seen = [repr(queue), str(queue), queue._format()]
            getter = asyncio.create_task(queue.get())
            await turns(1)
            seen.append(repr(queue))
            putters = [asyncio.create_task(queue.put(item)) for item in (3, 1, 2, 0)]
            await turns(3)
            seen += [repr(queue), str(queue)]
            while not queue.empty():
                queue.get_nowait()
                await turns(2)
            await asyncio.gather(getter, *putters)
            return [*seen, str(queue)]

        assert agree(program)[0] == f"<{kind} at 0x maxsize=2>"

    def test_without_waiting(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue, seen = getattr(classes, kind)(2), []
            for step in "gppgpppgggd":
                try:
                    if step == "p":
                        seen.append(queue.put_nowait(len(seen) % 3))
                    elif step == "g":
                        seen.append(queue.get_nowait())
                    else:
                        for _ in range(9):
                            queue.task_done()
                except Exception as error:
                    seen.append(told(error))
                seen.append((queue.qsize(), queue.empty(), queue.full(), queue.maxsize, queue._unfinished_tasks))
            return seen

        assert "QueueFull: " in agree(program)

    def test_private_attributes(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue, log = getattr(classes, kind)(2), []
            seen = [type(queue._queue).__name__, type(queue._getters).__name__, queue._maxsize, queue._finished.is_set()]
            getters = [getting(queue, log, 1, name) for name in "ab"]
            await turns(1)
            seen += [len(queue._getters), queue._getters[0].done(), len(queue._putters), queue._unfinished_tasks]
            queue.put_nowait(2)
            seen += [len(queue._getters), list(queue._queue), queue._finished.is_set()]
            await turns(1)
            queue._queue.append(7)
            queue._maxsize = 1
            seen += [queue.full(), queue.qsize()]
            queue._queue = type(queue._queue)([1, 9])
            seen += [queue.get_nowait(), list(queue._queue), queue._loop is asyncio.get_running_loop()]
            queue._unfinished_tasks = 2
            seen.append(queue._format())
            for getter in getters:
                getter.cancel()
            return [*seen, [await ended(getter) for getter in getters]]

        agree(program)

    def test_copies_and_pickles(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue = getattr(classes, kind)(5)
            for item in (3, 1, 2):
                queue.put_nowait(item)
            copied, pickled = copy.copy(queue), pickle.loads(pickle.dumps(queue))
            return [str(copied), str(pickled), pickled.get_nowait(), pickled._unfinished_tasks, copied._queue is queue._queue]

        agree(program)

    @pytest.mark.parametrize("maxsize", [0, -1, 1, 2.5, float("inf"), True, 2**70])
    def test_maxsize(self, kind: str, maxsize: Any) -> None:
        async def program(classes: Any) -> Any:
            queue, seen = getattr(classes, kind)(maxsize=maxsize), []
            for item in range(4):
                if not queue.full():
                    await queue.put(item)
                seen.append((queue.full(), str(queue), queue.maxsize))
            return seen

        agree(program)

    def test_arguments_that_are_refused(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            texts = []
            for arguments, keywords in [((), {"loop": 1}), ((1, 2), {}), (("1",), {}), ((None,), {})]:
                try:
                    texts.append(str(getattr(classes, kind)(*arguments, **keywords).full()))
                except Exception as error:
                    texts.append(told(error))
            queue = getattr(classes, kind)()
            wrong = (queue.put_nowait, queue.put, lambda: queue.put_nowait(1, 2), lambda: queue.put_nowait(thing=1))
            for call in wrong:
                try:
                    call()
                except Exception as error:
                    texts.append(told(error))
            queue.put_nowait(item=1)
            await queue.put(item=2)
            return [*texts, queue.qsize()]

        agree(program)

    def test_get_that_times_out_leaves_nothing_behind(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue = getattr(classes, kind)(1)
            for _ in range(50):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(queue.get(), 0.0001)
            queue.put_nowait(1)
            for _ in range(50):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(queue.put(2), 0.0001)
            return [len(queue._getters), len(queue._putters), queue.qsize()]

        assert agree(program) == [0, 0, 1]

    def test_methods_that_a_subclass_overrides_are_called(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            class Telling(getattr(classes, kind)):  # type: ignore[misc]
                def _init(self, maxsize: int) -> None:
                    log.append(("init", maxsize))
                    super()._init(maxsize)

                def _put(self, item: Any) -> None:
                    log.append(("put", item))
                    super()._put(item)

                def _get(self) -> Any:
                    log.append("get")
                    return super()._get()

                def _wakeup_next(self, waiters: Any) -> None:
                    log.append(("wake", len(waiters)))
                    super()._wakeup_next(waiters)

            queue = Telling(2)
            tasks = [putting(queue, log, [5, 1, 4]), getting(queue, log, 3)]
            return [await asyncio.gather(*tasks), log]

        assert agree(program)[1][0] == ["init", 2]

    def test_storage_of_a_subclass(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            class Unique(getattr(classes, kind)):  # type: ignore[misc]
                def _init(self, maxsize: int) -> None:
                    self._queue = {}

                def _put(self, item: Any) -> None:
                    self._queue[item] = item

                def _get(self) -> Any:
                    return self._queue.pop(next(iter(self._queue)))

            queue, log = Unique(2), []
            tasks = [putting(queue, log, [1, 1, 2, 3]), getting(queue, log, 3)]
            return [await asyncio.gather(*tasks), log, str(queue)]

        agree(program)

    def test_methods_that_somebody_replaces_are_called(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []
            queue = getattr(classes, kind)()
            put_nowait = queue.put_nowait
            queue.put_nowait = lambda item: (log.append(item), put_nowait(item))
            await queue.put(1)
            del queue.put_nowait
            await queue.put(2)
            return [log, queue.qsize()]

        assert agree(program) == [[1], 2]

    def test_join(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue, log = getattr(classes, kind)(), []

            async def join(name: str) -> None:
                await queue.join()
                log.append(name)

            await join("at once")
            for item in range(3):
                queue.put_nowait(item)
            waiting = [asyncio.create_task(join(name)) for name in "ab"]
            await turns(1)
            for _ in range(3):
                await queue.get()
                queue.task_done()
                log.append(queue._unfinished_tasks)
            await asyncio.gather(*waiting)
            return log

        assert agree(program) == ["at once", 2, 1, 0, "a", "b"]

    def test_another_loop_is_refused(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue = getattr(classes, kind)(1)
            queue._loop = other = asyncio.new_event_loop()
            other.close()
            await queue.put(1)
            seen = [await queue.get()]
            try:
                await queue.get()
            except RuntimeError as error:
                seen.append(str(error))
            return seen

        assert "is bound to a different event loop" in agree(program)[1]

    @pytest.mark.skipif(not HAS_SHUTDOWN, reason="asyncio's queues have shutdown from 3.13 on; ioxide's own test is below")
    @pytest.mark.parametrize("immediate", [False, True])
    @pytest.mark.parametrize("turn", range(5))
    def test_shutdown(self, kind: str, immediate: bool, turn: int) -> None:
        async def program(classes: Any) -> Any:
            queue, log = getattr(classes, kind)(2), []
            tasks = [putting(queue, log, [5, 1, 4]), putting(queue, log, [2, 0])]
            tasks += [getting(queue, log, 2), asyncio.create_task(queue.join())]
            await turns(turn)
            queue.shutdown(immediate)
            log.append(repr(queue))
            tasks.append(getting(queue, log, 4))
            await turns(8)
            for task in tasks:
                task.cancel()
            seen = [await ended(task) for task in tasks]
            for call in (lambda: queue.put_nowait(1), queue.get_nowait):
                try:
                    call()
                except Exception as error:
                    seen.append(told(error))
            return [*seen, log, queue._is_shutdown]

        agree(program)

    def test_items_are_freed_and_may_come_back(self, kind: str) -> None:
        async def program(classes: Any) -> Any:
            queue, log = getattr(classes, kind)(), []

            class Item:
                def __init__(self, number: int) -> None:
                    self.number = number

                def __lt__(self, other: Any) -> bool:
                    return self.number < other.number

                def __del__(self) -> None:
                    log.append((self.number, queue.qsize()))
                    if self.number < 3:
                        queue.put_nowait(Item(self.number + 10))

            for number in (2, 1, 3):
                queue.put_nowait(Item(number))
            while not queue.empty():
                queue.get_nowait()
            return log

        assert len(agree(program)) == 5

    def test_is_asyncios_class(self, kind: str) -> None:
        native = getattr(ioxide, kind)
        assert issubclass(native, getattr(asyncio.queues, kind))
        assert issubclass(native, ioxide.Queue)
        assert native[int].__origin__ is native
        assert weakref.ref(instance := native())() is instance
        for method in ("put", "get", "join"):
            assert inspect.iscoroutinefunction(getattr(native, method))


class TestPriorityQueue:
    def test_equal_items_come_out_as_heapq_has_them(self) -> None:
        async def program(classes: Any) -> Any:
            queue = classes.PriorityQueue()
            numbers = random.Random(4).choices(range(5), k=60)

            class Item:
                def __init__(self, key: int, number: int) -> None:
                    self.key, self.number = key, number

                def __lt__(self, other: Any) -> bool:
                    return self.key < other.key

            out = []
            for index, number in enumerate(numbers):
                queue.put_nowait(Item(number, index))
                if index % 3 == 2:
                    item = queue.get_nowait()
                    out.append((item.key, item.number))
            while not queue.empty():
                item = await queue.get()
                out.append((item.key, item.number))
            return out

        assert len(agree(program)) == 60

    def test_comparison_that_fails_or_uses_the_queue(self) -> None:
        async def program(classes: Any) -> Any:
            queue, seen = classes.PriorityQueue(), []
            queue.put_nowait(1)
            for item in ("text", None):
                try:
                    await queue.put(item)
                except TypeError as error:
                    seen.append(told(error))
                seen.append((queue.qsize(), queue._unfinished_tasks))

            class Meddler:
                def __lt__(self, other: Any) -> bool:
                    if queue.qsize() < 6:
                        queue.put_nowait(Meddler())
                    return False

            fresh = classes.PriorityQueue()
            queue = fresh
            for _ in range(2):
                try:
                    queue.put_nowait(Meddler())
                except RuntimeError as error:
                    seen.append(told(error))
            return [*seen, queue.qsize()]

        agree(program)


def test_shutdown_on_every_version() -> None:
    async def main() -> None:
        queue: Any = ioxide.Queue(1)
        log: list[Any] = []
        tasks = [putting(queue, log, [1, 2]), getting(ioxide.Queue(), log, 1)]
        await turns(2)
        queue.shutdown()
        await turns(2)
        assert isinstance(tasks[0].exception(), ioxide.QueueShutDown)
        assert queue.get_nowait() == 1
        with pytest.raises(ioxide.QueueShutDown):
            await queue.get()
        assert str(queue).endswith("tasks=1 shutdown>")
        tasks[1].cancel()

    ioxide.run(main())


# asyncio's as well: whoever is closed while it waits cancels its future, whose loop is closed here.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_abandoned_queues_are_collected() -> None:
    references = []

    def abandon() -> None:
        loop = ioxide.new_event_loop()
        full, empty = ioxide.Queue(1), ioxide.Queue()

        async def main() -> None:
            await full.put(full)
            for waiting in (full.put(full), empty.get(), full.join()):
                task = asyncio.create_task(waiting)
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                references.append(weakref.ref(task))
            await turns(2)

        references.extend([weakref.ref(full), weakref.ref(empty)])
        loop.run_until_complete(main())
        loop.close()

    abandon()
    gc.collect()
    assert [reference() for reference in references] == [None] * 5
