"""Reading: in order, without holes, within limits."""

from __future__ import annotations

import asyncio

import pytest

from gapless.errors import JournalError, JournalUnavailable
from gapless.testing.journal_contract.case import JournalCase, assert_holds, batch, everything


class ReadContract(JournalCase):
    """What `read` promises."""

    def test_reading_any_part_gives_that_part(self) -> None:
        """From every position, in steps of any size, the records that follow come in order."""

        async def main() -> None:
            async with self.opened() as journal:
                for first in range(1, 97, 8):
                    await journal.append(batch(first, first + 7, size=4 * first))
                for after in range(96):
                    for step in (1, 5, 1000):
                        found = await journal.read(after, records_max=step)
                        assert [r.position for r in found] == list(range(after + 1, min(after + step, 96) + 1))

        self.play(main())

    def test_reading_stops_at_so_many_bytes(self) -> None:
        """No more bytes than asked for, but always one record, so that a large one does not stop the reader."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 10, size=1000))
                assert len(await journal.read(0, bytes_max=3500)) == 3
                assert len(await journal.read(0, bytes_max=3000)) == 3
                assert len(await journal.read(0, bytes_max=1)) == 1

        self.play(main())

    def test_reading_consumes_nothing(self) -> None:
        """Readers do not see each other: the same records come again, to everybody."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 20))
                first, second = await asyncio.gather(everything(journal), everything(journal, step=3))
                assert first == second == await everything(journal)
                await assert_holds(journal, batch(1, 20))

        self.play(main())

    def test_at_the_end_there_is_nothing(self) -> None:
        """Behind the last record a read is empty, at once when it is not to wait."""

        async def main() -> None:
            async with self.opened() as journal:
                assert await journal.read(0) == []
                await journal.append(batch(1, 2))
                assert await journal.read(2) == []

        self.play(main())

    def test_a_position_beyond_the_end_is_refused(self) -> None:
        """It is not from this journal: waiting for it could be for ever."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 2))
                with pytest.raises(JournalError):
                    await journal.read(3)
                with pytest.raises(JournalError):
                    await journal.read(3, wait_seconds=1)

        self.play(main())

    def test_a_waiting_reader_gets_what_comes(self) -> None:
        """Every reader that waits is woken by the next append."""

        async def main() -> None:
            async with self.opened() as journal:
                waiting = [asyncio.ensure_future(journal.read(0, wait_seconds=60)) for _ in range(3)]
                await self.clock.sleep(0.1)
                assert not any(task.done() for task in waiting)
                await journal.append(batch(1, 2))
                for task in waiting:
                    assert [r.position for r in await task] == [1, 2]

        self.play(main())

    def test_a_reader_waits_no_longer_than_it_said(self) -> None:
        """Then it gets nothing."""

        async def main() -> None:
            async with self.opened() as journal:
                before = self.clock.monotonic()
                assert await journal.read(0, wait_seconds=2) == []
                assert 2 <= self.clock.monotonic() - before < 4

        self.play(main())

    def test_nothing_works_after_the_end(self) -> None:
        """A closed journal refuses everything, also those who were waiting; closing again does nothing."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 2))
                await journal.subscribe("reader")
                waiting = asyncio.ensure_future(journal.read(2, wait_seconds=1000))
                await self.clock.sleep(0.1)
                await journal.close()
                await journal.close()
                before = self.clock.monotonic()
                with pytest.raises(JournalUnavailable):
                    await waiting
                assert self.clock.monotonic() - before < 10
                for refused in (
                    journal.append(batch(3, 3)),
                    journal.read(0),
                    journal.subscribe("reader"),
                    journal.acknowledge("reader", 1),
                    journal.unsubscribe("reader"),
                    journal.trim(),
                    journal.length(),
                    journal.state(),
                    journal.verify(),
                ):
                    with pytest.raises(JournalUnavailable):
                        await refused

        self.play(main())
