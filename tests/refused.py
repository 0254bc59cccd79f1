"""Runs a program in which the kernel refuses system calls, as in a container: `python refused.py NAME=ERROR … -- program …`.

What it is: a seccomp filter of this process, which the program inherits. Nothing takes it back, so it needs its own process.
What it leaves to others: what has to work all the same is for test_file_containers.py to say.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# Of the system calls that are younger than 2019, a number is the same everywhere.
YOUNG = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "openat2": 437}
# machine -> (how seccomp calls it, the numbers of the older ones)
MACHINES = {"x86_64": (0xC000003E, {"preadv2": 327}), "aarch64": (0xC00000B7, {"preadv2": 286})}

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of the kernel's filter programs: BPF_LD_W_ABS, BPF_JEQ_K, BPF_RET_K
OF_NUMBER, OF_MACHINE = 0, 4  # where struct seccomp_data has them
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2


def is_possible() -> bool:
    """Whether this machine is one whose numbers are known here."""
    return platform.machine() in MACHINES


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def program_of(refused: dict[str, int]) -> bytes:
    """The filter that answers calls with errors, and lets all others pass."""
    machine, older = MACHINES[platform.machine()]
    numbers = YOUNG | older
    lines = [instruction(LOAD, OF_MACHINE), instruction(EQUAL, machine, 1, 0), instruction(RETURN, ALLOW)]
    lines.append(instruction(LOAD, OF_NUMBER))
    for name, error in refused.items():
        lines += [instruction(EQUAL, numbers[name], 0, 1), instruction(RETURN, REFUSE | error)]
    return b"".join([*lines, instruction(RETURN, ALLOW)])


def refuse(refused: dict[str, int]) -> None:
    """From now on, in this thread and what it starts, the named calls fail with these errors."""
    library = ctypes.CDLL(None, use_errno=True)
    program = program_of(refused)
    kept = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(kept))
    for arguments in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SET_SECCOMP, FILTER, header, 0, 0)):
        converted = [ctypes.c_ulong(item) if isinstance(item, int) else ctypes.c_char_p(item) for item in arguments[1:]]
        if library.prctl(arguments[0], *converted) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def main() -> None:
    split = sys.argv.index("--")
    pairs = [argument.split("=") for argument in sys.argv[1:split]]
    refuse({name: getattr(errno, error) for name, error in pairs})
    os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])


if __name__ == "__main__":
    main()
