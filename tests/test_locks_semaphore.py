"""Semaphore and BoundedSemaphore: each program with asyncio's classes and with ioxide's (primitives.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from primitives import agree, cancelled_everywhere, ended, entering, told, turns


@pytest.mark.parametrize("name", ["Semaphore", "BoundedSemaphore"])
class TestSemaphores:
    def test_as_many_as_there_are_places(self, name: str) -> None:
        async def program(classes: Any) -> Any:
            semaphore, log = getattr(classes, name)(2), []
            stays = (3, 1, 2, 0, 1)
            await asyncio.gather(*[entering(semaphore, log, who, stay) for who, stay in zip("abcde", stays, strict=True)])
            return [log, semaphore._value, repr(semaphore)]

        assert agree(program)[1] == 2

    def test_cancelled_at_every_point(self, name: str) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            def scenario() -> list[asyncio.Task[Any]]:
                semaphore = getattr(classes, name)(2)
                stays = (3, 1, 2, 0, 1)
                return [entering(semaphore, log, who, stay) for who, stay in zip("abcde", stays, strict=True)]

            return await cancelled_everywhere(scenario, log, 8)

        assert len(agree(program)) == 40

    def test_several_places_at_once(self, name: str) -> None:
        async def program(classes: Any) -> Any:
            semaphore, log = getattr(classes, name)(3), []
            for _ in range(3):
                await semaphore.acquire()
            tasks = [entering(semaphore, log, who, 2) for who in "abcde"]
            await turns(1)
            for _ in range(3):
                semaphore.release()
            log.append((semaphore._value, semaphore.locked(), repr(semaphore)))
            tasks[0].cancel()
            tasks[2].cancel()
            await turns(1)
            log.append((semaphore._value, semaphore.locked(), repr(semaphore)))
            return [[await ended(task) for task in tasks], log, semaphore._value]

        agree(program)

    @pytest.mark.parametrize("value", [0, 1, 2**31, 2**63 - 1, 2**70, 1.5, float("inf"), True, -1, -1.5, None, "1", []])
    def test_initial_value(self, name: str, value: Any) -> None:
        async def program(classes: Any) -> Any:
            try:
                semaphore = getattr(classes, name)(value)
            except Exception as error:
                return told(error)
            seen = [repr(semaphore), semaphore._value, semaphore.locked()]
            if not semaphore.locked():
                await semaphore.acquire()
            seen += [semaphore._value, repr(semaphore)]
            for _ in range(2):
                try:
                    semaphore.release()
                except Exception as error:
                    seen.append(told(error))
                seen += [semaphore._value, repr(semaphore)]
            return seen

        agree(program)

    def test_methods_that_a_subclass_overrides_are_called(self, name: str) -> None:
        async def program(classes: Any) -> Any:
            log: list[Any] = []

            class Telling(getattr(classes, name)):  # type: ignore[misc]
                def locked(self) -> Any:
                    log.append("locked")
                    return super().locked()

                def _wake_up_next(self) -> Any:
                    log.append("wake up")
                    return super()._wake_up_next()

                def release(self) -> None:
                    log.append("release")
                    super().release()

            semaphore = Telling(1)
            await asyncio.gather(*[entering(semaphore, log, who) for who in "abc"])
            return [log, semaphore._value]

        assert "wake up" in agree(program)[0]

    def test_private_attributes(self, name: str) -> None:
        async def program(classes: Any) -> Any:
            semaphore = getattr(classes, name)()
            seen = [semaphore._waiters, semaphore._value, getattr(semaphore, "_bound_value", "none")]
            await semaphore.acquire()
            tasks = [entering(semaphore, [], who) for who in "ab"]
            await turns(1)
            seen += [len(semaphore._waiters), semaphore._value, semaphore._wake_up_next(), semaphore._value]
            semaphore._value = 3
            seen.append(semaphore._value)
            await asyncio.gather(*tasks)
            return [*seen, semaphore._value]

        agree(program)


def test_bounded_semaphore_released_too_often() -> None:
    async def program(classes: Any) -> Any:
        semaphore = classes.BoundedSemaphore(2)
        await semaphore.acquire()
        semaphore.release()
        semaphore.release()

    assert agree(program) == "ValueError: BoundedSemaphore released too many times"
