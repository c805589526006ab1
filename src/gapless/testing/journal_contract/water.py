"""Back-pressure: full at high water, until low water."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gapless.errors import JournalFull, JournalUnavailable
from gapless.journal import Journal
from gapless.testing.journal_contract.case import SMALL, JournalCase, assert_holds, batch


async def fill(journal: Journal, last: int, size: int = 20) -> None:
    """Subscribe a reader and append so many, ten at a time."""
    await journal.subscribe("reader")
    for first in range(1, last, 10):
        await journal.append(batch(first, first + 9, size))


async def free(journal: Journal, upto: int) -> None:
    await journal.acknowledge("reader", upto)
    await journal.trim()


class WaterContract(JournalCase):
    """What high and low water promise."""

    def test_an_append_waits_from_high_to_low_water(self) -> None:
        """At 100 records it waits; with 61 it still waits; with 60 it goes on, and loses nothing."""

        async def main() -> None:
            async with self.opened() as journal:
                await fill(journal, 100)
                assert (await journal.state()).full
                waiting = asyncio.ensure_future(journal.append(batch(101, 105)))
                await self.clock.sleep(1)
                assert not waiting.done()
                await free(journal, 39)
                await self.clock.sleep(1)
                assert not waiting.done()
                assert len(await journal.read(39, records_max=1000)) == 61, "readers go on"
                await free(journal, 40)
                assert await waiting == [101, 102, 103, 104, 105]
                assert not (await journal.state()).full
                await assert_holds(journal, batch(41, 105), after=40)

        self.play(main())

    def test_an_append_waits_no_longer_than_allowed(self) -> None:
        """Then it raises JournalFull and has appended nothing; the same append succeeds when there is room."""

        async def main() -> None:
            async with self.opened() as journal:
                await fill(journal, 100)
                before = self.clock.monotonic()
                with pytest.raises(JournalFull):
                    await journal.append(batch(101, 102))
                waited = self.clock.monotonic() - before
                assert SMALL.append_timeout_seconds <= waited < 2 * SMALL.append_timeout_seconds
                await assert_holds(journal, batch(1, 100))
                await free(journal, 100)
                assert await journal.append(batch(101, 102)) == [101, 102]

        self.play(main())

    def test_bytes_have_a_high_water_too(self) -> None:
        """Few large messages fill a journal as many small ones do."""
        limits = replace(SMALL, bytes_high=200_000, bytes_low=120_000)

        async def main() -> None:
            async with self.opened(limits) as journal:
                await fill(journal, 20, size=10_000)
                waiting = asyncio.ensure_future(journal.append(batch(21, 21)))
                await self.clock.sleep(1)
                assert not waiting.done()
                await free(journal, 15)
                assert await waiting == [21]

        self.play(main())

    def test_those_who_wait_go_on_in_turn(self) -> None:
        """Appends that waited are there in the order they came; one that was cancelled is not in the way."""

        async def main() -> None:
            async with self.opened() as journal:
                await fill(journal, 100)
                waiting = []
                for first in (101, 111, 121, 131):
                    waiting.append(asyncio.ensure_future(journal.append(batch(first, first + 4))))
                    await self.clock.sleep(0.1)
                waiting[1].cancel()
                await self.clock.sleep(0.1)
                await free(journal, 90)
                assert await waiting[0] == [101, 102, 103, 104, 105]
                assert await waiting[2] == [106, 107, 108, 109, 110]
                assert await waiting[3] == [111, 112, 113, 114, 115]
                expected = [*batch(91, 105), *batch(121, 125), *batch(131, 135)]
                await assert_holds(journal, expected, after=90)

        self.play(main())

    def test_closing_ends_the_wait(self) -> None:
        """An append that waits for room is told at once that it was not made."""

        async def main() -> None:
            async with self.opened() as journal:
                await fill(journal, 100)
                waiting = [asyncio.ensure_future(journal.append(batch(n, n))) for n in (101, 102)]
                await self.clock.sleep(0.1)
                before = self.clock.monotonic()
                await journal.close()
                for task in waiting:
                    with pytest.raises(JournalUnavailable):
                        await task
                assert self.clock.monotonic() - before < 1

        self.play(main())

    def test_one_append_may_pass_the_high_water(self) -> None:
        """A batch is not torn: it goes in whole while there is any room, and then the journal is full."""

        async def main() -> None:
            async with self.opened() as journal:
                await fill(journal, 90)
                await journal.append(batch(91, 150))
                assert (await journal.state()).full
                await assert_holds(journal, batch(1, 150))

        self.play(main())
