"""Asynchronous files of text, where they are more than files of bytes. Random operations on both kinds are in test_file.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ioxide

Run = Callable[..., Any]


def test_telling_is_disabled_in_the_middle_of_an_iteration_of_text(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a\nb\nc\n")

    async def main() -> Any:
        async with ioxide.open(path) as file:
            await anext(file)
            with pytest.raises(OSError) as caught:
                await file.tell()
            return str(caught.value)

    with open(path) as file:
        next(file)
        with pytest.raises(OSError) as expected:
            file.tell()
    assert run(main()) == str(expected.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-le", "latin-1", "shift_jis", "utf-8-sig"])
def test_encodings(run: Run, tmp_path: Path, encoding: str) -> None:
    content = "".join(f"line {number} \u3042\n" if encoding not in ("latin-1",) else f"é{number}\n" for number in range(4000))
    path = tmp_path / "file"
    path.write_text(content, encoding)

    async def main() -> tuple[str, list[str], str]:
        async with ioxide.open(path, encoding=encoding) as file:
            whole = await file.read()
            await file.seek(0)
            lines = [line async for line in file]
            await file.seek(0)
            return whole, lines, await file.readline()

    whole, lines, first = run(main())
    assert (whole, "".join(lines), first) == (content, content, content.partition("\n")[0] + "\n")
