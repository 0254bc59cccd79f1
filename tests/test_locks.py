"""What all locks have in common, Lock and Event: each program with asyncio's classes and with ioxide's (primitives.py)."""

from __future__ import annotations

import asyncio
import collections
import copy
import gc
import inspect
import pickle
import weakref
from typing import Any

import pytest

import ioxide
from primitives import NATIVES, agree, cancelled_everywhere, ended, entering, told, turns

CLASSES = ("Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore")


def made(classes: Any, name: str) -> Any:
    return getattr(classes, name)()


@pytest.mark.parametrize("name", CLASSES)
def test_shows_itself_as_asyncios(name: str) -> None:
    async def program(classes: Any) -> Any:
        primitive = made(classes, name)
        shown = [repr(primitive), str(primitive)]
        wait = primitive.acquire if hasattr(primitive, "acquire") else primitive.wait
        if hasattr(primitive, "acquire"):
            await primitive.acquire()
        waiting = [asyncio.create_task(wait()) for _ in range(2)]
        await turns(1)
        shown.append(repr(primitive))
        for task in waiting:
            task.cancel()
        await turns(2)
        return [*shown, repr(primitive)]

    shown = agree(program)
    assert shown[0].startswith(f"<asyncio.locks.{name} object at 0x [un")
    assert "waiters:2" in shown[2] or name == "Condition"


@pytest.mark.parametrize("name", CLASSES)
def test_is_asyncios_class(name: str) -> None:
    native = made(NATIVES, name)
    assert isinstance(native, getattr(asyncio.locks, name))
    assert issubclass(getattr(ioxide, name), getattr(asyncio.locks, name))
    assert issubclass(ioxide.BoundedSemaphore, ioxide.Semaphore)


@pytest.mark.parametrize("name", CLASSES)
def test_subclass_has_attributes_weak_references_and_its_own_name(name: str) -> None:
    async def program(classes: Any) -> Any:
        class Named(getattr(classes, name)):  # type: ignore[misc]
            def __init__(self, label: str) -> None:
                super().__init__()
                self.label = label

        primitive = Named("mine")
        reference = weakref.ref(primitive)
        primitive.more = [1]
        seen = [repr(primitive).replace("<locals>.", ""), primitive.label, reference() is primitive, primitive.more]
        del primitive
        gc.collect()
        return [*seen, reference() is None]

    assert agree(program)[1:] == ["mine", True, [1], True]


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_that_are_refused(name: str) -> None:
    async def program(classes: Any) -> Any:
        texts = []
        for arguments, keywords in [((), {"loop": 1}), ((1, 2, 3), {}), ((), {"nothing": 1}), ((-1,), {}), (("1",), {})]:
            try:
                texts.append(repr(getattr(classes, name)(*arguments, **keywords)))
            except Exception as error:
                texts.append(told(error))
        return texts

    assert "unexpected keyword argument 'loop'" in agree(program)[0]


@pytest.mark.parametrize("name", CLASSES)
def test_copies_and_pickles_keep_the_state(name: str) -> None:
    async def program(classes: Any) -> Any:
        primitive = made(classes, name)
        if hasattr(primitive, "acquire"):
            await primitive.acquire()
        else:
            primitive.set()
        return [repr(copy.copy(primitive)), repr(pickle.loads(pickle.dumps(primitive))), sorted(primitive.__getstate__())]

    agree(program)


@pytest.mark.parametrize("name", CLASSES)
def test_waiting_on_another_loop_is_refused(name: str) -> None:
    async def program(classes: Any) -> Any:
        primitive = made(classes, name)
        other = asyncio.new_event_loop()
        other.close()
        primitive._loop = other
        if hasattr(primitive, "acquire"):
            await primitive.acquire()
        seen = [primitive._loop is other]
        for method in ("wait", "acquire"):
            if hasattr(primitive, method) and (name, method) != ("Condition", "acquire"):
                try:
                    await getattr(primitive, method)()
                except RuntimeError as error:
                    seen.append(str(error))
        try:
            primitive._get_loop()
        except RuntimeError as error:
            seen.append(str(error))
        return [*seen, repr(primitive)]

    assert "is bound to a different event loop" in agree(program)[1]


@pytest.mark.parametrize("name", CLASSES)
def test_methods_are_coroutine_functions(name: str) -> None:
    native = getattr(ioxide, name)
    for method, function in inspect.getmembers(getattr(asyncio.locks, name), inspect.iscoroutinefunction):
        if not method.startswith("_") or method.startswith("__"):
            assert inspect.iscoroutinefunction(getattr(native, method)), method
            assert inspect.signature(getattr(native, method)) == inspect.signature(function), method


@pytest.mark.parametrize("name", CLASSES)
def test_coroutine_that_nobody_awaits_is_reported(name: str) -> None:
    async def program(classes: Any) -> Any:
        primitive = made(classes, name)
        with pytest.warns(RuntimeWarning) as warned:
            (primitive.acquire if hasattr(primitive, "acquire") else primitive.wait)()
            gc.collect()
        return [str(warning.message) for warning in warned]

    assert "was never awaited" in agree(program)[0]


