"""How fast the file journal is on this machine: `python -m benchmarks.journal [MIB]`.

Frames of 1 to 5 kB (the size of a firehose's), appended in groups with one sync each, read back, recovered after a
kill and checked. The figures of docs/decisions/0010-file-journal.md come from here.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gapless.journal import Limits, Message
from gapless.journal.file import FileLog

GROUPS = ((1, 3_000), (64, 100_000), (1000, 0))
"""(messages in an append, messages in all); 0: until the journal has the size asked for."""


def frames() -> Callable[[int], Message]:
    drawn = random.Random(1)
    pool = [drawn.randbytes(drawn.randint(1000, 5000)) for _ in range(997)]
    return lambda number: Message(f"relay.example:{10**9 + number}", pool[number % 997], number)


def timed(what: str, count: int, call: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:34} {count / wall:>10,.0f}/s {wall:>8.2f} s  cpu {cpu / count * 1e6:>6.1f} us each  rss {rss()} MiB")


def rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def append(log: FileLog, frame: Callable[[int], Message], group: int, count: int, bytes_max: int) -> int:
    """Append so many, or until the journal is so large; returns how many."""
    done, first = 0, log.state().last + 1
    while (done < count) if count else (log.state().bytes_held < bytes_max):
        log.append([frame(first + done + n) for n in range(group)])
        done += group
    return done


def read(log: FileLog) -> None:
    after = log.state().first - 1
    while found := log.read(after, 1000, 8 * 2**20):
        after = found[-1].position


def main(size_bytes: int) -> None:
    frame = frames()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        log = FileLog(Path(folder), Limits())
        log.open()
        for group, wanted in GROUPS:
            before = time.perf_counter(), time.process_time()
            count = append(log, frame, group, wanted, size_bytes)
            wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
            each = cpu / max(count, 1) * 1e6
            print(f"append, {group:>4} with one sync {count / wall:>16,.0f}/s {wall:>8.2f} s  cpu {each:>6.1f} us each")
        state = log.state()
        payload = sum(len(frame(p).payload) for p in range(1, state.last + 1))
        print(f"{state.last:,} records, {payload / 2**20:,.0f} MiB, on disk x {state.bytes_held / payload:.3f}")
        timed("read and check everything", state.last, lambda: read(log))
        log._release()  # noqa: SLF001 - what the system does for a process that is killed
        log = FileLog(Path(folder), Limits())
        timed("open after a kill (whole journal)", state.last, log.open)
        timed("verify", state.last, log.verify)
        log.close()


if __name__ == "__main__":
    main(int(sys.argv[1] if len(sys.argv) > 1 else "1024") * 2**20)
