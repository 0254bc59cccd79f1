"""Claim: ioxide holds tasks and connections in at most asyncio's memory, grows by nothing, and sleeps when idle.

Resident bytes per sleeping task and per idle connection; growth over cycles of tasks and over connections opened and closed;
CPU, wake-ups and threads of a loop with 10,000 idle connections. The measured process is memory_subject.py.

Invariants:
 1. Each measurement has a new process, and warms up on the work it measures before the first census.
 2. Only the measured process is counted: the connections' other ends live in this script.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from collections.abc import Callable

import loops
import machine
from memory_subject import CYCLES
from processes import Failed, Process
from suite import Context, Figures, Goal, Workload, each

MESSAGE = b"m" * 1024
AT_ONCE = 100
IDLE_SECONDS = 2.0
# Growth below this over a whole run is the allocator's arenas settling, not a leak: a leak of 6 bytes a cycle shows.
GROWTH_BOUND_KIB = 512
TASKS, CONNECTIONS, IDLE_CONNECTIONS, CYCLE_COUNT, OPENED = 100_000, 5_000, 10_000, 100_000, 10_000
KINDS = ["protocol", "streams"]
AT_LEAST = 10_000  # tasks whose CPU time is taken, in all


def census(subject: Process) -> dict[str, int]:
    held: dict[str, int] = json.loads(subject.ask("census"))
    return held


def connect(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(count)]


def converse(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.sendall(MESSAGE)
    for connection in connections:
        left = len(MESSAGE)
        while left:
            data = connection.recv(left)
            if not data:
                raise Failed("the server closed a connection")
            left -= len(data)


def wait_for_descriptors(subject: Process, reached: Callable[[int], bool]) -> None:
    """Until the server has accepted or closed what the client did; a server that never does shows in the figures."""
    deadline = time.monotonic() + 5
    while not reached(machine.open_descriptors(subject.id)) and time.monotonic() < deadline:
        time.sleep(0.01)


def open_and_close(subject: Process, port: int, count: int) -> None:
    before = machine.open_descriptors(subject.id)
    for _ in range(count // AT_ONCE):
        connections = connect(port, AT_ONCE)
        converse(connections)
        for connection in connections:
            connection.close()
    wait_for_descriptors(subject, lambda descriptors: descriptors <= before)


def serve(subject: Process, kind: str) -> int:
    port = int(subject.ask(f"serve {kind}").split()[1])
    time.sleep(0.3)
    return port


def started(name: str) -> Process:
    return Process(
        name, machine.MEASURED_CORE, [sys.executable, str(machine.HERE / "memory_subject.py"), name], loops.environment(name)
    )


def sleepers(subject: Process, count: int) -> Figures:
    for command in ("sleep 1000", "cancel"):
        subject.ask(command)
    before, cpu = census(subject), machine.cpu_nanoseconds(subject.id)
    # Few tasks several times over, so that the commands themselves weigh nothing.
    repeats = max(AT_LEAST // count, 1)
    for repeat in range(repeats):
        subject.ask(f"sleep {count}", patience=120)
        if repeat == 0:
            full, peak = machine.resident_bytes(subject.id), machine.peak_kib(subject.id)
        subject.ask("cancel", patience=120)
    cpu = (machine.cpu_nanoseconds(subject.id) - cpu) / repeats
    after = census(subject)
    return {
        "bytes": (full - before["resident"]) / count,
        "bytes_kept": (after["resident"] - before["resident"]) / count,
        "cpu_ns": cpu / count,
        "peak_kib": peak,
    }


def connected(subject: Process, kind: str, count: int, then: Callable[[list[socket.socket], int], Figures]) -> Figures:
    """Warms up, then gives `then` so many connections that the server has accepted, and the resident memory before."""
    allow_descriptors(count + 500)
    port = serve(subject, kind)
    open_and_close(subject, port, AT_ONCE)
    before = census(subject)
    # Not the census's number: that one includes the descriptor with which the process reads its own directory.
    expected = machine.open_descriptors(subject.id) + count
    connections = connect(port, count)
    try:
        wait_for_descriptors(subject, lambda descriptors: descriptors >= expected)
        time.sleep(0.2)
        if machine.open_descriptors(subject.id) < expected:
            raise Failed(f"the server did not accept {count} connections")
        return then(connections, before["resident"])
    finally:
        for connection in connections:
            connection.close()


def memory_of_connections(subject: Process, kind: str, count: int) -> Figures:
    def then(connections: list[socket.socket], before: int) -> Figures:
        silent = machine.resident_bytes(subject.id)
        for start in range(0, count, AT_ONCE):
            converse(connections[start : start + AT_ONCE])
        return {"bytes": (silent - before) / count, "bytes_after_use": (machine.resident_bytes(subject.id) - before) / count}

    return connected(subject, kind, count, then)


def idle(subject: Process, count: int) -> Figures:
    """A listening server, idle connections, a thousand timers an hour away: nothing of this may wake the loop."""
    subject.ask("sleep 1000")

    def then(connections: list[socket.socket], before: int) -> Figures:
        converse(connections[:1])
        silent = machine.resident_bytes(subject.id)
        time.sleep(0.5)
        switches, cpu = machine.voluntary_switches(subject.id), machine.cpu_nanoseconds(subject.id)
        time.sleep(IDLE_SECONDS)
        return {
            "wake_ups": machine.voluntary_switches(subject.id) - switches,
            "idle_cpu_us": (machine.cpu_nanoseconds(subject.id) - cpu) / 1e3,
            "threads": machine.threads(subject.id),
            "bytes": (silent - before) / count,
            "peak_kib": machine.peak_kib(subject.id),
        }

    return connected(subject, "protocol", count, then)


def growth(subject: Process, work: Callable[[int], None], count: int) -> Figures:
    """Half the work warms up; the census after it is the base for the whole of the work."""
    work(count // 2)
    before = census(subject)
    work(count)
    after = census(subject)
    subject.ask("collector off")
    work(count // 10)
    uncollected = census(subject)["unreachable"]
    subject.ask("collector on")
    return {
        "grown_kib": (after["resident"] - before["resident"]) / 1024,
        "objects": after["objects"] - before["objects"],
        "descriptors": after["descriptors"] - before["descriptors"],
        "objects_in_cycles": uncollected,
    }


def grow(subject: Process, kind: str, context: Context) -> Figures:
    if kind in CYCLES:
        # In thousands, and half and a tenth of them too.
        count = context.operations(CYCLE_COUNT, 10_000) // 10_000 * 10_000
        return growth(subject, lambda count: subject.ask(f"cycle {kind} {count}", patience=120), count)
    count = context.operations(OPENED, 1000) // 1000 * 1000
    port = serve(subject, kind.split()[-1])
    return growth(subject, lambda count: open_and_close(subject, port, count), count)


def allow_descriptors(count: int) -> None:
    """For this script and, inherited, for the processes it measures; the process that is measured here asks for them itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise Failed(f"{count} open files are needed, the hard limit is {hard}")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def measure(name: str, context: Context, case: str) -> Figures:
    allow_descriptors(context.operations(IDLE_CONNECTIONS) + 500)
    with started(name) as subject:
        if case == "sleeping task":
            return sleepers(subject, context.operations(TASKS, 1000))
        if case.startswith("sleeping tasks"):
            return sleepers(subject, context.operations(STEPS[case], 100))
        if case.startswith("idle connection, "):
            return memory_of_connections(
                subject, case.split(", ")[1], context.operations(CONNECTIONS, AT_ONCE) // AT_ONCE * AT_ONCE
            )
        if case == IDLE:
            return idle(subject, context.operations(IDLE_CONNECTIONS))
        return grow(subject, case, context)


