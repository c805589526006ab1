"""What is there again after a restart, a killed process, a power cut."""

from __future__ import annotations

import pytest

from gapless.errors import JournalLocked
from gapless.journal import Journal
from gapless.testing.journal_contract.case import SMALL, JournalCase, assert_holds, batch, message


class DurabilityContract(JournalCase):
    """What a durable journal promises."""

    async def kill(self, journal: Journal) -> None:
        """End the process that has this handle open, without a word to it."""
        pytest.fail(f"a subclass of DurableJournalContract says how the process of {journal} dies")

    async def lose_power(self, journal: Journal) -> None:
        """End it by cutting the machine's power: what no sync has made durable may be lost."""
        pytest.fail(f"a subclass of DurableJournalContract says how {journal} loses power")

    def test_a_journal_is_the_same_after_a_restart(self) -> None:
        """Closed and opened: records, positions, consumers and what is trimmed are as they were."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.subscribe("reader")
                await journal.subscribe("slow")
                await journal.append(batch(1, 90, size=300))
                await journal.acknowledge("reader", 70)
                await journal.acknowledge("slow", 40)
                await journal.trim()
                before = await journal.state()
            async with self.opened() as journal:
                after = await journal.state()
                assert (after.first, after.last, after.consumers) == (before.first, before.last, before.consumers)
                await assert_holds(journal, batch(41, 90, size=300), after=40)
                assert await journal.append(batch(91, 91)) == [91]

        self.play(main())

    def test_what_was_acknowledged_survives_a_kill(self) -> None:
        """Again and again, after every single append."""

        async def main() -> None:
            for last in range(1, 90, 9):
                journal = await self.make_journal(SMALL)
                await assert_holds(journal, batch(1, last - 1))
                assert (await journal.append(batch(last, last + 8)))[-1] == last + 8
                await self.kill(journal)

        self.play(main())

    def test_what_was_acknowledged_survives_a_power_cut(self) -> None:
        """Also in a new segment, and also right after another power cut."""

        async def main() -> None:
            for last in range(1, 90, 9):
                journal = await self.make_journal(SMALL)
                await assert_holds(journal, batch(1, last - 1, size=1000))
                assert (await journal.append(batch(last, last + 8, size=1000)))[-1] == last + 8
                await self.lose_power(journal)
            await self.lose_power(await self.make_journal(SMALL))
            async with self.opened() as journal:
                await assert_holds(journal, batch(1, 90, size=1000))

        self.play(main())

    def test_ids_are_known_after_a_restart(self) -> None:
        """Who got no answer appends again, to the next process: it adds nothing."""

        async def main() -> None:
            journal = await self.make_journal(SMALL)
            await journal.append(batch(1, 90, size=300))
            for end in (self.kill, self.lose_power):
                await end(journal)
                journal = await self.make_journal(SMALL)
                for number in (90 - SMALL.recent_ids + 1, 60, 90):
                    assert await journal.append([message(number)]) == [number]
                await assert_holds(journal, batch(1, 90, size=300))
            await journal.close()

        self.play(main())

    def test_a_consumer_is_not_forgotten(self) -> None:
        """Once `subscribe` has returned, trim waits for it, whatever happens to the machine."""

        async def main() -> None:
            journal = await self.make_journal(SMALL)
            await journal.append(batch(1, 20))
            await journal.subscribe("sleeper")
            await self.lose_power(journal)
            async with self.opened() as journal:
                await journal.subscribe("other")
                await journal.acknowledge("other", 20)
                assert await journal.trim() == 0
                await assert_holds(journal, batch(1, 20))

        self.play(main())

    def test_an_acknowledgement_is_never_invented(self) -> None:
        """After a crash a consumer stands at a place it has acknowledged, or before it, and nothing it needs from
        there is gone."""

        async def main() -> None:
            journal = await self.make_journal(SMALL)
            await journal.append(batch(1, 50, size=300))
            await journal.subscribe("reader")
            await journal.acknowledge("reader", 20)
            await journal.trim()
            await journal.acknowledge("reader", 40)
            await self.lose_power(journal)
            async with self.opened() as journal:
                at = await journal.subscribe("reader")
                assert 20 <= at <= 40
                assert [r.position for r in await journal.read(at, records_max=1000)] == list(range(at + 1, 51))

        self.play(main())

    def test_a_trim_is_durable(self) -> None:
        """What was trimmed does not come back, and its positions are not given again, even if nothing is left."""

        async def main() -> None:
            journal = await self.make_journal(SMALL)
            await journal.subscribe("reader")
            await journal.append(batch(1, 50, size=300))
            await journal.acknowledge("reader", 50)
            assert await journal.trim(30) == 30
            await self.lose_power(journal)
            journal = await self.make_journal(SMALL)
            await assert_holds(journal, batch(31, 50, size=300), after=30)
            await journal.acknowledge("reader", 50)
            assert await journal.trim() == 50
            await self.lose_power(journal)
            async with self.opened() as journal:
                await assert_holds(journal, [], after=50)
                assert await journal.append([message(51)]) == [51]

        self.play(main())

    def test_a_full_journal_is_full_after_a_restart(self) -> None:
        """High water holds across processes."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 100))
            async with self.opened() as journal:
                assert (await journal.state()).full
                await assert_holds(journal, batch(1, 100))

        self.play(main())

    def test_there_is_one_writer(self) -> None:
        """A second handle is refused while one is open, harms nothing, and is given once the first has ended."""

        async def main() -> None:
            journal = await self.make_journal(SMALL)
            await journal.append(batch(1, 5))
            with pytest.raises(JournalLocked):
                await self.make_journal(SMALL)
            await journal.append(batch(6, 9))
            await assert_holds(journal, batch(1, 9))
            await self.kill(journal)
            async with self.opened() as journal:
                await assert_holds(journal, batch(1, 9))

        self.play(main())
