"""What the parts of the contract share: a journal for each test, messages, and reading all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gapless.errors import check
from gapless.journal import Journal, Limits, Message, Record
from gapless.testing.fake_clock import FakeClock

SMALL = Limits(
    records_high=100,
    records_low=60,
    bytes_high=2**20,
    bytes_low=2**19,
    append_timeout_seconds=5.0,
    message_bytes_max=100_000,
    recent_ids=64,
    segment_bytes=4096,
)
"""Limits that a test reaches."""


class JournalCase:
    """One test's journal. Time is virtual; an adapter that talks to a server overrides `play` and `clock`."""

    @pytest.fixture(autouse=True)
    def _clock(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Before each test."""
        self.clock = FakeClock()

    async def make_journal(self, limits: Limits) -> Journal:
        """Open a handle on this test's journal, which is empty when the test begins."""
        pytest.fail(f"a subclass of JournalContract says how a journal with {limits} is made")

    def play(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a test's body."""
        self.clock.run(main)

    @asynccontextmanager
    async def opened(self, limits: Limits = SMALL) -> AsyncIterator[Journal]:
        journal = await self.make_journal(limits)
        try:
            yield journal
        finally:
            await journal.close()


def message(number: int, size: int = 20) -> Message:
    """Known by its number, and different from all others."""
    return Message(f"host.example:{number}", number.to_bytes(4, "big") * (size // 4), 1_700_000_000_000_000 + number)


def batch(first: int, last: int, size: int = 20) -> list[Message]:
    return [message(number, size) for number in range(first, last + 1)]


async def everything(journal: Journal, after: int = 0, step: int = 7) -> list[Record]:
    """All records behind a position, read a few at a time."""
    out: list[Record] = []
    while found := await journal.read(after, records_max=step):
        out += found
        after = found[-1].position
        check(len(out) < 100_000, "reading ends")
    return out


async def assert_holds(journal: Journal, messages: Sequence[Message], *, after: int = 0) -> None:
    """The journal holds exactly these messages behind a position, each at its place, and says so."""
    records = await everything(journal, after)
    assert [r.position for r in records] == list(range(after + 1, after + 1 + len(messages)))
    assert [Message(r.id, r.payload, r.received_us) for r in records] == list(messages)
    state = await journal.state()
    assert (state.first, state.last) == (after + 1, after + len(messages))
    assert await journal.length() == state.length == len(messages)
    assert await journal.verify() == []
