"""Files where the kernel refuses what they would rather use, as it does in containers: slower, and with no other difference."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import refused

HERE = Path(__file__).parent
# Which call fails with what: Docker since 2023, an old Docker that knows no new calls, gVisor, little memory that may be locked.
REFUSALS = {
    "docker": {"io_uring_setup": "EPERM", "openat2": "ENOSYS", "preadv2": "EOPNOTSUPP"},
    "old docker": {"io_uring_setup": "ENOSYS", "openat2": "EPERM", "preadv2": "EPERM"},
    "old kernel": {"io_uring_setup": "ENOSYS", "openat2": "ENOSYS", "preadv2": "ENOSYS"},
    "no memory": {"io_uring_setup": "ENOMEM", "openat2": "EINVAL"},
    "half a filter": {"io_uring_enter": "EPERM", "io_uring_register": "EACCES"},
}
MODULES = ("binary_file", "opening", "path", "fs", "tempfile", "file_limits", "standard")


@cache
def why_not() -> str:
    if not refused.is_possible():
        return "the numbers of this machine's system calls are not known to the test"
    command = [sys.executable, refused.__file__, "openat2=EPERM", "--", sys.executable, "-c", ""]
    tried = subprocess.run(command, capture_output=True, timeout=60)
    return "" if tried.returncode == 0 else "filters of system calls cannot be installed here"


def filtered(calls: dict[str, str], program: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    if reason := why_not():
        pytest.skip(reason)
    pairs = [f"{name}={error}" for name, error in calls.items()]
    command = [sys.executable, refused.__file__, *pairs, "--", sys.executable, *program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


REFUSED = """
import ctypes, errno, os, sys, tempfile
import refused

library = ctypes.CDLL(None, use_errno=True)
for pair in sys.argv[1:]:
    name, error = pair.split("=")
    if name == "preadv2":
        with tempfile.TemporaryFile() as file:
            try:
                os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
            except OSError as failed:
                # The C library answers ENOSYS itself, where flags cannot be left out.
                wanted = {error, "EOPNOTSUPP"} if error == "ENOSYS" else {error}
                assert errno.errorcode[failed.errno] in wanted | {"ENOTSUP"}, failed
            else:
                raise SystemExit("preadv2 is not refused")
    else:
        number = refused.YOUNG[name]
        assert library.syscall(number, -1, 0, 0, 0) == -1
        assert ctypes.get_errno() == getattr(errno, error), (name, ctypes.get_errno())
import ioxide
print(ioxide.fs.backend())
"""


@pytest.mark.parametrize("place", REFUSALS)
def test_the_calls_are_refused_and_the_backend_tells(tmp_path: Path, place: str) -> None:
    calls = REFUSALS[place]
    pairs = [f"{name}={error}" for name, error in calls.items()]
    for chosen, told in (("uring", "threads"), ("auto", "auto")):
        ended = filtered(calls, ["-c", REFUSED, *pairs], tmp_path, IOXIDE_FILES=chosen)
        assert (ended.stdout, ended.stderr) == (f"{told}\n", "")


@pytest.mark.parametrize("place", REFUSALS)
def test_files_work_where_calls_are_refused(tmp_path: Path, place: str) -> None:
    tests = [str(HERE / f"test_{module}.py") for module in MODULES]
    only = "ioxide and not inline and not uring and not threads"
    program = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}", "-k", only, *tests]
    ended = filtered(REFUSALS[place], program, HERE.parent)
    summary = ended.stdout.splitlines()[-1]
    assert ended.returncode == 0, ended.stdout[-6000:]
    assert int(summary.split(" passed")[0].split()[-1]) > 80, summary


LATER = """
import asyncio, errno, os, sys
import ioxide, refused

async def main():
    assert ioxide.fs.backend() == "uring"
    async with ioxide.open("file", "rb") as file:
        assert await file.read() == b"content"
    async with ioxide.open("file", "r+b", 0) as file, ioxide.open("log", "ab", 0) as log:
        await log.write(b"first ")
        refused.refuse({"io_uring_enter": errno.EPERM})
        for number in range(3):
            assert await asyncio.gather(file.pread(3, 0), file.pread(4, 3)) == [b"con", b"tent"], number
            await log.write(b"next ")
        assert await file.pwrite(b"CON", 0) == 3
        await file.sync()
        async with ioxide.open("file", "rb") as other:
            assert await other.read() == b"CONtent"
    assert await ioxide.Path("log").read_bytes() == b"first next next next "
    if sys.argv[1] == "leave":
        file = await ioxide.open("left", "wb", 0)
        asyncio.ensure_future(file.write(b"all of it"))
        await asyncio.sleep(0)

ioxide.run(asyncio.wait_for(main(), 60))
"""


@pytest.mark.parametrize("ending", ["close", "leave"])
def test_a_ring_that_is_refused_later_leaves_its_work_to_threads(tmp_path: Path, ending: str) -> None:
    (tmp_path / "file").write_bytes(b"content")
    here = filtered({}, ["-c", "import ioxide; print(ioxide.fs.backend())"], tmp_path, IOXIDE_FILES="uring")
    if here.stdout != "uring\n":
        pytest.skip("the kernel or a filter of system calls forbids io_uring here")
    ended = filtered({}, ["-W", "ignore::ResourceWarning", "-c", LATER, ending], tmp_path, IOXIDE_FILES="uring")
    assert (ended.returncode, ended.stderr) == (0, "")
    if ending == "leave":
        assert (tmp_path / "left").read_bytes() == b"all of it"


def test_errors_are_not_taken_for_a_filter(tmp_path: Path) -> None:
    program = "import ioxide\nasync def main():\n    await ioxide.open('missing/file')\nioxide.run(main())"
    ended = filtered(REFUSALS["old docker"], ["-c", program], tmp_path)
    assert f"FileNotFoundError: [Errno {errno.ENOENT}] {os.strerror(errno.ENOENT)}: 'missing/file'" in ended.stderr
