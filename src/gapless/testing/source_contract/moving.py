"""A chain that grows and forks while it is read."""

from __future__ import annotations

import asyncio

from gapless.errors import SourceError
from gapless.model import Head
from gapless.testing.source_contract.scene import Known, SourceCase, SourceScene, must_pass

DEPTH = 4
RACES = 15


class MovingSourceContract(SourceCase):
    """What a source promises when its chain does not stand still."""

    def test_waiting_ends_when_the_chain_grows(self) -> None:
        """Soon after there is a new head, with it."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            waiting = asyncio.ensure_future(scene.source.wait_head(head.latest, self.patience_seconds * 0.9))
            await asyncio.sleep(0.05)  # noqa: TID251 - real time: the source must be waiting already
            await scene.grow(2)
            found = await self.soon(waiting)
            assert found.latest in {known.cursor for known in scene.truth()[-2:]}
            assert found.latest != head.latest

        self.play(act)

    def test_new_entries_link_to_the_old_ones(self) -> None:
        """Growth changes nothing of what was there, and what is final never goes back."""

        async def act(scene: SourceScene) -> None:
            before = await self.soon(scene.source.head())
            old = scene.truth()
            await scene.grow(5)
            after = await self._sees(scene)
            first, last = old[-3].position, after.latest.position
            assert await self.fetched(scene, first, last) == _from(scene, first)
            assert after.finalized >= before.finalized

        self.play(act)

    def test_a_fork_shows_in_everything(self) -> None:
        """Head, ids, opinions and entries are those of the new branch; below the fork all stays."""

        async def act(scene: SourceScene) -> None:
            await self.soon(scene.source.head())
            old = scene.truth()
            await scene.fork(DEPTH, DEPTH + 2)
            await self._sees(scene)
            new = scene.truth()
            first = old[-DEPTH - 2].position
            assert await self.fetched(scene, first, new[-1].position) == _from(scene, first)
            positions = [known.position for known in old[-DEPTH - 2 :]]
            found = await self.soon(scene.source.cursors(positions))
            assert found == [known.cursor for known in new if known.position in positions]
            assert found[:2] == [known.cursor for known in old[-DEPTH - 2 : -DEPTH]]
            opinions = await self.soon(scene.source.opinions(old[-1].position))
            assert old[-1].cursor not in opinions.values()

        self.play(act)

    def test_branches_are_never_mixed(self) -> None:
        """While the chain forks again and again, a range is of one branch, or an error that passes."""

        async def act(scene: SourceScene) -> None:
            await self.soon(scene.source.head())
            ever = {(known.position, known.id): known for known in scene.truth()}
            low, high = scene.truth()[-DEPTH - 6].position, scene.truth()[-1].position
            for race in range(RACES):
                fetching = asyncio.ensure_future(self._raced(scene, low, high))
                for _ in range(race):
                    await asyncio.sleep(0)  # noqa: TID251 - the fork comes a little later each time
                await scene.fork(DEPTH, DEPTH + race % 2)
                high = min(high, scene.truth()[-1].position)
                ever |= {(known.position, known.id): known for known in scene.truth()}
                for known in await self.soon(fetching):
                    assert ever.get((known.position, known.id)) == known, "an entry that never was"
            await self._sees(scene)
            assert await self.fetched(scene, low, high) == [k for k in _from(scene, low) if k.position <= high]

        self.play(act)

    async def _raced(self, scene: SourceScene, first: int, last: int) -> list[Known]:
        try:
            return await self.fetched(scene, first, last)
        except SourceError as error:
            must_pass(error)
            return []

    async def _sees(self, scene: SourceScene) -> Head:
        """The head, once it is the chain's newest entry."""
        head: Head = await self.soon(scene.source.head())

        async def look() -> None:
            nonlocal head
            while head.latest != scene.truth()[-1].cursor:
                head = await scene.source.wait_head(head.latest, 0.2)

        await self.soon(look())
        return head


def _from(scene: SourceScene, first: int) -> list[Known]:
    return [known for known in scene.truth() if known.position >= first]
