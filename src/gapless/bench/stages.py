"""What happens behind the endpoint, stage by stage, and then all together: decode, write, and a run."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from gapless.bench.figures import Stage, Writing
from gapless.bench.scratch import Scratch
from gapless.engine import plan
from gapless.engine.derive import Deriver
from gapless.engine.observer import Observer
from gapless.engine.runner import Job, Runner, lease_name
from gapless.errors import StoreError
from gapless.model import Cursor, Head, Identity

if TYPE_CHECKING:
    from gapless.clock import Clock
    from gapless.config import Limits
    from gapless.sources import AnySource
    from gapless.store import Batch
    from gapless.wiring import Wired

_SINGLE_BLOCKS = 3
_SAMPLE_ROWS_MAX = 200_000
_SAMPLE_BYTES_MAX = 128 << 20
_LEASE_SECONDS = 600.0
_HOLDER = "gapless bench"


@dataclass
class Sample:
    """Batches ready to be written, in order; the first few of one block each."""

    batches: list[Batch] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def rows(self) -> int:
        return sum(sum(batch.counts) for batch in self.batches)


async def decode(
    wired: Wired, source: AnySource, head: Head, positions: tuple[int, int], clock: Clock, seconds: float
) -> tuple[Stage, Sample]:
    """Fetch and derive as a run does, one range after the other, and count this process's CPU time: what it would take
    if nothing had to be waited for. Handlers are left out: what they cost is theirs."""
    deriver = Deriver(wired.name, wired.decoder, (), (), None, 0)
    sample = Sample()
    low, high = positions
    at = low
    deadline = clock.monotonic() + seconds
    while at <= high and at < low + _SINGLE_BLOCKS:  # also makes connections, which does not count
        await _take(source, deriver, sample, head, at, at)
        at += 1
    blocks, rows_before = 0, sample.rows
    spent = 0.0
    while at <= high and (clock.monotonic() < deadline or not blocks):
        last = min(high, at + source.span() - 1)
        started = time.process_time()
        await _take(source, deriver, sample, head, at, last)
        spent += time.process_time() - started
        blocks += last - at + 1
        at = last + 1
        if sample.rows > _SAMPLE_ROWS_MAX or sample.size_bytes > _SAMPLE_BYTES_MAX:
            break
    return Stage(blocks, sample.rows - rows_before, spent), sample


async def _take(source: AnySource, deriver: Deriver, sample: Sample, head: Head, first: int, last: int) -> None:
    segment = await source.fetch(first, last, head=head)
    batch = deriver.derive(segment, finalized=max(head.finalized, last), head=head.latest.position).batch
    if batch is not None:
        sample.batches.append(batch)
        sample.size_bytes += segment.size_bytes


# --- the database --------------------------------------------------------------------------------------------------


def write(scratch: Scratch, identity: Identity, sample: Sample, clock: Clock, seconds: float) -> Writing:
    """Commit the sample again and again, taking it back in between, which does not count."""
    store, source = scratch.store, sample.batches[0].source
    first = sample.batches[0].entries[0].position
    store.bind_source(source, identity, first)
    fence = store.acquire(lease_name(scratch.schema, source), _HOLDER, _LEASE_SECONDS)
    if fence is None:
        raise StoreError("The scratch database is led by somebody else", todo="Run it again.")
    single: list[float] = []
    blocks = rows = large = 0
    spent = 0.0
    deadline = clock.monotonic() + seconds
    while clock.monotonic() < deadline or not single:
        cursor: Cursor | None = None
        for batch in sample.batches:
            started = clock.monotonic()
            store.commit(batch, cursor, fence)
            took = clock.monotonic() - started
            cursor = batch.entries[-1].cursor
            if len(batch.entries) == 1:
                single.append(took)
            else:
                large, spent = large + 1, spent + took
                blocks, rows = blocks + len(batch.entries), rows + sum(batch.counts)
            if clock.monotonic() > deadline and large:
                break
        if cursor is not None:
            store.rewind(source, Cursor(first - 1, ""), cursor, fence)
    store.release(fence)
    if not large:
        return Writing(Stage(len(single), 0, sum(single)), sum(single) / len(single), median(single))
    return Writing(Stage(blocks, rows, spent), spent / large, median(single))


# --- all together --------------------------------------------------------------------------------------------------


class _Counting(Observer):
    """What was committed, and when last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.blocks = self.rows = 0
        self.ended = clock.monotonic()

    def committed(self, source: str, entries: int, rows: int, seconds: float) -> None:  # noqa: ARG002
        self.blocks += entries
        self.rows += rows
        self.ended = self._clock.monotonic()


async def run(
    wired: Wired, source: AnySource, scratch: Scratch, limits: Limits, first: int, clock: Clock, seconds: float
) -> Stage:
    """The engine itself on the scratch, from `first` towards the head, for so long; it closes the source. The rate
    holds for a run that begins: sizes are still being learned."""
    options = plan.FollowOptions(
        start=first,
        until=plan.Until.HEAD,
        inflight_segments_max=limits.inflight_segments_max,
        inflight_bytes_max=limits.memory_max_bytes,
    )
    counting = _Counting(clock)
    job = Job(source, wired.decoder, (), (), options)
    runner = Runner([job], scratch.schema, scratch.store, clock, counting, _LEASE_SECONDS)
    started = clock.monotonic()

    async def end() -> None:
        await clock.sleep(seconds)
        runner.stop()

    ending = asyncio.create_task(end())
    try:
        await runner.run()
    finally:
        ending.cancel()
    task = asyncio.current_task()
    if task is not None and task.cancelling():  # Ctrl-C while writing: the engine ends well when it is cancelled
        raise asyncio.CancelledError
    return Stage(counting.blocks, counting.rows, counting.ended - started)
