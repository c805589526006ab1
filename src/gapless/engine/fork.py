"""Find where two branches part: the highest committed entry that is still on the source's chain."""

from __future__ import annotations

from gapless.engine import plan
from gapless.engine.offload import Offload
from gapless.errors import ForkTooDeep
from gapless.model import Cursor
from gapless.sources import AnySource
from gapless.store import Store

_PROBE_POSITIONS = 64
"""Ids asked for at once while closing in."""


async def find_ancestor(
    source: AnySource,
    store: Store,
    offload: Offload,
    cursor: Cursor,
    start: int,
    options: plan.FollowOptions,
) -> Cursor:
    """The common ancestor of the committed branch and the source's; `before_first` when not even the first entry
    is common. Looks a little deeper than may be undone, so that the refusal can name the place.

    Raises ForkTooDeep when nothing is common within the cap."""
    depth_max = min(options.reorg_positions_max + 1, cursor.position - start + 1)
    positions = [cursor.position - depth for depth in plan.probe_depths(depth_max) if cursor.position - depth >= start]
    found = await _highest_common(source, store, offload, positions)
    if found is None:
        if cursor.position - (start - 1) <= options.reorg_positions_max:
            lower = start - 1
            found = plan.before_first(start)
        else:
            raise ForkTooDeep(
                f"None of the last {depth_max} committed entries is on the chain the source follows now; "
                f"at most {options.reorg_positions_max} are undone automatically",
                source=source.name,
                position=cursor.position,
                todo="Nothing was undone. Check that the endpoints serve the right chain; then rewind by hand.",
            )
    lower = found.position
    upper = min((p for p in positions if p > lower), default=cursor.position + 1)
    while upper - lower > 1:
        between = list(range(max(lower + 1, upper - _PROBE_POSITIONS), upper))
        closer = await _highest_common(source, store, offload, between)
        if closer is not None:
            return closer
        upper = between[0]
    return found


async def _highest_common(source: AnySource, store: Store, offload: Offload, positions: list[int]) -> Cursor | None:
    seen = await source.cursors(positions)
    low, high = min(positions), max(positions)
    stored = await offload.read(lambda: store.entries(source.name, low, high))
    return plan.highest_common({s.entry.position: s.entry.id for s in stored}, seen)
