"""A process that appends to a file journal for ever, and says on its standard output what was acknowledged."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from random import Random

from gapless.clock import SystemClock
from gapless.journal import Limits, Message, open_journal

LIMITS = Limits(segment_bytes=200_000, bytes_high=2**24, bytes_low=2**23, records_high=4000, records_low=2000)
BATCH_MAX = 40


def message(number: int) -> Message:
    """Anybody can tell it from its number."""
    return Message(f"m{number}", number.to_bytes(4, "big") * (1 + number * 7919 % 700), number)


async def write(folder: Path, seed: int) -> None:
    """Batches of any size; now and then a trim, a retry, two appends at once."""
    drawn = Random(seed)
    journal = await open_journal(folder.as_uri(), clock=SystemClock(), limits=LIMITS)
    await journal.subscribe("reader")
    last = (await journal.state()).last
    say(f"begin {last}")
    while True:
        size = drawn.choice((1, 2, 5, BATCH_MAX // 2))
        first, second = (
            [message(last + 1 + n) for n in range(size)],
            [message(last + 1 + size + n) for n in range(size)],
        )
        positions = await asyncio.gather(journal.append(first), journal.append(second))
        last = positions[1][-1]
        say(f"appended {last}")
        if drawn.random() < 0.05:
            assert (await journal.append([message(last)])) == [last]
        if drawn.random() < 0.05:
            await journal.acknowledge("reader", max(last - 500, 0))
            say(f"trim {max(last - 500, 0)}")
            await journal.trim()


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
