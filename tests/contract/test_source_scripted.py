"""The scripted source of the engine's tests keeps the contract, and sources broken on purpose do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from contract.source_scenes import Reachable, ScriptedScene
from gapless.errors import HistoryPruned, SourceError
from gapless.model import Cursor, Head, Identity, Segment
from gapless.testing.source_contract import (
    FailingSourceContract,
    MovingSourceContract,
    SourceContract,
    SourceScene,
)


class TestScriptedSource(SourceContract, MovingSourceContract, FailingSourceContract):
    """The whole contract."""

    @asynccontextmanager
    async def scene(self) -> AsyncIterator[SourceScene]:
        yield ScriptedScene(Reachable())


def breaks(rule: str, source: type[Reachable]) -> bool:
    """Whether a source fails this test of the contract."""

    class Contract(SourceContract, MovingSourceContract, FailingSourceContract):
        patience_seconds = 1.0

        @asynccontextmanager
        async def scene(self) -> AsyncIterator[SourceScene]:
            yield ScriptedScene(source())

    try:
        getattr(Contract(), rule)()
    except (AssertionError, SourceError, pytest.fail.Exception):
        return True
    return False


class Fetching(Reachable):
    """A source whose segments somebody tampers with."""

    def tampered(self, segment: Segment[Any]) -> Segment[Any]:
        return segment

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        return self.tampered(await super().fetch(first, last, **given))


class LeavesOneOut(Fetching):
    """An entry in the middle is not there."""

    def tampered(self, segment: Segment[Any]) -> Segment[Any]:
        kept = [i for i in range(len(segment.entries)) if i != 2]
        return replace(
            segment,
            entries=tuple(segment.entries[i] for i in kept),
            payload=[segment.payload[i] for i in kept],
        )


class Backwards(Fetching):
    """The newest entry comes first."""

    def tampered(self, segment: Segment[Any]) -> Segment[Any]:
        return replace(segment, entries=segment.entries[::-1], payload=segment.payload[::-1])


class Unlinked(Fetching):
    """Entries name no parents."""

    def tampered(self, segment: Segment[Any]) -> Segment[Any]:
        return replace(segment, entries=tuple(replace(e, parent_id="") for e in segment.entries))


class OmitsContents(Fetching):
    """An entry that holds something comes empty."""

    def tampered(self, segment: Segment[Any]) -> Segment[Any]:
        return replace(segment, payload=[*segment.payload[:-1], []])


class NeverTheSame(Fetching):
    """Each time an entry has another time."""

    drawn = 0

    def tampered(self, segment: Segment[Any]) -> Segment[Any]:
        NeverTheSame.drawn += 1
        times = [replace(e, time_us=e.time_us + NeverTheSame.drawn) for e in segment.entries]
        return replace(segment, entries=tuple(times))


class MixesUpAnswers(Reachable):
    """Of two fetches at once, one gets the other's answer."""

    last_asked = (0, 0)

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        self.last_asked = (first, last)
        await asyncio.sleep(0)
        return await super().fetch(*self.last_asked, **given)


class GivesWhatThereIs(Reachable):
    """A range that reaches beyond the head is cut, without a word."""

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        top = len(self.blocks) - 1
        return await super().fetch(min(first, top), min(last, top), **given)


class GivesUpForEver(Reachable):
    """What is not there yet is an error that ends the run."""

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        if last >= len(self.blocks):
            raise HistoryPruned("not there")
        return await super().fetch(first, last, **given)


class AvoidsNobody(Reachable):
    """Endpoints to avoid are asked all the same."""

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        return await super().fetch(first, last, head=given["head"])


class CannotBeGivenUp(Reachable):
    """A fetch swallows its cancellation, and with it the one slot that all fetches share."""

    busy = False

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        while self.busy:
            await asyncio.sleep(0.01)
        self.busy = True
        for _ in range(3):
            await asyncio.sleep(0)
        segment = await super().fetch(first, last, **given)
        self.busy = False
        return segment


class SortsCursors(Reachable):
    """Ids come in the order of positions, not in that asked for."""

    async def cursors(self, positions: Sequence[int]) -> Any:
        return await super().cursors(sorted(positions))


class RepeatsTheHead(Reachable):
    """Beyond the head, the head."""

    async def cursors(self, positions: Sequence[int]) -> Any:
        return await super().cursors([min(p, len(self.blocks) - 1) for p in positions])


class HasNoOpinion(Reachable):
    """Nobody says anything."""

    async def opinions(self, position: int) -> dict[str, Cursor | None]:
        return {}


class AccusesTheHonest(Reachable):
    """Somebody is always a liar."""

    def take_liars(self) -> frozenset[str]:
        return frozenset({"one"})


class WaitsWholly(Reachable):
    """A wait takes its whole time, whatever is new."""

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        await asyncio.sleep(timeout_seconds)
        return await self.head()


class WaitsForEver(Reachable):
    """Without a new head a wait does not end."""

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        while (await self.head()).latest == known:
            await asyncio.sleep(0.01)
        return await self.head()


