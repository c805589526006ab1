"""Fetch ranges again and replace what they produced, over the ordinary path: fetch → derive → one transaction.

State tables are not touched: what a middle block did to them depends on everything before it. A repaired entry must
therefore give the digest it had; where a handler needs state and the digest cannot be reproduced without it, the
repair is refused with the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gapless.clock import Clock
from gapless.engine.derive import Derivation, Deriver
from gapless.engine.offload import Offload
from gapless.errors import GaplessError, Refused
from gapless.model import Cursor, Fence, Gap, Head, Quarantined, Segment
from gapless.sources import AnySource
from gapless.store import Batch, Store

DISTRUSTED = "served by an endpoint caught lying: "
"""Start of the reason of gaps that must be fetched again elsewhere; the endpoint's label follows."""
_READS_MAX = 3
"""How often to look again when the chain forks while damage is looked for."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A range that is not as it should be."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did."""

    entries: int
    changed: int
    """Entries whose digest is not the recorded one, or that were missing."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """Entries in a row whose rows were removed or added behind our back."""

    first: int
    last: int
    recorded: int
    found: int

    def damage(self) -> Damage:
        return Damage(self.first, self.last, f"{self.found} of {self.recorded} rows")


def _in_a_row(damaged: Sequence[tuple[int, int, int]]) -> list[Damage]:
    """(position, rows recorded, rows found) as ranges."""
    ranges: list[_Lost] = []
    for position, recorded, found in damaged:
        if ranges and ranges[-1].last + 1 == position:
            lost = ranges[-1]
            ranges[-1] = _Lost(lost.first, position, lost.recorded + recorded, lost.found + found)
        else:
            ranges.append(_Lost(position, position, recorded, found))
    return [lost.damage() for lost in ranges]


def uncovered(first: int, last: int, by: Sequence[Damage]) -> bool:
    """Whether part of first..last lies in none of the ranges, which are in order and do not overlap."""
    for damage in by:
        if damage.first <= first <= damage.last:
            first = damage.last + 1
    return first <= last


def find_damage(store: Store, source: str) -> list[Damage]:
    """Compare what the books say with what is there: holes, rows removed or added by hand, recorded gaps."""
    for _ in range(_READS_MAX):
        cursor = store.cursor(source)
        found = _find_damage(store, source, cursor)
        # A source may be followed meanwhile. New entries are no matter; a fork that took some away is looked at again.
        if not found or _still_there(store, source, cursor):
            return found
    return found


def _still_there(store: Store, source: str, cursor: Cursor | None) -> bool:
    now = store.cursor(source)
    if cursor is None or now is None or now.position < cursor.position:
        return now == cursor
    if now.position == cursor.position:
        return now.id == cursor.id
    stored = store.entries(source, cursor.position, cursor.position)
    return not stored or stored[0].entry.id == cursor.id


def _find_damage(store: Store, source: str, cursor: Cursor | None) -> list[Damage]:
    bound = store.source(source)
    if bound is None or cursor is None:
        return []
    holes = [Damage(a, b, "no entry") for a, b in store.missing(source, bound.start, cursor.position)]
    rows = _in_a_row(store.damaged(source, bound.start, cursor.position))
    found = sorted([*holes, *rows], key=lambda d: d.first)
    recorded = [Damage(g.first, g.last, g.reason) for g in store.gaps(source) if uncovered(g.first, g.last, found)]
    return found + recorded


def record_damage(store: Store, source: str, damages: Sequence[Damage], now_us: int) -> None:
    """Write found damage into the gap ledger."""
    known = {(g.first, g.last): g for g in store.gaps(source)}
    for damage in damages:
        old = known.get((damage.first, damage.last))
        if old is None or old.reason != damage.reason:
            attempts = 0 if old is None else old.attempts
            store.record_gap(Gap(source, damage.first, damage.last, damage.reason, now_us, attempts))


class Repairer:
    """Replaces ranges of one source. The deriver is one of its own, without state."""

    def __init__(self, source: AnySource, deriver: Deriver, store: Store, offload: Offload, clock: Clock) -> None:
        self._source = source
        self._deriver = deriver
        self._store = store
        self._offload = offload
        self._clock = clock

    async def replace(
        self, first: int, last: int, *, head: Head, fence: Fence, avoid: frozenset[str] = frozenset()
    ) -> Repaired:
        """Fetch `first..last` again and replace it."""
        entries = changed = 0
        position = first
        while position <= last:
            upto = min(position + self._source.span() - 1, last)
            segment = await self._source.fetch(position, upto, head=head, avoid=avoid)
            batch, differing = await self._derive(segment, head)
            await self._offload.write(lambda batch=batch: self._store.replace(batch, fence))  # type: ignore[misc]
            entries += len(batch.entries)
            changed += differing
            position = upto + 1
        return Repaired(entries, changed)

    async def _derive(self, segment: Segment[Any], head: Head) -> tuple[Batch, int]:
        derivation: Derivation = await self._offload.derive(
            lambda: self._deriver.derive(segment, finalized=head.finalized)
        )
        if derivation.failure is not None:
            raise derivation.failure
        batch = derivation.batch
        if batch is None:
            raise Refused("Nothing could be derived", source=segment.source, position=segment.first.position)
        first, last = segment.first.position, segment.last.position
        if derivation.skipped_handlers:
            kept = await self._offload.read(lambda: self._waiting(first, last, derivation.skipped_handlers))
            batch = replace(batch, quarantined=(*batch.quarantined, *kept))
        stored = await self._offload.read(lambda: self._store.entries(segment.source, first, last))
        digests = {s.entry.position: s.digest for s in stored}
        differing = [
            e.position for e, d in zip(batch.entries, batch.digests, strict=True) if digests.get(e.position) != d
        ]
        if differing and self._deriver.has_state:
            raise Refused(
                f"{len(differing)} blocks from {differing[0]} on give other rows than recorded, and state tables were "
                "derived from the recorded ones",
                source=segment.source,
                position=differing[0],
                todo=f"Run `gapless replay --range {differing[0]}..` to undo down to there and derive again.",
            )
        return batch, len(differing)

    def _waiting(self, first: int, last: int, handlers: frozenset[str]) -> list[Quarantined]:
        """What waits in quarantine for handlers that did not run here: it is still not handled."""
        rows = self._store.quarantine(self._source.name)
        return [r.item for r in rows if first <= r.item.position <= last and r.item.consumer in handlers]

    async def mend(self, damage: Damage, *, head: Head, fence: Fence) -> Repaired:
        """Repair one damaged range; a failed attempt is counted in the ledger and raised."""
        avoid = frozenset[str]()
        if damage.reason.startswith(DISTRUSTED):
            avoid = frozenset({damage.reason.removeprefix(DISTRUSTED)})
        try:
            repaired = await self.replace(damage.first, damage.last, head=head, fence=fence, avoid=avoid)
        except GaplessError:
            await self._offload.write(lambda: self._count_attempt(damage))
            raise
        name = self._source.name
        await self._offload.write(lambda: self._store.clear_gaps(name, damage.first, damage.last))
        return repaired

    def _count_attempt(self, damage: Damage) -> None:
        """In the gap the range is, or is part of; what was mended of it before the failure is cut out already."""
        name = self._source.name
        for gap in self._store.gaps(name):
            if gap.first <= damage.last and gap.last >= damage.first and gap.reason == damage.reason:
                self._store.record_gap(replace(gap, attempts=gap.attempts + 1))
