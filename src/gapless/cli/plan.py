"""`gapless plan`: what `run` would do, estimated from a few samples of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption
from gapless.cli.project import Project, finish, load
from gapless.cli.run import UntilOption, parse_until
from gapless.errors import MissingDatabase

if TYPE_CHECKING:
    from gapless.engine.plan import Until
    from gapless.engine.runner import Job
    from gapless.model import Head
    from gapless.store import Store

_SAMPLES = 3


def plan(config: ConfigOption = None, until: UntilOption = None, as_json: JsonOption = False) -> None:
    """Say what `run` would do: ranges, requests, bytes, time.

    Fetches a few ranges to estimate from; writes nothing."""
    goal = parse_until(until)
    project = load(config)
    found = finish(_plan(project, goal))
    if as_json:
        output.document({"app": project.config.app.name, "sources": found})
        return
    rows = [
        (
            name,
            "nothing" if s["positions"] == 0 else f"{s['from']}..{s['to']}",
            s["positions"],
            s["segments"],
            s["requests_estimated"],
            None if s["bytes_estimated"] is None else f"{s['bytes_estimated'] / 1e6:,.1f} MB",
            output.span(s["seconds_estimated"]),
        )
        for name, s in found.items()
    ]
    columns = ("source", "to index", "positions", "segments", "requests", "bytes", "time to fetch")
    output.table(columns, rows, right=columns[2:])


async def _plan(project: Project, until: Until | int) -> dict[str, Any]:
    from gapless.wiring import build_job

    store = _store(project)
    found = {}
    try:
        for name, wired in project.wired.items():
            job = await build_job(project.app, wired, store, project.clock, until=until)
            try:
                found[name] = await _source(project, job, store)
            finally:
                await job.source.close()
    finally:
        store.close()
    return found


def _store(project: Project) -> Store:
    """The database, or an empty one in memory where it was not created yet."""
    from gapless.store.memory import MemoryStore
    from gapless.wiring import open_store

    try:
        return open_store(project.config, project.schema, project.clock, create=False)
    except MissingDatabase:
        empty = MemoryStore(clock=project.clock)
        empty.open(project.schema, create=True)
        return empty


async def _source(project: Project, job: Job, store: Store) -> dict[str, Any]:
    from gapless.engine import plan as planning

    head = await job.source.head()
    cursor = store.cursor(job.source.name)
    first = job.options.start if cursor is None else cursor.position + 1
    last = planning.target(head, job.options)
    positions = max(0, last - first + 1)
    cost = await _sample(project, job, head, first, last) if positions else _Cost()
    return {
        "from": first,
        "to": last,
        "head": head.latest.position,
        "finalized": head.finalized,
        "positions": positions,
        "segments": -(-positions // job.source.span()),
        "requests_estimated": cost.scaled(cost.requests, positions),
        "bytes_estimated": cost.scaled(cost.size_bytes, positions),
        "seconds_estimated": cost.scaled_seconds(positions, job.options.inflight_segments_max),
    }


class _Cost:
    """What the samples took."""

    def __init__(self) -> None:
        self.positions = 0
        self.requests = 0
        self.size_bytes = 0
        self.seconds = 0.0

    def scaled(self, amount: int, positions: int) -> int | None:
        if not self.positions:
            return 0 if not positions else None
        return round(amount * positions / self.positions)

    def scaled_seconds(self, positions: int, lanes: int) -> float | None:
        if not self.positions:
            return 0.0 if not positions else None
        return round(self.seconds * positions / self.positions / lanes, 1)


async def _sample(project: Project, job: Job, head: Head, first: int, last: int) -> _Cost:
    """Fetch a range at the beginning, in the middle and at the end."""
    cost, source, clock = _Cost(), job.source, project.clock
    for sample in range(_SAMPLES):
        span = min(source.span(), last - first + 1)
        low = first + (last - first + 1 - span) * sample // max(1, _SAMPLES - 1)
        requests, started = source.statistics().requests, clock.monotonic()
        segment = await source.fetch(low, low + span - 1, head=head)
        cost.seconds += clock.monotonic() - started
        cost.requests += source.statistics().requests - requests
        cost.size_bytes += segment.size_bytes
        cost.positions += span
    return cost
