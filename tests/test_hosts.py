"""Programs that choose their loop themselves: what they call automatic is ioxide under `ioxide run`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

UVICORN = """
import inspect, sys, uvicorn, uvicorn.config
for loop in ("auto", "asyncio"):
    made = uvicorn.Config("app:app", loop=loop).get_loop_factory()()
    print(loop, type(made).__module__.split(".")[0])
    made.close()
# The module looks as if nobody had stood between it and its import.
assert "LOOP_FACTORIES" in inspect.getsource(uvicorn.config)
assert uvicorn.config.__spec__.loader is uvicorn.config.__loader__
assert not [finder for finder in sys.meta_path if "ioxide" in type(finder).__module__]
"""


def output_of(*command: str, folder: Path) -> str:
    return subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_uvicorns_automatic_choice_is_ioxide_only_under_ioxide_run(tmp_path: Path) -> None:
    tmp_path.joinpath("program.py").write_text(UVICORN)
    on_ioxide = output_of("-m", "ioxide", "run", "program.py", folder=tmp_path)
    assert on_ioxide == "auto ioxide\nasyncio asyncio\n"
    assert "ioxide" not in output_of("program.py", folder=tmp_path)


def test_hook_is_gone_after_the_import_that_it_waited_for(tmp_path: Path) -> None:
    waiting = "import sys; print(len([each for each in sys.meta_path if 'ioxide' in type(each).__module__]))"
    tmp_path.joinpath("waiting.py").write_text(waiting)
    tmp_path.joinpath("done.py").write_text(f"import uvicorn.config; {waiting}")
    assert output_of("-m", "ioxide", "run", "waiting.py", folder=tmp_path) == "1\n"
    assert output_of("-m", "ioxide", "run", "done.py", folder=tmp_path) == "0\n"
