"""Run the sources of an app in one process: wire the parts of each lane, run them together, end them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from gapless.clock import Clock
from gapless.engine import plan
from gapless.engine.derive import Deriver
from gapless.engine.flags import Switchboard
from gapless.engine.follow import Follower
from gapless.engine.handlers import Handler, TableBinding
from gapless.engine.lane import Lane
from gapless.engine.lease import LeaseKeeper
from gapless.engine.mend import Mender
from gapless.engine.names import lease_name as lease_name
from gapless.engine.observer import Observer
from gapless.engine.offload import Offload
from gapless.engine.process import Process, ThisProcess
from gapless.engine.repair import Repairer
from gapless.errors import ForkBeyondFinality, ForkTooDeep, Halted, HandlerFailed, LeaseHeld
from gapless.model import Fence, Mode
from gapless.schema import Schema
from gapless.sources import AnyDecoder, AnySource
from gapless.store import Store

STOP_SECONDS_MAX = 10.0
"""A graceful stop takes no longer than this."""

_GRACE_SHARE = 0.6
"""Share of that for what is being committed; the rest is for giving up leases and connections."""
_CANCEL_SECONDS = 1.0
_CLOSE_SECONDS_MIN = 0.5
_LET_GO_SECONDS = 5.0
_OF_ONE_SOURCE = (ForkTooDeep, ForkBeyondFinality, HandlerFailed, Halted)
"""What says nothing about the other sources, nor about how this run was started."""

log = structlog.get_logger("gapless.run")


@dataclass(frozen=True, slots=True)
class Job:
    """One source with everything that is derived from it."""

    source: AnySource
    decoder: AnyDecoder
    handlers: tuple[Handler, ...]
    bindings: tuple[TableBinding, ...]
    options: plan.FollowOptions


def stateless_deriver(job: Job) -> Deriver:
    return Deriver(job.source.name, job.decoder, job.handlers, job.bindings, None, 0)


class Runner:
    """All lanes of one process."""

    def __init__(
        self,
        jobs: Sequence[Job],
        schema: Schema,
        store: Store,
        clock: Clock,
        observer: Observer,
        lease_ttl_seconds: float,
        process: Process | None = None,
    ) -> None:
        self._process = process or ThisProcess(clock)
        self._jobs = tuple(jobs)
        self._schema = schema
        self._store = store
        self._clock = clock
        self._observer = observer
        self._lease_ttl_seconds = lease_ttl_seconds
        self._followers: list[Follower] = []
        self._failures: list[BaseException] = []
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask every follower to end after what it is committing; also before the run has begun."""
        self._stopping.set()
        for follower in self._followers:
            follower.stop()

    async def run(self) -> None:
        """Follow every source until stopped or until each has reached its run's end.

        Raises the first error an operator must see to: at once where a source could not even begin, so that a person
        who just started it sees why; else when the others have ended, which it does not keep from going on."""
        offload = self._process.offload(max(1, len(self._jobs)))
        keepers = [self._keeper(job) for job in self._jobs]
        self._followers = [
            Follower(self._lane(job, keeper, offload)) for job, keeper in zip(self._jobs, keepers, strict=True)
        ]
        if self._stopping.is_set():
            self.stop()
        for keeper in keepers:
            keeper.start()
        tasks = [asyncio.create_task(f.run(), name=f"follow {f.name}") for f in self._followers]
        try:
            await self._join(tasks, keepers)
        finally:
            await self._close(tasks, keepers, offload)
        if self._failures:
            raise self._failures[0]

    async def _join(self, tasks: Sequence[asyncio.Task[None]], keepers: Sequence[LeaseKeeper]) -> None:
        """Until all have ended, or are to end. A source that has ended gives its lease up at once, so that an operator
        can work on it while the others go on."""
        stopping = asyncio.create_task(self._stopping.wait(), name="stop run")
        pending = set(tasks)
        try:
            while pending and not self._stopping.is_set():
                done, _ = await asyncio.wait({*pending, stopping}, return_when=asyncio.FIRST_COMPLETED)
                ended = [place for place, task in enumerate(tasks) if task in done & pending]
                pending -= done
                for place in ended:
                    task = tasks[place]
                    error = None if task.cancelled() else task.exception()
                    if error is not None:
                        self._failed(self._followers[place], error, others=len(pending))
                    if pending and not self._stopping.is_set():
                        await keepers[place].stop(_LET_GO_SECONDS)
        finally:
            stopping.cancel()

    def _failed(self, follower: Follower, error: BaseException, *, others: int) -> None:
        self._failures.append(error)
        if not (follower.led or isinstance(error, _OF_ONE_SOURCE)):
            self.stop()
        elif others:
            log.error("halted, the other sources go on", source=follower.name, reason=str(error))

    async def _close(
        self, tasks: Sequence[asyncio.Task[None]], keepers: Sequence[LeaseKeeper], offload: Offload
    ) -> None:
        """End everything within `STOP_SECONDS_MAX`, whatever hangs."""
        deadline = self._clock.monotonic() + STOP_SECONDS_MAX
        self.stop()
        running = {task for task in tasks if not task.done()}
        if running:
            _, running = await asyncio.wait(running, timeout=STOP_SECONDS_MAX * _GRACE_SHARE)
        for task in running:
            task.cancel()
        if running:
            log.warning("stopped without waiting for what hangs", sources=len(running))
            await asyncio.wait(running, timeout=_CANCEL_SECONDS)
        for job, task in zip(self._jobs, tasks, strict=True):
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is None:
                self._observer.mode(job.source.name, Mode.STOPPED, None)
            elif error not in self._failures:
                self._failures.append(error)
        left = max(_CLOSE_SECONDS_MIN, (deadline - self._clock.monotonic()) / 2)
        works = [keeper.stop(left) for keeper in keepers]
        works += [_closed(job.source, left) for job in self._jobs]
        for ended in await asyncio.gather(*works, return_exceptions=True):
            if ended is not None:
                log.warning("not closed in order", reason=f"{type(ended).__name__}: {ended}")
        left = max(_CLOSE_SECONDS_MIN, deadline - self._clock.monotonic())
        if not await offload.close(left):
            log.warning("left a call to the database or to a handler behind that does not return")

    def _keeper(self, job: Job) -> LeaseKeeper:
        name = lease_name(self._schema, job.source.name)
        process = self._process
        return LeaseKeeper(self._store, name, process.holder, self._lease_ttl_seconds, self._clock, process.heartbeat)

    def _lane(self, job: Job, keeper: LeaseKeeper, offload: Offload) -> Lane:
        deriver = Deriver(
            job.source.name,
            job.decoder,
            job.handlers,
            job.bindings,
            self._store.state,
            job.options.state_cache_rows_max,
        )
        repairer = Repairer(job.source, stateless_deriver(job), self._store, offload, self._clock)
        return Lane(
            source=job.source,
            deriver=deriver,
            store=self._store,
            options=job.options,
            clock=self._clock,
            offload=offload,
            observer=self._observer,
            keeper=keeper,
            mender=Mender(job.source, repairer, self._store, offload, self._clock),
            switches=Switchboard(self._store, offload, self._clock),
        )


async def _closed(source: AnySource, timeout_seconds: float) -> None:
    async with asyncio.timeout(timeout_seconds):
        await source.close()


@asynccontextmanager
async def led(
    store: Store, schema: Schema, source: str, ttl_seconds: float, clock: Clock, process: Process | None = None
) -> AsyncIterator[Fence]:
    """Lead a source for the length of one command. Raises LeaseHeld where a process is following it."""
    process = process or ThisProcess(clock)
    keeper = LeaseKeeper(store, lease_name(schema, source), process.holder, ttl_seconds, clock, process.heartbeat)
    taken = keeper.try_take()
    if taken is None:
        holders = [lease.holder for lease in store.leases() if lease.name == keeper.name and lease.live]
        raise LeaseHeld(
            f"Another process leads this source: {holders[0] if holders else 'unknown'}",
            source=source,
            todo="Stop it first (it gives the lease up at once), or wait until its lease expires.",
        )
    keeper.start()
    try:
        yield taken
    finally:
        await keeper.stop()
