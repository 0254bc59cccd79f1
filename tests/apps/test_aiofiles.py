"""aiofiles' own tests, from its source package, against `ioxide.files` under aiofiles' name."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

PACKAGES: list[str] = []
VERSION = "25.1.0"
PATIENCE_SECONDS = 120

# Test -> why it says nothing about ioxide.
LEFT_OUT = {
    "tests/threadpool/test_concurrency.py::test_slow_file": "replaces aiofiles' own private `sync_open`",
}
if os.geteuid() == 0:
    LEFT_OUT["tests/test_os.py::test_access"] = "root may do everything, so os.access() itself answers otherwise"

PLUGIN = '''
import asyncio, inspect, socket, sys
import pytest
import ioxide.files.os, ioxide.files.ospath, ioxide.files.threadpool, ioxide.tempfile

sys.modules["aiofiles"] = ioxide.files
for name in ("os", "ospath", "threadpool"):
    sys.modules[f"aiofiles.{name}"] = getattr(ioxide.files, name)
sys.modules["aiofiles.tempfile"] = ioxide.tempfile

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    async def main():
        await asyncio.wait_for(pyfuncitem.obj(**arguments), 30)
    ioxide.run(main())
    return True

@pytest.fixture
def unused_tcp_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]
'''


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "aiofiles"]
    command += ["--dest", str(tmp_path), f"aiofiles=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(tmp_path.glob("*.tar.gz"))
    if not archives:
        pytest.skip(f"the source package of aiofiles could not be downloaded: {done.stderr.strip()[-200:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / f"aiofiles-{VERSION}"


def test_the_tests_of_aiofiles_pass(sources: Path) -> None:
    (sources / "tests" / "conftest.py").write_text(PLUGIN)
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(sources), "tests"]
    command += [f"--deselect={test}" for test in LEFT_OUT]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
