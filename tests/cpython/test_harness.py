"""Tests of the conformance harness itself: a harness that cannot fail proves nothing.

Each test gives the harness a small test module of its own, put into test.test_asyncio by a sitecustomize module, and
looks at what the command prints and returns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parent))
import expected  # the harness is a folder of scripts, not a package
import run

SITE = """
import os, test.test_asyncio
test.test_asyncio.__path__.append(os.environ["HARNESS_TEST_FOLDER"])
"""
HEAD = "import asyncio, ctypes, os, sys, time, unittest\n"


class HarnessTests(unittest.TestCase):
    def run_harness(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command over one test module with this source."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "sitecustomize.py").write_text(SITE)
            Path(folder, "test_sample.py").write_text(HEAD + module)
            path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
            return subprocess.run(
                [sys.executable, str(run.HERE / "run.py"), "--modules", "test_sample", *arguments],
                env={**os.environ, "PYTHONPATH": path, "HARNESS_TEST_FOLDER": folder},
                capture_output=True,
                text=True,
                timeout=120,
            )

    def test_passing_module_gives_status_zero(self) -> None:
        done = self.run_harness(
            "class T(unittest.IsolatedAsyncioTestCase):\n async def test_a(self): await asyncio.sleep(0)\n",
        )
        self.assertIn("1 passed, 0 failed, 0 skipped", done.stdout, done.stderr)
        self.assertEqual(done.returncode, 0)

    def test_failure_error_and_subtest_are_failures(self) -> None:
        done = self.run_harness(
            "class T(unittest.TestCase):\n"
            " def test_a(self): self.fail('first')\n"
            " def test_b(self): raise OSError('second')\n"
            " def test_c(self):\n  with self.subTest('x'): self.fail('third')\n",
            "--loop",
            "stdlib",
        )
        for text in ("T.test_a: AssertionError: first", "T.test_b: OSError: second", "T.test_c: AssertionError: third"):
            self.assertIn(text, done.stdout)
        self.assertIn("0 passed, 3 failed, 0 skipped", done.stdout)
        self.assertEqual(done.returncode, 1)

    def test_hang_with_the_gil_held_fails_one_test_and_the_next_still_runs(self) -> None:
        done = self.run_harness(
            "class T(unittest.TestCase):\n"
            " def test_a(self): pass\n"
            " def test_b(self): ctypes.PyDLL(None).sleep(60)\n"
            " def test_c(self): asyncio.new_event_loop().close()\n",
            "--loop",
            "stdlib",
            "--test-timeout",
            "2",
            "--json",
            os.devnull,
        )
        self.assertIn("FAILED test_sample.T.test_b: hung", done.stdout, done.stderr)
        self.assertIn("2 passed, 1 failed, 0 skipped", done.stdout)
        self.assertEqual(done.returncode, 1)

    def test_crash_fails_one_test_and_the_next_still_runs(self) -> None:
        done = self.run_harness(
            "class T(unittest.TestCase):\n"
            " def test_a(self): ctypes.string_at(0)\n"
            " def test_b(self): os._exit(0)\n"
            " def test_c(self): pass\n",
            "--loop",
            "stdlib",
        )
        self.assertRegex(done.stdout, "T.test_a: the process died: SIGSEGV")
        self.assertRegex(done.stdout, "T.test_b: the process died: exit status 0")
        self.assertIn("1 passed, 2 failed, 0 skipped", done.stdout)

    def test_broken_fixture_and_module_are_failures(self) -> None:
        done = self.run_harness(
            "class T(unittest.TestCase):\n @classmethod\n def setUpClass(cls): raise OSError('no')\n def test_a(self): pass\n",
            "--loop",
            "stdlib",
        )
        self.assertRegex(done.stdout, r"FAILED test_sample.setUpClass .*: OSError: no")
        self.assertEqual(done.returncode, 1)
        done = self.run_harness("raise SystemError('broken')\n", "--loop", "stdlib")
        self.assertIn("broken", done.stdout)
        self.assertEqual(done.returncode, 1)

    def test_process_that_does_not_exit_is_a_failure(self) -> None:
        done = self.run_harness(
            "import threading\n"
            "class T(unittest.TestCase):\n def test_a(self): threading.Thread(target=time.sleep, args=(60,)).start()\n",
            "--loop",
            "stdlib",
            "--test-timeout",
            "2",
        )
        self.assertIn("(interpreter exit): hung", done.stdout)
        self.assertEqual(done.returncode, 1)

    def test_another_loop_than_asked_fails_the_run(self) -> None:
        done = self.run_harness(
            "class T(unittest.TestCase):\n"
            " def test_a(self):\n"
            "  loop = asyncio.selector_events.BaseSelectorEventLoop()\n"
            "  loop.run_until_complete(asyncio.sleep(0))\n"
            "  loop.close()\n"
            " def test_b(self): asyncio.run(asyncio.sleep(0))\n",
        )
        self.assertIn("RAN ON ANOTHER LOOP test_sample.T.test_a: asyncio.selector_events", done.stdout, done.stderr)
        self.assertNotIn("LOOP test_sample.T.test_b", done.stdout)
        self.assertEqual(done.returncode, 1)

    def test_every_way_to_a_loop_gives_the_loop_under_test(self) -> None:
        done = self.run_harness(
            "import ioxide\n"
            "class T(unittest.TestCase):\n"
            " def test_a(self):\n"
            "  for make in (asyncio.new_event_loop, asyncio.SelectorEventLoop, asyncio.unix_events.SelectorEventLoop):\n"
            "   loop = make()\n"
            "   self.assertIs(type(loop), ioxide.EventLoop)\n"
            "   self.assertIsInstance(loop, asyncio.SelectorEventLoop)\n"
            "   loop.close()\n"
            " def test_b(self):\n"
            "  async def main(): return type(asyncio.get_running_loop())\n"
            "  self.assertIs(asyncio.run(main()), ioxide.EventLoop)\n"
            "  with asyncio.Runner() as runner: self.assertIs(runner.run(main()), ioxide.EventLoop)\n"
            " def test_c(self):\n"
            "  self.assertIs(asyncio.tasks._CTask, ioxide.Task)\n"
            "  self.assertIs(asyncio.futures._CFuture, ioxide.Future)\n",
        )
        self.assertIn("3 passed, 0 failed", done.stdout, done.stdout + done.stderr)


class ExpectationTests(unittest.TestCase):
    EVENT: ClassVar[dict[str, str | int]] = {"outcome": "passed", "summary": "", "detail": ""}

    def row(self, **keys: object) -> expected.Row:
        return expected._row({"module": "m", "tests": ["T.test_*"], "outcome": "fail", "reason": "why", **keys})

    def test_expected_failures_are_strict(self) -> None:
        self.assertEqual(run.judge("m", "T.test_a", self.EVENT, [self.row()]).kind, "unexpected_pass")
        failed: dict[str, str | int] = {**self.EVENT, "outcome": "failed"}
        self.assertEqual(run.judge("m", "T.test_a", failed, [self.row()]).kind, "expected_failure")
        self.assertEqual(run.judge("m", "T.test_a", failed, []).kind, "failed")

    def test_first_row_decides_and_only_for_its_module(self) -> None:
        rows = [self.row(tests=["T.test_a"], outcome="skip"), self.row()]
        found = expected.find(rows, "m", "T.test_a")
        self.assertIsNotNone(found)
        self.assertEqual(found and found.outcome, "skip")
        self.assertIsNone(expected.find(rows, "n", "T.test_a"))

    def test_row_without_reason_or_with_unknown_key_is_an_error(self) -> None:
        self.assertRaises(ValueError, self.row, reason=" ")
        self.assertRaises(ValueError, self.row, outcome="flaky")
        self.assertRaises(TypeError, self.row, loop=["ioxide"])


if __name__ == "__main__":
    unittest.main()
