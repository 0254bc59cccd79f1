"""What each function of `ioxide.fs` is asked in test_fs_functions.py, and the tree on which it is asked."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Tree:
    """What calls are made on: a folder with something of each kind, as path and as descriptor, and an open file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        inner = root / "folder" / "inner"
        inner.mkdir(parents=True)
        (inner / "deep").write_bytes(b"deep")
        (root / "bare").mkdir()
        (root / "file").write_bytes(b"content of the file")
        (root / "other").write_bytes(b"other")
        (root / "link").symlink_to("file")
        (root / "folder link").symlink_to("folder")
        (root / "broken").symlink_to("nowhere")
        (root / "round").symlink_to("round")
        os.mkfifo(root / "fifo")
        (root / "file").chmod(0o640)
        for name in ("file", "other", "folder", "fifo", "bare"):
            os.utime(root / name, (1_000_000_000, 1_000_000_001))
        self.descriptor = os.open(root / "file", os.O_RDWR)
        self.target = os.open(root / "other", os.O_RDWR)
        self.within = os.open(root, os.O_RDONLY)

    def __getattr__(self, name: str) -> str:
        return str(self.root / name.replace("_", " "))

    def close(self) -> None:
        for descriptor in (self.descriptor, self.target, self.within):
            os.close(descriptor)

    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            data: Any = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
            data = os.readlink(path).replace(str(self.root), "") if path.is_symlink() else data
            attributes = (status.st_mode, status.st_size if data is not None else 0, status.st_nlink, status.st_uid)
            found[str(path.relative_to(self.root))] = (attributes, data if path.suffix not in (".tar", ".zip") else None)
        return found


