"""Entries in order, linked and whole, however the range is cut and however often it is asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gapless.errors import SourceError
from gapless.model import Segment
from gapless.testing.source_contract.scene import Known, SourceCase, SourceScene, must_pass

CUTS = (1, 2, 5, 7)


class FetchContract(SourceCase):
    """What `fetch` promises."""

    def test_a_range_is_fetched_as_it_is(self) -> None:
        """All of it, in order, linked, with all that its entries hold: one entry, several, everything."""

        async def act(scene: SourceScene) -> None:
            await self.soon(scene.source.head())
            truth = scene.truth()
            low, high = truth[0].position, truth[-1].position
            for first, last in ((low, low), (low + 3, low + 9), (high, high), (high - 4, high), (low, high)):
                assert await self.fetched(scene, first, last) == _part(scene, first, last)

        self.play(act)

    def test_the_same_range_is_the_same_again(self) -> None:
        """Entry by entry: ids, times, contents."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            first = scene.truth()[0].position
            once, again = [await self.soon(scene.source.fetch(first + 2, first + 12, head=head)) for _ in range(2)]
            assert _bare(once) == _bare(again)
            assert scene.contents(once) == scene.contents(again)

        self.play(act)

    def test_how_a_range_is_cut_makes_no_difference(self) -> None:
        """Small ranges one after the other are the large one."""

        async def act(scene: SourceScene) -> None:
            await self.soon(scene.source.head())
            first = scene.truth()[0].position
            last = first + 17
            whole = await self.fetched(scene, first, last)
            for size in CUTS:
                parts: list[Known] = []
                for at in range(first, last + 1, size):
                    parts += await self.fetched(scene, at, min(at + size - 1, last))
                assert parts == whole

        self.play(act)

    def test_ranges_may_be_fetched_at_once(self) -> None:
        """The engine asks ahead: each answer is that of its own range."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            low = scene.truth()[0].position
            ranges = [(low + a, low + a + 4) for a in range(0, 14, 2)]
            calls = [scene.source.fetch(first, last, head=head) for first, last in ranges]
            for (first, last), segment in zip(ranges, await self.soon(asyncio.gather(*calls)), strict=True):
                assert self.checked(scene, segment, first, last) == _part(scene, first, last)

        self.play(act)

    def test_beyond_the_head_is_an_error_that_passes(self) -> None:
        """Nothing in part and nothing made up: a SourceError after which the engine tries again."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            top = scene.truth()[-1].position
            for first, last in ((top + 50, top + 52), (top - 1, top + 50)):
                with pytest.raises(SourceError) as caught:
                    await self.soon(scene.source.fetch(first, last, head=head))
                must_pass(caught.value)
            assert await self.fetched(scene, top - 1, top) == _part(scene, top - 1, top)

        self.play(act)

    def test_endpoints_to_avoid_are_not_asked(self) -> None:
        """What they served is served by another, or not at all for now."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            first = scene.truth()[0].position
            segment = await self.soon(scene.source.fetch(first, first + 3, head=head))
            labels = frozenset(e.served_by for e in segment.entries if e.served_by)
            try:
                other = await self.soon(scene.source.fetch(first, first + 3, head=head, avoid=labels))
            except SourceError as error:
                must_pass(error)
            else:
                assert not labels & {e.served_by for e in other.entries}
                assert scene.contents(other) == scene.contents(segment)

        self.play(act)

    def test_a_fetch_may_be_given_up(self) -> None:
        """Cancelled at any moment it ends, and the source answers as before."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            first = scene.truth()[0].position
            for turns in (0, 1, 2, 5, 20):
                task = asyncio.ensure_future(scene.source.fetch(first, first + 15, head=head))
                for _ in range(turns):
                    await asyncio.sleep(0)  # noqa: TID251 - gives way to the task, takes no time
                task.cancel()
                await self.soon(asyncio.wait({task}))
            assert await self.fetched(scene, first, first + 15) == _part(scene, first, first + 15)

        self.play(act)


def _part(scene: SourceScene, first: int, last: int) -> list[Known]:
    """What is true of a range; nothing is known of the parent of the very first entry."""
    return [known for known in scene.truth() if first <= known.position <= last]


def _bare(segment: Segment[Any]) -> list[tuple[int, str, str, int]]:
    return [(e.position, e.id, e.parent_id, e.time_us) for e in segment.entries]
