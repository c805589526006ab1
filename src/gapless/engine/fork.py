"""Find where two branches part: the highest committed entry that is still on the source's chain."""

from __future__ import annotations

from dataclasses import dataclass

from gapless.engine import plan
from gapless.engine.offload import Offload
from gapless.model import Cursor
from gapless.sources import AnySource
from gapless.store import Store

_PROBE_POSITIONS = 64
"""Ids asked for at once while closing in."""


@dataclass(frozen=True, slots=True)
class Prober:
    """Compares the committed branch with the source's chain."""

    source: AnySource
    store: Store
    offload: Offload
    cursor: Cursor
    start: int
    depth_max: int

    async def fork(self) -> plan.Fork | None:
        """How the two differ; with the cursor as ancestor where they do not. None where the source cannot tell: it
        does not have the positions to compare (yet).

        Looks one position deeper than may be undone, and down to `before_first`, where not even the first entry is
        common."""
        top = self.cursor.position
        positions = [top - d for d in plan.probe_depths(min(self.depth_max + 1, top - self.start))]
        lowest = positions[-1]
        common, parted = await self._look(positions)
        if common is None and not parted:
            return None
        upper = parted[0].position if parted else top + 1
        lower = lowest - 1 if common is None else common.position
        while upper - lower > 1:
            common_here, parted_here = await self._look(range(max(lower + 1, upper - _PROBE_POSITIONS), upper))
            parted = parted_here or parted
            if common_here is not None:
                return plan.Fork(common_here, parted[0] if parted else None)
            upper = max(lower + 1, upper - _PROBE_POSITIONS)
        return self._without_more(common, parted, lowest)

    def _without_more(self, common: Cursor | None, parted: list[Cursor], lowest: int) -> plan.Fork | None:
        """Nothing above the common entry, or above the lowest position looked at, is common."""
        if common is not None:
            return plan.Fork(common, parted[0] if parted else None)
        if parted[0].position > lowest:
            return None  # Further down one side knows nothing.
        if lowest == self.start and self.cursor.position - (self.start - 1) <= self.depth_max:
            return plan.Fork(plan.before_first(self.start), parted[0])
        return plan.Fork(None, parted[0])

    async def _look(self, positions: range | list[int]) -> tuple[Cursor | None, list[Cursor]]:
        seen = await self.source.cursors(list(positions))
        low, high = min(positions), max(positions)
        # One more: the entry above knows its parent, should the row of the one below be missing.
        stored = await self.offload.read(lambda: self.store.entries(self.source.name, low, high + 1))
        return plan.compare(plan.committed_ids(self.cursor, stored), seen)
