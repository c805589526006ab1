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
        does not have positions that matter (yet), for whoever was asked lags.

        Looks one position deeper than may be undone, and down to `before_first`, where not even the first entry is
        common."""
        top = self.cursor.position
        positions = [top - d for d in plan.probe_depths(min(self.depth_max + 1, top - self.start))]
        lowest = positions[-1]
        view = await self._look(positions)
        common, parted = view.common, view.parted
        if common is None and parted is None:
            return None
        upper = top + 1 if parted is None else parted.position
        lower = lowest - 1 if common is None else common.position
        while upper - lower > 1:
            first = max(lower + 1, upper - _PROBE_POSITIONS)
            view = await self._look(range(first, upper))
            parted = view.parted or parted
            if parted is not None and view.silent_above(view.common, parted):
                return None
            if view.common is not None:
                return plan.Fork(view.common, parted)
            upper = first
        if common is not None:
            return plan.Fork(common, parted)
        return await self._confirmed(self._without_common(parted, lowest))

    async def _confirmed(self, fork: plan.Fork | None) -> plan.Fork | None:
        """That nothing is common is believed of a chain only: whoever makes ids up contradicts itself when it is asked
        for neighbours, and another one that has ours says so."""
        if fork is None or fork.parted is None:
            return fork
        first = fork.parted.position
        view = await self._look(range(first, min(first + _PROBE_POSITIONS, self.cursor.position + 1)))
        return fork if view.common is None and view.parted == fork.parted else None

    def _without_common(self, parted: Cursor | None, lowest: int) -> plan.Fork | None:
        """Nothing from the lowest position looked at upwards is common. Where the branches part higher up than that,
        somebody removed our rows of the entries below: the source was asked for all of them, and not silent."""
        if parted is None:
            return None
        if lowest == self.start and self.cursor.position - (self.start - 1) <= self.depth_max:
            return plan.Fork(plan.before_first(self.start), parted)
        return plan.Fork(None, parted)

    async def _look(self, positions: range | list[int]) -> plan.View:
        seen = await self.source.cursors(list(positions))
        low, high = min(positions), max(positions)
        # One more: the entry above knows its parent, should the row of the one below be missing.
        stored = await self.offload.read(lambda: self.store.entries(self.source.name, low, high + 1))
        ours = plan.committed_ids(self.cursor, stored)
        return plan.compare({p: ours[p] for p in positions if p in ours}, seen)
