"""Consumers: each keeps its place, and what one of them still needs is not trimmed."""

from __future__ import annotations

import pytest

from gapless.errors import JournalError, JournalTrimmed
from gapless.testing.journal_contract.case import JournalCase, assert_holds, batch


class ConsumerContract(JournalCase):
    """What `subscribe`, `acknowledge` and `trim` promise."""

    def test_a_new_consumer_begins_before_the_oldest_record(self) -> None:
        """Nothing that is there is withheld from it; asking again changes nothing."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 20))
                assert await journal.subscribe("first") == 0
                await journal.acknowledge("first", 12)
                assert await journal.subscribe("first") == 12
                assert await journal.trim() == 12
                assert await journal.subscribe("second") == 12
                assert (await journal.state()).consumers == {"first": 12, "second": 12}

        self.play(main())

    def test_an_acknowledgement_only_grows(self) -> None:
        """A late lower one has no effect."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 20))
                await journal.subscribe("reader")
                await journal.acknowledge("reader", 15)
                await journal.acknowledge("reader", 3)
                assert await journal.subscribe("reader") == 15

        self.play(main())

    def test_an_acknowledgement_of_nothing_is_refused(self) -> None:
        """By a consumer that is not known, or of a position that was never there."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 5))
                with pytest.raises(JournalError):
                    await journal.acknowledge("nobody", 1)
                await journal.subscribe("reader")
                with pytest.raises(JournalError):
                    await journal.acknowledge("reader", 6)
                assert (await journal.state()).consumers == {"reader": 0}

        self.play(main())

    def test_a_trim_waits_for_the_slowest(self) -> None:
        """It removes a prefix that every consumer has acknowledged, whatever it is asked for."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 90, size=400))
                await journal.subscribe("fast")
                await journal.subscribe("slow")
                await journal.acknowledge("fast", 80)
                assert await journal.trim() == 0
                assert await journal.trim(70) == 0
                await journal.acknowledge("slow", 33)
                assert await journal.trim(90) == 33
                await assert_holds(journal, batch(34, 90, size=400), after=33)
                assert await journal.trim(20) == 33
                await journal.acknowledge("slow", 90)
                assert await journal.trim(50) == 50
                await assert_holds(journal, batch(51, 90, size=400), after=50)
                assert await journal.trim() == 80
                await assert_holds(journal, batch(81, 90, size=400), after=80)

        self.play(main())

    def test_without_consumers_nothing_is_trimmed(self) -> None:
        """Nobody has acknowledged anything."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 9))
                assert await journal.trim() == 0
                assert await journal.trim(9) == 0
                await assert_holds(journal, batch(1, 9))

        self.play(main())

    def test_a_consumer_that_left_holds_nothing_up(self) -> None:
        """Once it is unsubscribed, trim goes by the others; with the last one gone it stays where it is."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 9))
                await journal.subscribe("stays")
                await journal.subscribe("leaves")
                await journal.acknowledge("stays", 5)
                await journal.unsubscribe("leaves")
                await journal.unsubscribe("never came")
                assert await journal.trim() == 5
                await journal.unsubscribe("stays")
                assert await journal.trim() == 5
                await assert_holds(journal, batch(6, 9), after=5)

        self.play(main())

    def test_what_was_trimmed_is_not_passed_over(self) -> None:
        """A reader that asks for it is told so, and does not get what comes after in its place."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 9))
                await journal.subscribe("reader")
                await journal.acknowledge("reader", 5)
                await journal.trim()
                for after in range(5):
                    with pytest.raises(JournalTrimmed):
                        await journal.read(after)
                assert [r.position for r in await journal.read(5)] == [6, 7, 8, 9]

        self.play(main())

    def test_positions_go_on_after_everything_was_trimmed(self) -> None:
        """An empty journal has not forgotten where it is."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.subscribe("reader")
                for turn in range(4):
                    first = 1 + turn * 20
                    assert (await journal.append(batch(first, first + 19)))[0] == first
                    await journal.acknowledge("reader", first + 19)
                    assert await journal.trim() == first + 19
                    await assert_holds(journal, [], after=first + 19)

        self.play(main())
