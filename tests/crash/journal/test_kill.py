"""A process that writes the file journal is killed with -9 at any moment: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crash.journal.writer import BATCH_MAX, LIMITS, message
from gapless.clock import SystemClock
from gapless.journal import Message, open_journal

WRITER = Path(__file__).with_name("writer.py")


def live_and_die(folder: Path, seed: int, seconds: float) -> list[str]:
    """What the process said before it was killed."""
    process = subprocess.Popen([sys.executable, str(WRITER), str(folder), str(seed)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline().strip()]
    assert lines[0].startswith("begin"), "the journal opens after every kill"
    time.sleep(seconds)
    process.kill()
    lines += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()
    return lines


async def audit(folder: Path, acknowledged: int, trimmed: int) -> int:
    """Everything is there, byte for byte; at most what was under way is there besides. Returns the last position."""
    journal = await open_journal(folder.as_uri(), clock=SystemClock(), limits=LIMITS)
    try:
        state = await journal.state()
        assert acknowledged <= state.last <= acknowledged + BATCH_MAX
        assert state.first - 1 <= trimmed
        assert await journal.verify() == []
        after = state.first - 1
        while found := await journal.read(after):
            expected = [message(p) for p in range(after + 1, after + 1 + len(found))]
            assert [r.position for r in found] == list(range(after + 1, after + 1 + len(found)))
            assert [Message(r.id, r.payload, r.received_us) for r in found] == expected
            after = found[-1].position
        assert after == state.last
        return state.last
    finally:
        if random.random() < 0.5:
            await journal.close()
        else:
            journal._log._release()  # type: ignore[attr-defined]  # as if killed, too


def storm(folder: Path, kills: int, seed: int) -> int:
    """Kill again and again; the records that survived."""
    drawn = random.Random(seed)
    last = trimmed = 0
    for turn in range(kills):
        said = live_and_die(folder, seed + turn, drawn.uniform(0.0, 0.4))
        assert said[0] == f"begin {last}", "the next process finds what the audit found"
        for line in said[1:]:
            verb, number = line.split()
            if verb == "appended":
                last = int(number)
            else:
                trimmed = int(number)
        last = asyncio.run(audit(folder, last, trimmed))
    return last


def test_nothing_acknowledged_is_lost_to_a_kill(tmp_path: Path) -> None:
    """Ten kills at random moments, one after the other, on one journal."""
    assert storm(tmp_path / "journal", 10, seed=int(time.time())) > 1000


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_to_two_hundred_kills(tmp_path: Path) -> None:
    """The same at night."""
    assert storm(tmp_path / "journal", 200, seed=1) > 20_000
