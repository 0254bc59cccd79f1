"""Condition and Barrier: each program with asyncio's classes and with ioxide's (primitives.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from primitives import agree, cancelled_everywhere, ended, told, turns


def waiting(condition: Any, log: list[Any], name: str) -> asyncio.Task[Any]:
    async def wait() -> Any:
        async with condition:
            log.append(f"{name} waits")
            answer = await condition.wait()
            log.append(f"{name} goes on")
            await turns(1)
        return answer

    return asyncio.create_task(wait())


def notifying(condition: Any, log: list[Any], after: int, count: int) -> asyncio.Task[Any]:
    async def notify() -> None:
        await turns(after)
        async with condition:
            condition.notify(count)
            log.append(f"{count} notified")
            await turns(1)

    return asyncio.create_task(notify())


class TestCondition:
    @pytest.mark.parametrize("own_lock", [False, True])
    def test_cancelled_at_every_point(self, own_lock: bool) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            def scenario() -> list[asyncio.Task[Any]]:
                condition = classes.Condition(classes.Lock()) if own_lock else classes.Condition()
                tasks = [waiting(condition, log, name) for name in "abc"]
                return [*tasks, notifying(condition, log, 2, 1), notifying(condition, log, 4, 2)]

            return await cancelled_everywhere(scenario, log, 14)

        assert len(agree(program)) == 70

    def test_cancelled_again_while_it_takes_the_lock(self) -> None:
        async def program(classes: Any) -> Any:
            condition, log = classes.Condition(), []
            task, other = waiting(condition, log, "a"), waiting(condition, log, "b")
            await turns(2)
            await condition.acquire()
            task.cancel("first")
            await turns(1)
            task.cancel("second")
            await turns(2)
            task.cancel("third")
            await turns(2)
            seen = [task.done(), repr(condition)]
            condition.notify()
            condition.release()
            seen.append(await ended(task))
            await turns(4)
            seen.append(other.done())
            other.cancel()
            return [*seen, await ended(other), log, condition.locked()]

        assert agree(program)[0] is False

    def test_wait_for_a_predicate(self) -> None:
        async def program(classes: Any) -> Any:
            condition, log = classes.Condition(), []
            answers = iter([0, "", [], "yes"])

            def predicate() -> Any:
                log.append("asked")
                return next(answers)

            async def wait() -> Any:
                async with condition:
                    return await condition.wait_for(predicate)

            task = asyncio.create_task(wait())
            for _ in range(5):
                await turns(2)
                async with condition:
                    condition.notify_all()
            return [await task, log]

        assert agree(program)[0] == "yes"

    def test_predicate_that_fails(self) -> None:
        async def program(classes: Any) -> Any:
            condition = classes.Condition()
            async with condition:
                try:
                    await condition.wait_for(lambda: 1 / 0)
                except ZeroDivisionError as error:
                    return [told(error), condition.locked()]

        agree(program)

    @pytest.mark.parametrize("method", ["wait", "notify", "notify_all", "release"])
    def test_without_the_lock(self, method: str) -> None:
        async def program(classes: Any) -> Any:
            answer = getattr(classes.Condition(), method)()
            if asyncio.iscoroutine(answer):
                await answer

        assert agree(program).startswith("RuntimeError: ")

    @pytest.mark.parametrize("count", [0, 1, 2, 5, -1, 1.5, "1", None])
    def test_count_of_notify(self, count: Any) -> None:
        async def program(classes: Any) -> Any:
            condition, log = classes.Condition(), []
            tasks = [waiting(condition, log, name) for name in "abc"]
            await turns(4)
            try:
                async with condition:
                    condition.notify(count)
            except TypeError as error:
                log.append(told(error))
            await turns(12)
            seen = [log, [task.done() for task in tasks], repr(condition)]
            for task in tasks:
                task.cancel()
            return [*seen, [await ended(task) for task in tasks]]

        agree(program)

    def test_lock_of_somebody_else(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            class Own:
                held = False

                def locked(self) -> bool:
                    return self.held

                async def acquire(self) -> bool:
                    while self.held:
                        await turns(1)
                    log.append("acquired")
                    self.held = True
                    return True

                def release(self) -> None:
                    log.append("released")
                    self.held = False

            condition = classes.Condition(Own())
            tasks = [waiting(condition, log, name) for name in "ab"]
            await turns(4)
            async with condition:
                condition.notify_all()
            await asyncio.gather(*tasks)
            return log

        assert "acquired" in agree(program)

    def test_methods_of_the_instance_are_those_of_the_lock(self) -> None:
        async def program(classes: Any) -> Any:
            lock = classes.Lock()
            condition = classes.Condition(lock)
            seen = [condition._lock is lock, condition.acquire == lock.acquire, condition.locked()]
            calls: list[Any] = []
            condition.release = lambda: (calls.append("released"), lock.release())
            task = waiting(condition, [], "a")
            await turns(2)
            async with condition:
                condition.notify()
            return [*seen, await task, calls, len(condition._waiters)]

        assert agree(program)[:2] == [True, True]

    def test_subclass_that_overrides_wait(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            class Telling(classes.Condition):  # type: ignore[misc]
                async def wait(self) -> Any:
                    log.append("wait")
                    return await super().wait()

            condition = Telling()

            async def wait() -> Any:
                async with condition:
                    return await condition.wait_for(lambda: len(log) > 2)

            task = asyncio.create_task(wait())
            for _ in range(4):
                await turns(2)
                async with condition:
                    condition.notify()
            return [await task, log]

        assert agree(program)[1] == ["wait"] * 3


def meeting(barrier: Any, log: list[Any], name: str, times: int = 2) -> asyncio.Task[Any]:
    async def meet() -> Any:
        for _ in range(times):
            try:
                log.append((name, await barrier.wait(), barrier._state.name, barrier.n_waiting))
            except asyncio.BrokenBarrierError as error:
                log.append((name, told(error)))
        return name

    return asyncio.create_task(meet())


class TestBarrier:
    def test_cancelled_at_every_point(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            def scenario() -> list[asyncio.Task[Any]]:
                barrier = classes.Barrier(3)
                return [meeting(barrier, log, name, 3) for name in "abcd"]

            return await cancelled_everywhere(scenario, log, 16)

        assert len(agree(program)) == 64

    @pytest.mark.parametrize("method", ["reset", "abort"])
    @pytest.mark.parametrize("turn", range(8))
    def test_broken_up(self, method: str, turn: int) -> None:
        async def program(classes: Any) -> Any:
            barrier, log = classes.Barrier(3), []
            tasks = [meeting(barrier, log, name) for name in "abcd"]
            await turns(turn)
            await getattr(barrier, method)()
            log.append((repr(barrier), barrier.broken, barrier.n_waiting, barrier._count))
            await turns(20)
            for task in tasks:
                task.cancel()
            return [log, [await ended(task) for task in tasks], repr(barrier)]

        agree(program)

    def test_as_a_context(self) -> None:
        async def program(classes: Any) -> Any:
            barrier, log = classes.Barrier(3), []

            async def meet() -> None:
                async with barrier as index:
                    log.append((index, repr(barrier)))

            await asyncio.gather(*[meet() for _ in range(6)])
            return log

        assert [entry[0] for entry in agree(program)[:3]] == [2, 0, 1]

    @pytest.mark.parametrize("parties", [0, -1, 1, 2.0, "2", None, True])
    def test_parties(self, parties: Any) -> None:
        async def program(classes: Any) -> Any:
            barrier = classes.Barrier(parties)
            return [repr(barrier), barrier.parties, barrier.n_waiting, barrier.broken]

        agree(program)

    def test_private_attributes(self) -> None:
        async def program(classes: Any) -> Any:
            barrier = classes.Barrier(2)
            task = asyncio.create_task(barrier.wait())
            await turns(2)
            seen = [barrier._count, barrier._parties, barrier._state.value, len(barrier._cond._waiters)]
            barrier._state = type(barrier._state).BROKEN
            async with barrier._cond:
                barrier._cond.notify_all()
            return [*seen, await ended(task), repr(barrier), sorted(barrier.__getstate__())]

        assert agree(program)[:2] == [1, 2]

    def test_subclass_that_overrides_a_step(self) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            class Telling(classes.Barrier):  # type: ignore[misc]
                async def _block(self) -> None:
                    log.append("block")
                    await super()._block()

                def _exit(self) -> None:
                    log.append("exit")
                    super()._exit()

            barrier = Telling(2)
            return [await asyncio.gather(*[barrier.wait() for _ in range(4)]), log]

        assert agree(program)[1].count("exit") == 4