class TestLock:
    def test_tasks_take_turns_in_order(self) -> None:
        async def program(classes: Any) -> Any:
            lock, log = classes.Lock(), []
            tasks = [entering(lock, log, name, stay) for name, stay in zip("abcd", (2, 0, 1, 0), strict=True)]
            await asyncio.gather(*tasks)
            return log

        assert agree(program)[:5] == ["a comes", "a is in", "b comes", "c comes", "d comes"]

    def test_cancelled_at_every_point(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            def scenario() -> list[asyncio.Task[Any]]:
                lock = classes.Lock()
                return [entering(lock, log, name, stay) for name, stay in zip("abcd", (2, 0, 1, 0), strict=True)]

            return await cancelled_everywhere(scenario, log, 8)

        assert len(agree(program)) == 32

    def test_woken_and_cancelled_passes_the_lock_on(self) -> None:
        async def program(classes: Any) -> Any:
            lock, log = classes.Lock(), []
            await lock.acquire()
            first, second = entering(lock, log, "a"), entering(lock, log, "b")
            await turns(1)
            lock.release()
            first.cancel()
            return [await ended(first), await ended(second), log, lock.locked()]

        assert agree(program)[1] == "b"

    def test_whoever_comes_between_release_and_wake_up_waits(self) -> None:
        async def program(classes: Any) -> Any:
            lock, log = classes.Lock(), []
            await lock.acquire()
            waiting = entering(lock, log, "a")
            await turns(1)
            lock.release()
            late = entering(lock, log, "late", 0)
            seen = [lock.locked()]
            await asyncio.gather(waiting, late)
            return [*seen, log]

        agree(program)

    def test_release_of_a_free_lock(self) -> None:
        async def program(classes: Any) -> Any:
            classes.Lock().release()

        assert agree(program) == "RuntimeError: Lock is not acquired."

    def test_private_attributes(self) -> None:
        async def program(classes: Any) -> Any:
            lock = classes.Lock()
            seen = [lock._waiters, lock._locked, lock._loop]
            await lock.acquire()
            waiting = [entering(lock, [], name) for name in "ab"]
            await turns(1)
            first = lock._waiters[0]
            seen += [type(lock._waiters).__name__, len(lock._waiters), first.done(), asyncio.isfuture(first), lock._locked]
            seen += [lock._loop is asyncio.get_running_loop(), lock._waiters is lock._waiters]
            lock._wake_up_first()
            seen.append(first.done())
            lock.release()
            await asyncio.gather(*waiting)
            return [*seen, list(lock._waiters)]

        assert agree(program)[3:6] == ["deque", 2, False]

    def test_deque_that_somebody_changes_counts(self) -> None:
        async def program(classes: Any) -> Any:
            lock, log = classes.Lock(), []
            await lock.acquire()
            tasks = [entering(lock, log, name) for name in "abc"]
            await turns(1)
            lock._waiters.rotate(1)
            more = entering(lock, log, "d")
            await turns(1)
            lock._waiters = collections.deque(reversed(lock._waiters))
            lock.release()
            await asyncio.gather(*tasks, more)
            return log

        assert agree(program)[4] == "d is in"

    def test_methods_that_a_subclass_overrides_are_called(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            class Telling(classes.Lock):  # type: ignore[misc]
                async def acquire(self) -> Any:
                    log.append("acquire")
                    return await super().acquire()

                def release(self) -> None:
                    log.append("release")
                    super().release()

                def _wake_up_first(self) -> None:
                    log.append("wake up")
                    super()._wake_up_first()

            lock = Telling()
            await asyncio.gather(*[entering(lock, log, name) for name in "ab"])
            return log

        assert agree(program).count("acquire") == 2

    def test_methods_that_somebody_replaces_are_called(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []
            lock, patched = classes.Lock(), classes.Lock()
            async with lock:
                log.append("before")
            release = lock.release
            lock.release = lambda: (log.append("of the instance"), release())
            async with lock:
                pass
            del lock.release
            original = classes.Lock._wake_up_first

            def wake_up_first(self: Any) -> None:
                log.append("of the class")
                original(self)

            classes.Lock._wake_up_first = wake_up_first
            try:
                async with lock, patched:
                    pass
            finally:
                classes.Lock._wake_up_first = original
            async with lock:
                log.append("after")
            return log

        assert agree(program) == ["before", "of the instance", "of the class", "of the class", "after"]

    def test_get_loop_that_is_overridden(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            class Elsewhere(classes.Lock):  # type: ignore[misc]
                def _get_loop(self) -> Any:
                    log.append("asked")
                    return super()._get_loop()

            lock = Elsewhere()
            await asyncio.gather(*[entering(lock, log, name) for name in "ab"])
            return log

        assert "asked" in agree(program)

    def test_create_future_of_the_loop_is_used(self) -> None:
        async def program(classes: Any) -> Any:
            loop = asyncio.get_running_loop()
            made: list[Any] = []

            class Own(asyncio.Future):  # type: ignore[type-arg]
                pass

            def create_future() -> Any:
                made.append(Own(loop=loop))
                return made[-1]

            loop.create_future = create_future  # type: ignore[method-assign]
            lock, log = classes.Lock(), []
            await asyncio.gather(*[entering(lock, log, name) for name in "abc"])
            del loop.create_future
            return [len(made), log]

        assert agree(program)[0] >= 2

    def test_coroutine_by_hand(self) -> None:
        async def program(classes: Any) -> Any:
            lock = classes.Lock()
            seen: list[Any] = []
            for steps in ("s", "ss", "t", "st", "c", "sc", "cs", "S"):
                await lock.acquire()
                coroutine = lock.acquire()
                for step in steps:
                    try:
                        if step == "s":
                            seen.append(asyncio.isfuture(coroutine.send(None)))
                        elif step == "S":
                            coroutine.send(1)
                        elif step == "t":
                            coroutine.throw(ValueError("thrown"))
                        else:
                            seen.append(coroutine.close())
                    except StopIteration as stop:
                        seen.append(stop.value)
                    except BaseException as error:
                        seen.append(told(error))
                coroutine.close()
                seen.append(len(lock._waiters or ()))
                lock.release()
            return seen

        assert "ValueError: thrown" in agree(program)

    def test_awaited_twice(self) -> None:
        async def program(classes: Any) -> Any:
            lock = classes.Lock()
            await lock.acquire()
            coroutine = lock.acquire()

            async def wait() -> Any:
                return await coroutine

            first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
            await turns(1)
            lock.release()
            seen = [await ended(first), await ended(second)]
            try:
                await coroutine
            except RuntimeError as error:
                seen.append(str(error))
            return seen

        awaited_twice = "RuntimeError: coroutine is being awaited already"
        assert agree(program) == [True, awaited_twice, "cannot reuse already awaited coroutine"]

    def test_wait_for_leaves_nothing_behind(self) -> None:
        async def program(classes: Any) -> Any:
            lock = classes.Lock()
            await lock.acquire()
            for _ in range(50):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(lock.acquire(), 0.0001)
            return [len(lock._waiters), lock.locked()]

        assert agree(program) == [0, True]


class TestEvent:
    def test_everybody_is_woken_in_order(self) -> None:
        async def program(classes: Any) -> Any:
            event, log = classes.Event(), []

            async def wait(name: str) -> None:
                log.append((name, await event.wait()))
                if name == "b":
                    event.clear()
                    log.append((name, await event.wait()))

            tasks = [asyncio.create_task(wait(name)) for name in "abc"]
            await turns(1)
            log.append((event.is_set(), len(event._waiters)))
            event.set()
            event.set()
            log.append((event.is_set(), event._value))
            await turns(3)
            log.append(len(event._waiters))
            event.set()
            await asyncio.gather(*tasks)
            return log

        assert agree(program)[2:5] == [["a", True], ["b", True], ["c", True]]

    def test_cancelled_at_every_point(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            def scenario() -> list[asyncio.Task[Any]]:
                event = classes.Event()

                async def wait(name: str) -> None:
                    await event.wait()
                    log.append(name)

                async def set_later() -> None:
                    await turns(2)
                    event.set()
                    event.clear()
                    await turns(2)
                    event.set()

                return [*[asyncio.create_task(wait(name)) for name in "abc"], asyncio.create_task(set_later())]

            return await cancelled_everywhere(scenario, log, 7)

        assert len(agree(program)) == 28

    def test_set_and_cleared_at_once_wakes(self) -> None:
        async def program(classes: Any) -> Any:
            event = classes.Event()
            waiting = asyncio.create_task(event.wait())
            await turns(1)
            event.set()
            event.clear()
            return [await waiting, event.is_set(), repr(event)]

        assert agree(program)[:2] == [True, False]


def test_abandoned_waiters_are_collected() -> None:
    """A loop that is thrown away with tasks waiting in every primitive: lock, future, task and coroutine form cycles."""

    class Marker(asyncio.Event):
        pass

    references = []

    def abandon() -> None:
        loop = ioxide.new_event_loop()
        lock, event, semaphore = ioxide.Lock(), ioxide.Event(), ioxide.Semaphore(0)
        condition, barrier = ioxide.Condition(), ioxide.Barrier(2)

        async def hold_and_wait() -> None:
            async with condition:
                await condition.wait()

        async def main() -> None:
            await lock.acquire()
            for waiting in (lock.acquire(), event.wait(), semaphore.acquire(), hold_and_wait(), barrier.wait()):
                task = asyncio.create_task(waiting)  # type: ignore[arg-type]
                task.marker = Marker()  # type: ignore[attr-defined]
                references.append(weakref.ref(task.marker))  # type: ignore[attr-defined]
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            await turns(2)

        references.extend(weakref.ref(primitive) for primitive in (lock, event, semaphore, condition, barrier))
        loop.run_until_complete(main())
        loop.close()

    abandon()
    gc.collect()
    assert len(references) == 10
    assert [reference() for reference in references] == [None] * 10
