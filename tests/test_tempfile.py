"""`ioxide.tempfile` does what Python's tempfile does, and cleans up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ioxide import tempfile

Run = Callable[..., Any]


@pytest.mark.parametrize("mode", ["w+b", "w+"])
def test_a_temporary_file_has_no_name_and_reads_back(run: Run, tmp_path: Path, mode: str) -> None:
    data: Any = b"data" if "b" in mode else "data"

    async def main() -> tuple[Any, list[str]]:
        async with tempfile.TemporaryFile(mode, dir=tmp_path) as file:
            await file.write(data)
            await file.seek(0)
            return await file.read(), os.listdir(tmp_path)

    assert run(main()) == (data, [])


@pytest.mark.parametrize("delete", [True, False])
def test_a_named_file_goes_when_it_is_closed_unless_it_is_kept(run: Run, tmp_path: Path, delete: bool) -> None:
    async def main() -> list[str]:
        async with tempfile.NamedTemporaryFile("w+", dir=tmp_path, prefix="pre", suffix=".txt", delete=delete) as file:
            await file.write("x")
            await file.flush()
            name = Path(file.name)
            assert name.read_text() == "x"
            assert (name.name[:3], name.suffix) == ("pre", ".txt")
        return os.listdir(tmp_path)

    assert len(run(main())) == (0 if delete else 1)


def test_a_named_file_goes_when_the_body_fails(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with tempfile.NamedTemporaryFile(dir=tmp_path):
                raise ZeroDivisionError

    run(main())
    assert os.listdir(tmp_path) == []


def test_a_named_file_may_outlive_its_closing(run: Run, tmp_path: Path) -> None:
    async def main() -> bool:
        async with tempfile.NamedTemporaryFile(dir=tmp_path, delete_on_close=False) as file:
            await file.close()
            return os.path.exists(file.name)

    assert run(main())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", ["w+b", "w+"])
def test_a_spooled_file_moves_to_disk_when_it_is_too_large(run: Run, tmp_path: Path, mode: str) -> None:
    async def main() -> list[Any]:
        async with tempfile.SpooledTemporaryFile(10, mode, dir=tmp_path) as file:
            small: Any = b"12345" if "b" in mode else "12345"
            await file.write(small)
            rolled = [file.name is not None]
            await file.write(small * 3)
            rolled.append(file.name is not None)
            await file.write(small)
            await file.seek(0)
            content = await file.read()
            return [*rolled, content == small * 5, await file.fileno() >= 0]

    assert run(main()) == [False, True, True, True]


def test_a_directory_goes_with_everything_in_it(run: Run, tmp_path: Path) -> None:
    async def main() -> bool:
        async with tempfile.TemporaryDirectory(dir=tmp_path) as name:
            (Path(name) / "inner").mkdir()
            (Path(name) / "inner" / "file").write_text("x")
            return os.path.isdir(name)

    assert run(main())
    assert os.listdir(tmp_path) == []
