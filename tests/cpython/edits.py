"""Lines of single tests that look into CPython's loop, and what stands in their place: the rest of the test stays.

Only for a line that asks a private attribute of BaseEventLoop for something that the test's own subject does not
depend on. A test that is about the private attribute itself is left out in expected.toml instead.

`{package}` in a replacement is the package of the loop under test.

E1. Every line of the table must be found in the test, in every Python version that has the test; a third element
    names the versions of a line that some do not have.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types

from expected import PYTHON

Edit = tuple[str, str] | tuple[str, str, tuple[str, ...]]

EDITS: dict[str, dict[str, list[Edit]]] = {
    "test_base_events": {
        "BaseEventLoopTests.test_call_soon": [("self.assertIn(h, self.loop._ready)", "pass")],
        "BaseEventLoopTests.test_call_later": [
            ("self.assertIn(h, self.loop._scheduled)", "pass"),
            ("self.assertNotIn(h, self.loop._ready)", "pass"),
        ],
        "BaseEventLoopTests.test_default_exc_handler_broken": [("loop._run_once()", "test_utils.run_once(loop)")],
        "BaseEventLoopTests.test_set_default_executor": [
            (
                "self.assertIs(executor, self.loop._default_executor)",
                "self.assertRaisesRegex(NotImplementedError, 'dummy executor', self.loop.run_in_executor, None, print)",
            )
        ],
        "BaseEventLoopTests.test_set_default_executor_error": [("self.assertIsNone(self.loop._default_executor)", "pass")],
        "BaseEventLoopTests.test_run_forever_pre_stopped": [("self.loop._selector.select.assert_called_once_with(0)", "pass")],
        # the code runs in a second interpreter, where nothing is swapped
        "BaseEventLoopTests.test_env_var_debug": [("'import asyncio',", "'import {package} as asyncio',")],
    },
    "test_events": {
        # CPython's private way to remove a reader and close the socket, which the next line closes again
        "EventLoopTestsMixin.test_prompt_cancellation": [("self.loop._stop_serving(r)", "pass")],
    },
    "test_tasks": {
        "BaseTaskTests.test_log_destroyed_pending_task": [
            ("self.loop._run_once()", "test_utils.run_once(self.loop)", ("3.11", "3.12", "3.13")),
            ("self.assertEqual(len(self.loop._ready), 0)", "pass"),
        ],
        "CoroutineGatherTests.test_issue46672": [
            ("with mock.patch(", "with mock.patch.object(self.one_loop,"),
            ("'asyncio.base_events.BaseEventLoop.call_exception_handler'", "'call_exception_handler'"),
        ],
    },
}


def _edited(function: types.FunctionType, replacements: list[Edit], package: str) -> types.FunctionType:
    source = textwrap.dedent(inspect.getsource(function))
    for old, new, *versions in replacements:
        if versions and PYTHON not in versions[0]:
            continue
        if old not in source:
            raise LookupError(f"{function.__qualname__} has no line {old!r}")  # E1
        source = source.replace(old, new.replace("{package}", package))
    tree = ast.increment_lineno(ast.parse(source), function.__code__.co_firstlineno - 1)
    namespace: dict[str, types.FunctionType] = {}
    exec(compile(tree, function.__code__.co_filename, "exec"), function.__globals__, namespace)
    return namespace[function.__name__]


def apply(module: types.ModuleType, package: str) -> None:
    """Edit the tests of an imported module."""
    for test, replacements in EDITS.get(module.__name__.rpartition(".")[2], {}).items():
        class_name, _, method = test.partition(".")
        test_class = getattr(module, class_name)
        if method in vars(test_class):
            setattr(test_class, method, _edited(vars(test_class)[method], replacements, package))