IDLE = f"{IDLE_CONNECTIONS:,} idle connections"
STEPS = {f"sleeping tasks, {count:,}": count for count in (100, 1000, 10_000, 100_000, 1_000_000)}
HELD = ("sleeping task", *(f"idle connection, {kind}" for kind in KINDS))
GROWING = (*CYCLES, *(f"connections {kind}" for kind in KINDS))

WORKLOADS = [
    Workload(
        "memory",
        "A task and a connection take at most asyncio's memory.",
        HELD,
        each(measure),
        figure="bytes",
        unit="resident bytes each",
        details=("bytes_kept", "bytes_after_use", "peak_kib"),
        goals=(Goal("asyncio", 1.0),),
        baseline="asyncio",
        most_rounds=3,
        short=HELD[:2],
    ),
    Workload(
        "idle",
        "Ten thousand idle connections and a thousand sleeping tasks cost nothing while nothing happens.",
        (IDLE,),
        each(measure),
        figure="wake_ups",
        unit=f"wake-ups in {IDLE_SECONDS:.0f} seconds",
        details=("idle_cpu_us", "threads", "bytes", "peak_kib"),
        goals=(Goal("", 0),),
        baseline="",
        most_rounds=3,
        short=None,
    ),
    Workload(
        "many-tasks",
        "A task costs the same among a hundred sleeping ones and among a million: created, put to sleep, cancelled.",
        tuple(STEPS),
        each(measure),
        unit="CPU nanoseconds per task",
        details=("bytes", "peak_kib"),
        goals=(Goal(loops.BASELINE, 1.0),),
        growth=True,
        most_rounds=3,
        short=None,
    ),
    Workload(
        "growth",
        "A hundred thousand cycles of tasks and ten thousand connections leave nothing behind.",
        GROWING,
        each(measure),
        figure="grown_kib",
        unit="KiB grown",
        details=("objects", "descriptors", "objects_in_cycles"),
        goals=(Goal("", GROWTH_BOUND_KIB),),
        baseline="",
        most_rounds=2,
        short=None,
    ),
]
