"""`make layers`: the arrows of ARCHITECTURE.md and the house rules, as far as a program can see them.

Prints each violation and fails if there is one. Each check is a function that takes the root of a tree and yields
sentences; tests/test_house.py runs them on this tree, and on small trees made to violate them.
What it leaves to others: clippy and ruff check what they can.

Invariants
1. An exception stands in ci/house.toml with a reason, and one that is not needed is a violation.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import rust_source

Violations = Iterator[str]

LONGEST_FILE = 500
LONGEST_FUNCTION = 60

# crate -> the crates it may depend on, in any table of its Cargo.toml
ARROWS = {
    "ioxide-reactor": {"libc"},
    "ioxide-io": {"libc"},
    "ioxide-cpython": {"libc", "pyo3-ffi", "pyo3-build-config"},
    "ioxide-asyncio": {"libc", "ioxide-reactor", "ioxide-io", "ioxide-cpython", "pyo3-build-config"},
}
# A second runtime or reactor in the tree would be one too many, however it came there.
FOREIGN_RUNTIMES = {"tokio", "mio", "async-std", "async-io", "async-executor", "smol", "polling", "glommio", "compio"}
# asyncio's primitives and streams are users of the core: they see futures, tasks and handles.
USERS_OF_THE_CORE = ("locks", "queues", "timeouts", "taskgroups", "threads", "staggered", "streams")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "fast", "compat", "misc"}
ONLY_INSTALLER = "python/ioxide/install.py"


def exceptions(root: Path, table: str) -> dict[str, str]:
    path = root / "ci/house.toml"
    rows = tomllib.loads(path.read_text())[table] if path.exists() else {}
    return {key: reason for key, reason in rows.items() if reason}


def rust_files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("crates/*/**/*.rs") if "target" not in path.relative_to(root).parts)


def python_files(root: Path) -> list[Path]:
    folders = ("python", "tests", "ci", "examples", "benches")
    return sorted(path for folder in folders for path in root.glob(f"{folder}/**/*.py"))


def name_of(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def check_arrows_between_crates(root: Path) -> Violations:
    """A crate depends on what ARROWS allows and on nothing else."""
    for path in sorted(root.glob("crates/*/Cargo.toml")):
        crate = path.parent.name
        if crate not in ARROWS:
            yield f"{name_of(root, path)}: a crate that ARCHITECTURE.md does not know"
            continue
        manifest = tomllib.loads(path.read_text())
        tables = [manifest, *manifest.get("target", {}).values()]
        for table in tables:
            for kind in ("dependencies", "dev-dependencies", "build-dependencies"):
                for dependency in table.get(kind, {}).keys() - ARROWS[crate]:
                    yield f"{name_of(root, path)}: {crate} must not depend on {dependency}"


def check_no_foreign_runtime(root: Path) -> Violations:
    lock = root / "Cargo.lock"
    if lock.exists():
        for package in tomllib.loads(lock.read_text()).get("package", []):
            if package["name"] in FOREIGN_RUNTIMES:
                yield f"Cargo.lock: {package['name']} is a second runtime"


def check_only_cpython_speaks_c(root: Path) -> Violations:
    """pyo3_ffi is named in ioxide-cpython, and elsewhere only in the files listed with a reason."""
    used = {
        name_of(root, path)
        for path in rust_files(root)
        if path.relative_to(root).parts[1] != "ioxide-cpython"
        and path.name != "build.rs"
        and re.search(r"\bpyo3(_ffi)?\b", rust_source.code_only(path.read_text()))
    }
    yield from against(exceptions(root, "raw_ffi"), used, "uses pyo3_ffi outside ioxide-cpython")


def check_threads(root: Path) -> Violations:
    """Threads are started by the worker pool and the stall watcher only; tests may."""
    starts = re.compile(r"\bthread::(spawn|Builder|scope)\b|\bpthread_create\b")
    used = {
        name_of(root, path)
        for path in rust_files(root)
        if starts.search(rust_source.code_only(rust_source.without_tests(path.read_text()))) and path.name != "tests.rs"
    }
    yield from against(exceptions(root, "threads"), used, "starts a thread")


def check_primitives_use_the_core(root: Path) -> Violations:
    """Locks, queues, streams and their like do not reach into the event loop."""
    for path in rust_files(root):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[:3] == ("crates", "ioxide-asyncio", "src") and parts[3] in USERS_OF_THE_CORE:
            for found in re.findall(r"\bcrate::event_loop\b", rust_source.code_only(path.read_text())):
                yield f"{name_of(root, path)}: a user of the core names {found}"


def check_rust_imports_no_ioxide_module(root: Path) -> Violations:
    for path in rust_files(root):
        for found in re.findall(r"""import\w*!?\(\s*c?"ioxide[^"]*\"""", path.read_text()):
            yield f"{name_of(root, path)}: Rust imports a Python module of ioxide: {found}"


def check_only_install_changes_asyncio(root: Path) -> Violations:
    for path in sorted(root.glob("python/**/*.py")):
        if name_of(root, path) != ONLY_INSTALLER:
            for line in assignments_to_asyncio(ast.parse(path.read_text())):
                yield f"{name_of(root, path)}:{line}: assigns to an attribute of asyncio; only {ONLY_INSTALLER} may"


def assignments_to_asyncio(tree: ast.Module) -> Iterator[int]:
    """Lines where something reached through a name imported from asyncio is assigned, deleted or setattr'ed."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            asyncios = (alias for alias in node.names if alias.name.split(".")[0] == "asyncio")
            names |= {alias.asname or "asyncio" for alias in asyncios}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "asyncio":
            names |= {alias.asname or alias.name for alias in node.names}

    def is_asyncios(node: ast.expr) -> bool:
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        return isinstance(node, ast.Name) and node.id in names

    def changes(node: ast.AST) -> bool:
        if isinstance(node, ast.Call):
            return ast.unparse(node.func) in ("setattr", "delattr") and is_asyncios(node.args[0])
        return isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load) and is_asyncios(node)

    yield from (node.lineno for node in ast.walk(tree) if isinstance(node, ast.expr) and changes(node))


