"""Appending: in order, once, as it came."""

from __future__ import annotations

import asyncio

import pytest

from gapless.errors import InvariantViolation
from gapless.journal import Message
from gapless.testing.journal_contract.case import SMALL, JournalCase, assert_holds, batch, message


class AppendContract(JournalCase):
    """What `append` promises."""

    def test_positions_are_consecutive_from_one(self) -> None:
        """Batches of any size get the positions that follow, in the order of their messages."""

        async def main() -> None:
            async with self.opened() as journal:
                assert await journal.append(batch(1, 3)) == [1, 2, 3]
                assert await journal.append(batch(4, 4)) == [4]
                assert await journal.append(batch(5, 40)) == list(range(5, 41))
                await assert_holds(journal, batch(1, 40))

        self.play(main())

    def test_nothing_appended_is_nothing(self) -> None:
        """An empty append takes no position."""

        async def main() -> None:
            async with self.opened() as journal:
                assert await journal.append([]) == []
                assert await journal.append(batch(1, 1)) == [1]
                await assert_holds(journal, batch(1, 1))

        self.play(main())

    def test_a_retry_adds_nothing(self) -> None:
        """The same ids again get the positions they have; what is new among them gets the next ones."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 10))
                assert await journal.append(batch(1, 10)) == list(range(1, 11))
                assert await journal.append([message(12), message(4), message(11), message(12)]) == [11, 4, 12, 11]
                assert await journal.append(batch(11, 12)) == [12, 11]
                await assert_holds(journal, [*batch(1, 10), message(12), message(11)])

        self.play(main())

    def test_an_id_is_known_for_as_long_as_promised(self) -> None:
        """The newest `recent_ids` records are recognised, whichever of them comes again."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append(batch(1, 90))
                oldest = 90 - SMALL.recent_ids + 1
                for number in (oldest, 60, 90):
                    assert await journal.append([message(number)]) == [number]
                assert await journal.length() == 90

        self.play(main())

    def test_the_first_payload_stands(self) -> None:
        """Ids are compared, payloads are not: what is there is not changed by what comes later."""

        async def main() -> None:
            async with self.opened() as journal:
                await journal.append([message(1)])
                assert await journal.append([Message(message(1).id, b"another", 5)]) == [1]
                await assert_holds(journal, [message(1)])

        self.play(main())

    def test_bytes_come_back_as_they_were(self) -> None:
        """Any payload, also none and one as large as allowed; any text as id; time to the microsecond."""
        messages = [
            Message("empty", b"", 0),
            Message("ünïcode ⛓ / *.>{} \n", bytes(range(256)) * 3, 2**62),
            Message("i" * 1024, b"\x00" * 5000, 1),
            Message("large", bytes(i % 251 for i in range(SMALL.message_bytes_max)), 2),
            *(Message(f"size {n}", b"\xff" * n, n) for n in range(32_600, 32_800, 7)),
        ]

        async def main() -> None:
            async with self.opened() as journal:
                for one in messages[:3]:
                    await journal.append([one])
                await journal.append(messages[3:20])
                await journal.append(messages[20:])
                await assert_holds(journal, messages)

        self.play(main())

    def test_what_is_beyond_the_limits_is_refused(self) -> None:
        """A payload too large, an id empty or too long: nothing of the batch is appended."""
        bad = (
            Message("x", bytes(SMALL.message_bytes_max + 1), 1),
            Message("", b"x", 1),
            Message("i" * 1025, b"x", 1),
            Message("x", b"x", -1),
        )

        async def main() -> None:
            async with self.opened() as journal:
                for one in bad:
                    with pytest.raises(InvariantViolation):
                        await journal.append([message(1), one])
                await assert_holds(journal, [])

        self.play(main())

    def test_appends_at_the_same_time_do_not_mix(self) -> None:
        """Several callers: each one's messages stay together and in order, and nobody's are lost."""

        async def main() -> None:
            async with self.opened() as journal:
                batches = [batch(n, n + 4) for n in range(1, 86, 5)]
                answers = await asyncio.gather(*(journal.append(b) for b in batches))
                for positions in answers:
                    assert positions == list(range(positions[0], positions[0] + 5))
                in_order = [m for _, b in sorted(zip(answers, batches, strict=True), key=lambda p: p[0]) for m in b]
                await assert_holds(journal, in_order)

        self.play(main())

    def test_callers_with_the_same_messages_share_positions(self) -> None:
        """Two that append the same at the same time get the same positions."""

        async def main() -> None:
            async with self.opened() as journal:
                first, second = await asyncio.gather(journal.append(batch(1, 9)), journal.append(batch(1, 9)))
                assert first == second == list(range(1, 10))
                await assert_holds(journal, batch(1, 9))

        self.play(main())

    def test_a_cancelled_append_is_whole_or_not_there(self) -> None:
        """Whatever became of it, appending again makes it so, and what others append meanwhile is not touched."""

        async def main() -> None:
            async with self.opened() as journal:
                for turns in range(6):
                    first = 1 + turns * 8
                    task = asyncio.ensure_future(journal.append(batch(first, first + 3)))
                    other = asyncio.ensure_future(journal.append(batch(first + 4, first + 7)))
                    for _ in range(turns):
                        await self.clock.sleep(0)
                    task.cancel()
                    await other
                    await journal.append(batch(first, first + 3))
                state = await journal.state()
                assert state.length == 48
                found = await journal.read(0, records_max=1000)
                assert sorted(r.id for r in found) == sorted(m.id for m in batch(1, 48))

        self.play(main())
