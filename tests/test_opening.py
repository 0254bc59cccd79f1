"""`ioxide.open` opens what `open` opens and fails as it fails, on both loops."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide

Run = Callable[..., Any]


WRONG_ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("missing",), {}),
    (("directory",), {}),
    (("directory", "w"), {}),
    (("file", "x"), {}),
    (("file", "z"), {}),
    (("file", "rw"), {}),
    (("file", "rbt"), {}),
    (("file", ""), {}),
    (("file", "rr"), {}),
    (("file", "rb"), {"encoding": "utf-8"}),
    (("file", "rb"), {"errors": "strict"}),
    (("file", "rb"), {"newline": "\n"}),
    (("file", "r", 0), {}),
    (("file",), {"encoding": "no-such-encoding"}),
    (("file",), {"newline": "x"}),
    (("file",), {"closefd": False}),
    (("file\0",), {}),
    ((1.5,), {}),
    ((-1,), {}),
    ((None,), {}),
    (("file/below",), {}),
]


@pytest.mark.parametrize(("arguments", "keywords"), WRONG_ARGUMENTS, ids=repr)
def test_what_cannot_be_opened_fails_as_open_does(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()

    async def opened() -> Any:
        return await ioxide.open(*arguments, **keywords)

    async def main() -> BaseException:
        with pytest.raises((OSError, ValueError, TypeError, LookupError)) as caught:
            await opened()
        return caught.value

    with pytest.raises((OSError, ValueError, TypeError, LookupError)) as expected:
        open(*arguments, **keywords).close()
    actual = run(main())
    assert type(actual) is type(expected.value)
    for attribute in ("errno", "filename"):
        assert getattr(actual, attribute, None) == getattr(expected.value, attribute, None)
    if isinstance(actual, OSError):
        assert str(actual) == str(expected.value)


def test_a_descriptor_is_opened_and_kept_or_closed_as_closefd_says(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")

    async def main() -> str:
        descriptor = os.open(tmp_path / "file", os.O_RDONLY)
        async with ioxide.open(descriptor, closefd=False) as file:
            content: str = await file.read()
        os.lseek(descriptor, 0, os.SEEK_SET)
        async with ioxide.open(descriptor) as file:
            assert await file.read() == content
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        return content

    assert run(main()) == "hello"


def test_an_opener_is_asked_on_another_thread(run: Run, tmp_path: Path) -> None:
    threads = []

    def opener(path: str, flags: int) -> int:
        threads.append(threading.get_ident())
        return os.open(path, flags, 0o600)

    async def main() -> None:
        async with ioxide.open(tmp_path / "file", "w", opener=opener) as file:
            await file.write("x")

    run(main())
    assert threads and threads[0] != threading.get_ident()
    assert (tmp_path / "file").read_text() == "x"


def test_line_buffering_in_binary_mode_warns_as_open_does(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.warns(RuntimeWarning, match="line buffering"):
            await (await ioxide.open(tmp_path / "file", "wb", 1)).close()

    run(main())


def test_an_opening_is_awaited_once_and_entered_as_often_as_its_file_is_open(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")

    async def main() -> list[Any]:
        opening = ioxide.open(path)
        file = await opening
        results = [await opening is file]
        async with opening as entered:
            results += [entered is file, await file.read()]
            async with opening as again:
                results.append(again is file)
            results.append(file.closed)
        return [*results, file.closed]

    assert run(main()) == [True, True, "content", True, True, True]


def test_an_opening_that_nobody_awaits_is_told(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.warns(RuntimeWarning, match="was never awaited"):
            ioxide.open(tmp_path / "file")

    run(main())