class ComparesNumbersOnly(Reachable):
    """Another head of the same height is none."""

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        while (await self.head()).latest.position == known.position and timeout_seconds > 0:
            await asyncio.sleep(0.01)
            timeout_seconds -= 0.01
        return await self.head()


class FinalBeforeItIs(Reachable):
    """The future is final."""

    async def head(self) -> Any:
        head = await super().head()
        return replace(head, finalized=head.latest.position + 5)


class AnotherEachTime(Reachable):
    """It does not know who it is."""

    asked = 0

    async def identity(self) -> Any:
        self.asked += 1
        return Identity("scripted", str(self.asked), "genesis")


class MixesBranches(Reachable):
    """A long range is read in two parts, with a fork in between."""

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        middle = last - 2
        if middle < first:
            return await super().fetch(first, last, **given)
        low = await super().fetch(first, middle, **given)
        for _ in range(4):
            await asyncio.sleep(0)
        high = await super().fetch(middle + 1, last, **given)
        return replace(low, entries=low.entries + high.entries, payload=low.payload + high.payload)


class StaysOnTheOldBranch(Reachable):
    """Ids are remembered for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, Cursor] = {}

    async def cursors(self, positions: Sequence[int]) -> Any:
        for found in await super().cursors(range(len(self.blocks))):
            self.known.setdefault(found.position, found)
        return [self.known.get(p) for p in positions]

    async def head(self) -> Any:
        await self.cursors([])
        return await super().head()


class RaisesWhatItGets(Reachable):
    """The network's own error comes through."""

    def _reach(self) -> None:
        if self.away is not None:
            raise AssertionError("as an OSError would be: not one of ours")


class EndsTheRun(Reachable):
    """That nobody answers is an error that ends the run."""

    def _reach(self) -> None:
        if self.away is not None:
            raise HistoryPruned("gone")


class Hangs(Reachable):
    """It waits for an answer that never comes."""

    async def fetch(self, first: int, last: int, **given: Any) -> Any:
        while self.away is not None:
            await asyncio.sleep(0.05)
        return await super().fetch(first, last, **given)


class LeavesATaskBehind(Reachable):
    """What it started goes on after the end."""

    async def head(self) -> Any:
        self.task = asyncio.ensure_future(self._forever())
        return await super().head()

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(0.01)


BROKEN: tuple[tuple[type[Reachable], str], ...] = (
    (LeavesOneOut, "test_a_range_is_fetched_as_it_is"),
    (Backwards, "test_a_range_is_fetched_as_it_is"),
    (Unlinked, "test_a_range_is_fetched_as_it_is"),
    (OmitsContents, "test_a_range_is_fetched_as_it_is"),
    (OmitsContents, "test_how_a_range_is_cut_makes_no_difference"),
    (NeverTheSame, "test_the_same_range_is_the_same_again"),
    (MixesUpAnswers, "test_ranges_may_be_fetched_at_once"),
    (GivesWhatThereIs, "test_beyond_the_head_is_an_error_that_passes"),
    (GivesUpForEver, "test_beyond_the_head_is_an_error_that_passes"),
    (AvoidsNobody, "test_endpoints_to_avoid_are_not_asked"),
    (CannotBeGivenUp, "test_a_fetch_may_be_given_up"),
    (SortsCursors, "test_ids_come_in_the_order_asked_for"),
    (RepeatsTheHead, "test_ids_come_in_the_order_asked_for"),
    (HasNoOpinion, "test_opinions_are_those_of_the_endpoints"),
    (AccusesTheHonest, "test_who_is_honest_is_not_accused"),
    (WaitsWholly, "test_waiting_ends_at_once_for_another_head"),
    (WaitsForEver, "test_waiting_ends_when_the_time_is_over"),
    (ComparesNumbersOnly, "test_waiting_ends_at_once_for_another_head"),
    (FinalBeforeItIs, "test_the_head_is_the_newest_entry"),
    (AnotherEachTime, "test_it_says_who_it_is_and_stays_it"),
    (MixesBranches, "test_branches_are_never_mixed"),
    (StaysOnTheOldBranch, "test_a_fork_shows_in_everything"),
    (RaisesWhatItGets, "test_who_cannot_be_reached_raises_what_passes"),
    (EndsTheRun, "test_who_cannot_be_reached_raises_what_passes"),
    (Hangs, "test_who_cannot_be_reached_raises_what_passes"),
    (LeavesATaskBehind, "test_closing_ends_everything"),
)


@pytest.mark.parametrize(("source", "rule"), BROKEN, ids=lambda v: getattr(v, "__name__", v))
def test_a_broken_source_fails(source: type[Reachable], rule: str) -> None:
    """The rule that is broken is noticed."""
    assert breaks(rule, source)


@pytest.mark.parametrize("rule", sorted({rule for _, rule in BROKEN}))
def test_a_sound_source_fails_nothing(rule: str) -> None:
    """Run in the same way, the source as it is keeps these rules."""
    assert not breaks(rule, Reachable)