class Named:
    """A path that is no string."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path


def call(*arguments: Any, **keywords: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return arguments, keywords


Calls = Callable[[Tree], list[tuple[tuple[Any, ...], dict[str, Any]]]]


def looks(tree: Tree) -> list[Any]:
    """What every function that looks at one path is asked."""
    paths = [tree.file, tree.folder_link, tree.broken, tree.round, tree.fifo, tree.missing, tree.file + "/x", "", "\0", "x" * 300]
    kinds = [os.fsencode(tree.file), Path(tree.file), Named(tree.file), Named(tree.missing), os.fsencode(tree.missing)]
    return [call(path) for path in [*paths, *kinds, tree.descriptor, -1, 10**6, None, 1.5, []]] + [
        call(),
        call(1, 2, 3, 4, 5, 6),
    ]


def looks_following(tree: Tree) -> list[Any]:
    within = [call("link", dir_fd=tree.within, follow_symlinks=follow) for follow in (True, False)]
    without = [call(path, follow_symlinks=False) for path in (tree.link, tree.broken, tree.round, tree.descriptor, tree.missing)]
    return [*looks(tree), *within, *without, call("missing", dir_fd=tree.within), call("x", dir_fd=-1), call("x", dir_fd="x")]


def changes(*arguments: Any, missing: bool = True) -> Calls:
    """One path, and what is to be done to it."""

    def calls(tree: Tree) -> list[Any]:
        paths: list[Any] = [
            tree.file,
            os.fsencode(tree.other),
            Path(tree.link),
            Named(tree.folder_inner),
            tree.folder_link,
            tree.bare,
        ]
        paths += [tree.broken, tree.missing, tree.file + "/x", "", None, 1.5]
        return [call(path, *arguments) for path in paths] + [call(), call(tree.file, *arguments, nonsense=1)]

    return calls


def pairs(tree: Tree) -> list[Any]:
    """A source and a target."""
    return [
        call(tree.file, tree.new),
        call(Path(tree.other), os.fsencode(tree.root / "newer").decode()),
        call(os.fsencode(tree.link), os.fsencode(tree.root / "bytes")),
        call(Named(tree.other), Named(tree.named)),
        call(tree.missing, tree.newest),
        call(tree.file, tree.root / "missing" / "x"),
        call(tree.file, tree.bare),
        call(tree.folder_inner, tree.moved),
        call(tree.folder, tree.root / "folder" / "inner" / "within"),
        call(tree.file, tree.file),
        call(tree.broken, tree.unbroken),
        call(tree.fifo, tree.fifo_too),
        call(tree.file, None),
        call(tree.file),
    ]


def pairs_within(tree: Tree) -> list[Any]:
    both = {"src_dir_fd": tree.within, "dst_dir_fd": tree.within}
    return [*pairs(tree), call("other", "within", **both), call("missing", "within", **both), call("x", "y", src_dir_fd=-1)]


def ignoring(tree: Tree) -> list[Any]:
    seen = [call(tree.missing, ignore_errors=True), call(tree.missing), call(tree.file), call(tree.folder_link)]
    errors: list[str] = []
    handler = {"onexc" if sys.version_info >= (3, 12) else "onerror": lambda function, path, error: errors.append(path)}
    within = [call("folder", dir_fd=tree.within), call(tree.bare, True), call(Path(tree.missing), **handler)]
    return [*seen, *within, call(os.fsencode(tree.missing)), call(None)]


CALLS: dict[str, Calls] = {
    **dict.fromkeys(("stat",), looks_following),
    **dict.fromkeys(("lexists", "isfile", "isdir", "islink", "getsize", "getmtime", "getatime", "exists", "ismount"), looks),
    "getctime": lambda tree: [call(tree.missing), call(filename=tree.missing), call("\0"), call(None)],
    "lstat": lambda tree: [*looks(tree), call("link", dir_fd=tree.within), call("missing", dir_fd=tree.within)],
    "readlink": lambda tree: [*looks(tree), call("link", dir_fd=tree.within), call(os.fsencode(tree.link)), call(path=tree.link)],
    "access": lambda tree: (
        [call(path, os.R_OK) for path in (tree.file, tree.broken, tree.missing, Named(tree.file), None)]
        + [
            call("broken", os.F_OK, dir_fd=tree.within, follow_symlinks=False),
            call(tree.file, 0, effective_ids=True),
            call(tree.file),
        ]
    ),
    "abspath": lambda tree: [call("x/../y"), call(b"x"), call(Named("x//y")), call(None), call()],
    "realpath": lambda tree: [
        call(tree.link),
        call(tree.round, strict=True),
        call(tree.round),
        call(tree.missing, strict=True),
        call(os.fsencode(tree.folder_link)),
        call(None),
    ],
    "chmod": lambda tree: [
        *changes(0o600)(tree),
        call("file", 0o644, dir_fd=tree.within),
        call(tree.descriptor, 0o604),
        call(tree.link, 0o600, follow_symlinks=False),
    ],
    "chown": lambda tree: [
        *changes(-1, -1)(tree),
        call(tree.broken, -1, -1, follow_symlinks=False),
        call("file", -1, -1, dir_fd=tree.within),
    ],
    "lchown": changes(-1, -1),
    "copy_file_range": lambda tree: [
        call(tree.descriptor, tree.target, 4, 2, 1),
        call(-1, tree.target, 4),
        call(tree.descriptor, tree.target, -1),
    ],
    "fchmod": lambda tree: [call(tree.descriptor, 0o600), call(-1, 0o600), call("x", 1)],
    "fchown": lambda tree: [call(tree.descriptor, -1, -1), call(-1, -1, -1), call("x", 1, 1)],
    "fdatasync": lambda tree: [call(tree.descriptor), call(-1), call("x")],
    "fsync": lambda tree: [call(tree.descriptor), call(-1), call(fd=tree.descriptor), call("x")],
    "fstat": lambda tree: [call(tree.descriptor), call(-1), call("x")],
    "fstatvfs": lambda tree: [call(tree.descriptor), call(-1), call("x")],
    "ftruncate": lambda tree: [call(tree.descriptor, 5), call(tree.descriptor, -1), call(-1, 0), call(tree.within, 1)],
    "getcwd": lambda tree: [call(), call(1)],
    "getxattr": lambda tree: [
        call(tree.file, "user.missing"),
        call(tree.missing, "user.x"),
        call(tree.descriptor, b"user.x"),
        call(tree.link, "user.x", follow_symlinks=False),
    ],
    "setxattr": lambda tree: [
        call(tree.missing, "user.x", b"1"),
        call(tree.file, "nonsense", b"1"),
        call(tree.link, "user.x", b"", follow_symlinks=False),
        call(tree.file, "user.x", "text"),
    ],
    "listxattr": lambda tree: [call(tree.missing), call(tree.link, follow_symlinks=False), call(tree.descriptor), call(1.5)],
    "removexattr": lambda tree: [
        call(tree.file, "user.missing"),
        call(tree.missing, "user.x"),
        call(tree.link, "user.x", follow_symlinks=False),
    ],
    "link": lambda tree: [*pairs_within(tree), call(tree.link, tree.hard, follow_symlinks=False)],
    "listdir": lambda tree: [
        call(path)
        for path in (
            tree.bare,
            tree.folder,
            tree.folder_link,
            os.fsencode(tree.folder),
            Path(tree.folder),
            tree.missing,
            tree.file,
            tree.round,
            -1,
            1.5,
        )
    ],
    "makedirs": lambda tree: [
        call(tree.root / "a" / "b" / "c"),
        call(tree.folder),
        call(tree.folder, exist_ok=True),
        call(tree.file, exist_ok=True),
        call(tree.file + "/x"),
        call(Path(tree.private), 0o700),
        call(tree.broken, 0o700, True),
        call(""),
    ],
    "mkdir": lambda tree: [
        *changes()(tree),
        call(tree.new, 0o700),
        call("newer", dir_fd=tree.within),
        call(path=tree.newest, mode=0o711),
    ],
    "mkfifo": lambda tree: [*changes()(tree), call(tree.new, 0o600), call("newer", dir_fd=tree.within)],
    "mknod": lambda tree: [
        call(tree.new, 0o600 | stat.S_IFREG),
        call(tree.file),
        call("newer", dir_fd=tree.within),
        call(tree.missing + "/x"),
    ],
    "pathconf": lambda tree: [
        call(tree.file, "PC_NAME_MAX"),
        call(tree.missing, "PC_NAME_MAX"),
        call(tree.descriptor, "PC_LINK_MAX"),
        call(tree.file, "nonsense"),
    ],
    "posix_fadvise": lambda tree: [
        call(tree.descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL),
        call(-1, 0, 0, 0),
        call(tree.descriptor, 0, 0, 99),
    ],
    "posix_fallocate": lambda tree: [call(tree.descriptor, 0, 100), call(-1, 0, 1), call(tree.descriptor, 0, -1)],
    "remove": lambda tree: [*changes()(tree), call("fifo", dir_fd=tree.within), call("missing", dir_fd=tree.within)],
    "removedirs": lambda tree: [
        call(tree.root / "folder" / "inner"),
        call(tree.bare),
        call(tree.missing),
        call(tree.file),
        call(None),
    ],
    "rename": pairs_within,
    "renames": lambda tree: [
        call(tree.file, tree.root / "a" / "b"),
        call(tree.root / "bare", tree.root / "c" / "d"),
        call(tree.missing, tree.new),
        call(tree.other, tree.file + "/x"),
    ],
    "replace": pairs_within,
    "rmdir": lambda tree: [*changes()(tree), call("bare", dir_fd=tree.within)],
    "samefile": lambda tree: [
        call(tree.file, tree.link),
        call(tree.file, tree.other),
        call(tree.file, tree.missing),
        call(tree.missing, tree.file),
        call(tree.descriptor, Path(tree.link)),
        call(None, tree.file),
    ],
    "sameopenfile": lambda tree: [
        call(tree.descriptor, tree.descriptor),
        call(tree.descriptor, tree.target),
        call(-1, tree.target),
    ],
    "sendfile": lambda tree: [
        call(tree.target, tree.descriptor, 3, 4),
        call(tree.target, -1, 0, 1),
        call(-1, tree.descriptor, 0, 1),
        call(out_fd=tree.target, in_fd=tree.descriptor, offset=0, count=2),
    ],
    "splice": lambda tree: [call(tree.descriptor, tree.target, 1), call(-1, -1, 1)],
    "statvfs": lambda tree: [
        call(path) for path in (tree.file, tree.broken, tree.missing, tree.descriptor, Named(tree.file), -1, None)
    ],
    "symlink": lambda tree: [
        call("anywhere", tree.new),
        call("x", tree.file),
        call(b"x", os.fsencode(tree.root / "b")),
        call("x", tree.missing + "/x"),
        call("x", "within", dir_fd=tree.within),
        call(Path("p"), Named(tree.named), target_is_directory=True),
        call(None, "x"),
    ],
    "sync": lambda tree: [call(), call(1)],
    "truncate": lambda tree: [
        call(tree.file, 3),
        call(tree.link, 2),
        call(tree.descriptor, 30),
        call(tree.folder_inner, 1),
        call(tree.missing, 1),
        call(tree.file, -1),
        call(tree.bare, 0),
    ],
    "unlink": lambda tree: [*changes()(tree), call("fifo", dir_fd=tree.within), call("missing", dir_fd=tree.within)],
    "utime": lambda tree: [
        *changes((1, 2))(tree),
        call(tree.link, ns=(1, 2), follow_symlinks=False),
        call("file", (1, 2), dir_fd=tree.within),
        call(tree.descriptor, ns=(5, 6)),
        call(tree.file, (1, 2), ns=(1, 2)),
        call(tree.file, 1),
    ],
    "copy": lambda tree: [*pairs(tree), call(tree.link, tree.copied_link, follow_symlinks=False)],
    "copy2": lambda tree: [*pairs(tree), call(tree.link, tree.copied_link, follow_symlinks=False)],
    "copyfile": lambda tree: [*pairs(tree), call(tree.link, tree.copied_link, follow_symlinks=False)],
    "copymode": lambda tree: [
        call(tree.file, tree.other),
        call(tree.missing, tree.other),
        call(tree.file, tree.missing),
        call(tree.link, tree.broken, follow_symlinks=False),
    ],
    "copystat": lambda tree: [
        call(tree.file, tree.other),
        call(tree.missing, tree.other),
        call(tree.file, tree.missing),
        call(tree.link, tree.broken, follow_symlinks=False),
    ],
    "copytree": lambda tree: [
        call(tree.folder_inner, tree.copied),
        call(tree.folder_inner, tree.copied),
        call(tree.folder_inner, tree.copied, dirs_exist_ok=True),
        call(tree.folder, tree.without, ignore=shutil.ignore_patterns("dee*")),
        call(tree.folder_link, tree.linked, symlinks=True, copy_function=shutil.copyfile),
        call(tree.missing, tree.nothing),
        call(tree.file, tree.nothing),
        call(tree.root, tree.root / "bare" / "all", ignore=lambda folder, names: ["bare", "round", "fifo"]),
        call(
            tree.root,
            tree.root / "bare" / "most",
            ignore=lambda folder, names: ["bare", "round", "fifo"],
            ignore_dangling_symlinks=True,
        ),
    ],
    "disk_usage": lambda tree: [call(tree.file), call(tree.missing), call(tree.descriptor), call(None)],
    "make_archive": lambda tree: [
        call(tree.packed, "tar", tree.folder),
        call(tree.packed, "nonsense", tree.folder),
        call(tree.packed, "zip", tree.missing),
    ],
    "move": lambda tree: [*pairs(tree), call(tree.other, tree.moved_too, copy_function=shutil.copyfile)],
    "rmtree": ignoring,
    "unpack_archive": lambda tree: [
        call(tree.missing),
        call(tree.file),
        call(tree.file, tree.bare, "tar"),
        call(tree.file, format="nonsense"),
    ],
    "which": lambda tree: [
        call("sh"),
        call("nothing like it"),
        call("file", path=str(tree.root)),
        call(tree.file),
        call(b"sh"),
        call("sh", os.X_OK, ""),
    ],
}