def check_length_of_files(root: Path) -> Violations:
    paths = [*rust_files(root), *python_files(root)]
    long = {name_of(root, path): count for path in paths if (count := len(path.read_text().splitlines())) > LONGEST_FILE}
    yield from against(exceptions(root, "long_files"), long, f"has over {LONGEST_FILE} lines")


def check_length_of_functions(root: Path) -> Violations:
    long = set()
    for path in rust_files(root):
        for function in rust_source.functions(path.read_text()):
            if function.lines > LONGEST_FUNCTION:
                long.add(f"{name_of(root, path)}::{function.name}")
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.add(f"{name_of(root, path)}::{node.name}")
    yield from against(exceptions(root, "long_functions"), long, f"has over {LONGEST_FUNCTION} lines")


def check_heads(root: Path) -> Violations:
    """Every file begins by saying what it is."""
    for path in rust_files(root):
        if not path.read_text().startswith("//!"):
            yield f"{name_of(root, path)}: does not begin with a //! comment that says what the file is"
    for path in python_files(root):
        if ast.get_docstring(ast.parse(path.read_text())) is None:
            yield f"{name_of(root, path)}: does not begin with a docstring that says what the file is"


def check_names(root: Path) -> Violations:
    for path in [*rust_files(root), *python_files(root)]:
        if {path.stem, path.parent.name} & VAGUE_NAMES:
            yield f"{name_of(root, path)}: a name that says nothing; name the concept"


def check_tests_mirror_modules(root: Path) -> Violations:
    """python/ioxide/x.py and, for a module of asyncio, ioxide-asyncio/src/x have tests/test_x.py."""
    modules = {path.stem for path in root.glob("python/ioxide/*.py")} - {"__init__", "__main__"}
    # asyncio's own modules; ours alone, such as handles, are tested through them
    asyncios = {"events", "futures", "tasks", "locks", "queues", "timeouts", "taskgroups", "threads", "staggered"}
    asyncios |= {"transports", "streams", "subprocess", "sslproto", "protocols", "exceptions", "graph"}
    modules |= {path.stem for path in root.glob("crates/ioxide-asyncio/src/*")} & asyncios
    for module in sorted(modules):
        if not (root / f"tests/test_{module}.py").exists():
            yield f"tests/test_{module}.py is missing: the module {module} has no tests of its own"


def against(listed: dict[str, str], found: set[str] | dict[str, int], what: str) -> Violations:
    """Compares what was found with the exceptions listed for it, in both directions."""
    for name in sorted(found - listed.keys() if isinstance(found, set) else found.keys() - listed.keys()):
        yield f"{name}: {what}; change it, or list it in ci/house.toml with its reason"
    for name in sorted(listed.keys() - set(found)):
        yield f"ci/house.toml: the exception for {name} is not needed any more ({what})"


CHECKS: list[Callable[[Path], Violations]] = [
    check_arrows_between_crates,
    check_no_foreign_runtime,
    check_only_cpython_speaks_c,
    check_threads,
    check_primitives_use_the_core,
    check_rust_imports_no_ioxide_module,
    check_only_install_changes_asyncio,
    check_length_of_files,
    check_length_of_functions,
    check_heads,
    check_names,
    check_tests_mirror_modules,
]


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    violations = [violation for check in CHECKS for violation in check(root)]
    for violation in violations:
        print(violation)
    if violations:
        sys.exit(f"make layers: {len(violations)} violations")
    print(f"make layers: {len(CHECKS)} rules hold for {len(rust_files(root))} Rust and {len(python_files(root))} Python files")


if __name__ == "__main__":
    main()
