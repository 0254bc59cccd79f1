"""The house rules: they hold for this tree, and ci/layers.py sees a tree that breaks one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "ci"))

import layers  # noqa: E402
import rust_source  # noqa: E402

MANIFEST = '[package]\nname = "x"\n[dependencies]\n'


def named(check: layers.Callable) -> str:  # type: ignore[type-arg]
    return check.__name__


@pytest.mark.parametrize("check", layers.CHECKS, ids=named)
def test_rule_holds(check: layers.Callable) -> None:  # type: ignore[type-arg]
    assert list(check(ROOT)) == []


# rule -> files of a tree that breaks it
BROKEN = {
    "check_arrows_between_crates": {"crates/ioxide-io/Cargo.toml": MANIFEST + 'pyo3-ffi = "0.1"\n'},
    "check_arrows_between_crates, upwards": {"crates/ioxide-reactor/Cargo.toml": MANIFEST + "ioxide-io.workspace = true\n"},
    "check_arrows_between_crates, for tests": {
        "crates/ioxide-cpython/Cargo.toml": "[dev-dependencies]\nioxide-reactor.workspace = true\n"
    },
    "check_arrows_between_crates, for a target": {
        "crates/ioxide-io/Cargo.toml": "[target.'cfg(unix)'.dependencies]\nmio = '1'\n"
    },
    "check_arrows_between_crates, a fifth crate": {"crates/ioxide-helpers/Cargo.toml": MANIFEST},
    "check_no_foreign_runtime": {"Cargo.lock": '[[package]]\nname = "tokio"\nversion = "1.0.0"\n'},
    "check_only_cpython_speaks_c": {"crates/ioxide-asyncio/src/x.rs": "//! x\nuse pyo3_ffi as ffi;\n"},
    "check_only_cpython_speaks_c, needless row": {"ci/house.toml": '[raw_ffi]\n"crates/ioxide-asyncio/src/x.rs" = "speed"\n'},
    "check_threads": {"crates/ioxide-asyncio/src/x.rs": "//! x\nfn f() { std::thread::spawn(|| {}); }\n"},
    "check_primitives_use_the_core": {"crates/ioxide-asyncio/src/locks/lock.rs": "//! x\nuse crate::event_loop::turn;\n"},
    "check_rust_imports_no_ioxide_module": {"crates/ioxide-asyncio/src/x.rs": '//! x\nfn f() { import(c"ioxide.cli"); }\n'},
    "check_only_install_changes_asyncio": {"python/ioxide/x.py": "import asyncio as a\na.run = None\n"},
    "check_only_install_changes_asyncio, setattr": {
        "python/ioxide/x.py": "from asyncio import events\nsetattr(events, 'x', 1)\n"
    },
    "check_only_install_changes_asyncio, dictionary": {
        "python/ioxide/x.py": "import asyncio.tasks\nasyncio.tasks.__dict__['x'] = 1\n"
    },
    "check_length_of_files": {"crates/ioxide-io/src/x.rs": "//! x\n" * 501},
    "check_length_of_functions": {"crates/ioxide-io/src/x.rs": "//! x\nfn long() {\n" + "    f();\n" * 59 + "}\n"},
    "check_length_of_functions, in Python": {"python/ioxide/x.py": "def long():\n" + "    pass\n" * 60},
    "check_heads": {"crates/ioxide-io/src/x.rs": "fn f() {}\n"},
    "check_heads, in Python": {"python/ioxide/x.py": "import os\n"},
    "check_names": {"crates/ioxide-io/src/utils.rs": "//! x\n"},
    "check_tests_mirror_modules": {"crates/ioxide-asyncio/src/queues.rs": "//! x\n"},
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rule_is_seen(case: str, tmp_path: Path) -> None:
    for name, text in BROKEN[case].items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    check = getattr(layers, case.split(",")[0])
    assert len(list(check(tmp_path))) == 1


def test_listed_exception_is_no_violation(tmp_path: Path) -> None:
    tmp_path.joinpath("ci").mkdir()
    tmp_path.joinpath("ci/house.toml").write_text('[long_files]\n"ci/x.py" = "a table"\n')
    tmp_path.joinpath("ci/x.py").write_text("x = 1\n" * 501)
    assert list(layers.check_length_of_files(tmp_path)) == []


def test_exception_without_a_reason_does_not_count(tmp_path: Path) -> None:
    tmp_path.joinpath("ci").mkdir()
    tmp_path.joinpath("ci/house.toml").write_text('[long_files]\n"ci/x.py" = ""\n')
    tmp_path.joinpath("ci/x.py").write_text("x = 1\n" * 501)
    assert len(list(layers.check_length_of_files(tmp_path))) == 1


def test_threads_in_tests_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "crates/ioxide-io/src/x.rs"
    path.parent.mkdir(parents=True)
    path.write_text("//! x\n// thread::spawn\n#[cfg(test)]\nmod tests { fn f() { std::thread::spawn(|| {}); } }\n")
    assert list(layers.check_threads(tmp_path)) == []


def test_functions_of_rust_source_are_measured() -> None:
    source = (
        "//! fn not_this() {\n"
        "trait T { fn declared(&self) -> [u8; 3]; }\n"
        "fn one<'a>(x: &'a str) -> char { let _ = \"}\"; '}' }\n"
        "pub fn three() {\n    let _ = r#\"fn no() { \"#; /* } */\n}\n"
    )
    assert rust_source.functions(source) == [("one", 1), ("three", 3)]


def test_make_layers_and_help_work() -> None:
    def make(target: str) -> str:
        command = ["make", "--no-print-directory", target, f"PYTHON={sys.executable}"]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert "rules hold" in make("layers")
    for target in ("demo", "test", "conformance", "bench", "layers", "lint", "typing", "clean"):
        assert f"\n  make {target} " in "\n" + make("help")
