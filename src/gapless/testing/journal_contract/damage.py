"""Damage is named: which positions, and where. It is never passed over and never made good by deletion."""

from __future__ import annotations

import pytest

from gapless.errors import JournalDamaged
from gapless.journal import Journal, Message
from gapless.testing.journal_contract.case import JournalCase, batch


class DamageContract(JournalCase):
    """What a journal promises whose records can rot."""

    def damage(self, position: int) -> None:
        """Change bytes of the record at this position, while no handle is open."""
        pytest.fail(f"a subclass of DamageContract says how the record at {position} is damaged")

    def test_damage_in_the_middle_is_named(self) -> None:
        """Everything up to it is read; then its positions are named; behind them everything is read. No position is
        missing from what was read and what was named, and every record read is what was appended."""

        async def main() -> None:
            for position in (1, 30, 57):
                sent = await self._damaged(position)
                damaged = position + int(sent[0].id.rpartition(":")[2]) - 1
                async with self.opened() as journal:
                    (damage,) = await journal.verify()
                    assert damage.first <= damaged <= damage.last
                    assert damage.segment
                    assert damage.why
                    await self._read_around(journal, sent, damage.first, damage.last)
                    await journal.acknowledge("reader", (await journal.state()).last)
                    await journal.trim()

        self.play(main())

    async def _damaged(self, position: int) -> list[Message]:
        """Sixty records after what is there, one of them damaged."""
        async with self.opened() as journal:
            await journal.subscribe("reader")
            start = (await journal.state()).last
            sent = batch(start + 1, start + 60, size=500)
            for at in range(0, 60, 3):
                await journal.append(sent[at : at + 3])
        self.damage(start + position)
        return sent

    async def _read_around(self, journal: Journal, sent: list[Message], first: int, last: int) -> None:
        start = (await journal.state()).first - 1
        after = start
        found = []
        while after < first - 1:
            records = await journal.read(after, records_max=1000)
            found += records
            after = records[-1].position
        assert after == first - 1
        for _ in range(2):
            with pytest.raises(JournalDamaged) as error:
                await journal.read(after)
            assert (error.value.first, error.value.last) == (first, last)
        found += await journal.read(last, records_max=1000)
        assert [r.position for r in found] == [p for p in range(start + 1, start + 61) if not first <= p <= last]
        assert all(sent[r.position - start - 1].payload == r.payload for r in found)
