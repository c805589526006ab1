"""What a process and all it starts cost: wall time, CPU time, peak memory. Linux only, by /proc."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.02
RUN_SECONDS_MAX = 1800.0
FINISHED_LOOK_SECONDS = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cost:
    """Of one finished run; `beside` is the CPU time that the servers it used spent meanwhile, by name."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Resident memory of the whole process tree at its largest, sampled; shared pages count in each process."""
    beside: dict[str, float]


class RunFailed(Exception):
    """The measured program did not end well; the message has what it said."""


def _as_installed(environment: Mapping[str, str]) -> dict[str, str]:
    """A program that is installed has its byte code beside it; some development set-ups keep Python from writing it,
    and then every start would compile everything anew."""
    return {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measured(
    command: Sequence[str],
    folder: Path,
    servers: Mapping[str, int],
    *,
    environment: Mapping[str, str] | None = None,
    finished: Callable[[], bool] | None = None,
    seconds_max: float = RUN_SECONDS_MAX,
) -> Cost:
    """Run a command to its end. `servers`: processes it uses, whose trees' CPU time is taken too.

    `finished`: for a program that never ends by itself; asked again and again, and when it says so the program is
    ended. Raises RunFailed when it exits with anything but 0 or takes longer than `seconds_max`."""
    log = folder / "said.log"
    before = {name: tree_cpu_seconds(pid) for name, pid in servers.items()}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**_as_installed(os.environ), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    peak = Peak(process.pid)
    spent = 0.0
    try:
        ended = _wait(process, finished, started + seconds_max)
        wall = time.perf_counter() - started
        if not ended:
            spent = tree_cpu_seconds(process.pid)
    finally:
        peak.stop()
        _end_group(process)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended is None:
        raise RunFailed(f"{' '.join(command)} took longer than {seconds_max:g} s:\n{_tail(log)}")
    if ended and process.returncode != 0:
        raise RunFailed(f"{' '.join(command)} exited with {process.returncode}:\n{_tail(log)}")
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    beside = {name: tree_cpu_seconds(pid) - before[name] for name, pid in servers.items()}
    return Cost(wall, max(cpu, spent), peak.bytes, beside)


def _wait(process: subprocess.Popen[bytes], finished: Callable[[], bool] | None, deadline: float) -> bool | None:
    """True when the process ended, False when it has finished its work, None when neither happened in time."""
    if finished is None:
        try:
            process.wait(deadline - time.perf_counter())
        except subprocess.TimeoutExpired:
            return None
        return True
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            return True
        if finished():
            return False
        time.sleep(FINISHED_LOOK_SECONDS)
    return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what the program left running: it was started as the leader of a group of its own."""
    for signal_number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            if signal_number == signal.SIGTERM:
                time.sleep(0.1)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


class Peak:
    """Samples the resident memory of a process tree in a thread of its own."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, sum(resident_bytes(pid) for pid in tree(self._pid)))


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for one in found:
        try:
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        except OSError:  # it, or one of its threads, ended meanwhile
            continue
    return found


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def tree_cpu_seconds(pid: int) -> float:
    """User and system time of a process, its descendants, and those it has waited for."""
    total = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / _TICKS
