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
from gapless.engine.follow import Follower, Lane
from gapless.engine.handlers import Handler, TableBinding
from gapless.engine.lease import LeaseKeeper, holder_name
from gapless.engine.mend import Mender
from gapless.engine.observer import Observer
from gapless.engine.offload import Offload, Threads
from gapless.engine.repair import Repairer
from gapless.errors import LeaseHeld
from gapless.model import Fence, Mode
from gapless.schema import Schema
from gapless.sources import AnyDecoder, AnySource
from gapless.store import Store

STOP_SECONDS_MAX = 10.0
"""A graceful stop takes no longer than this."""

log = structlog.get_logger("gapless.run")


@dataclass(frozen=True, slots=True)
class Job:
    """One source with everything that is derived from it."""

    source: AnySource
    decoder: AnyDecoder
    handlers: tuple[Handler, ...]
    bindings: tuple[TableBinding, ...]
    options: plan.FollowOptions


def lease_name(schema: Schema, source: str) -> str:
    return f"{schema.version}:{source}"


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
    ) -> None:
        self._jobs = tuple(jobs)
        self._schema = schema
        self._store = store
        self._clock = clock
        self._observer = observer
        self._lease_ttl_seconds = lease_ttl_seconds
        self._followers: list[Follower] = []
        self._stopped = False

    def stop(self) -> None:
        """Ask every follower to end after what it is committing; also before the run has begun."""
        self._stopped = True
        for follower in self._followers:
            follower.stop()

    async def run(self) -> None:
        """Follow every source until stopped or until each has reached its run's end.

        Raises the first error an operator must see to, after the other sources have stopped gracefully."""
        offload = Threads()
        keepers = [self._keeper(job) for job in self._jobs]
        self._followers = [
            Follower(self._lane(job, keeper, offload)) for job, keeper in zip(self._jobs, keepers, strict=True)
        ]
        if self._stopped:
            self.stop()
        for keeper in keepers:
            keeper.start()
        tasks = [asyncio.create_task(f.run(), name=f"follow {f.name}") for f in self._followers]
        try:
            await self._join(tasks)
        finally:
            await self._close(tasks, keepers, offload)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _join(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(t.exception() is not None for t in done if not t.cancelled()):
                self.stop()
                await asyncio.wait(tasks, timeout=STOP_SECONDS_MAX)
                return

    async def _close(
        self, tasks: Sequence[asyncio.Task[None]], keepers: Sequence[LeaseKeeper], offload: Offload
    ) -> None:
        self.stop()
        _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS_MAX)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for job, task in zip(self._jobs, tasks, strict=True):
            failed = task.done() and not task.cancelled() and task.exception() is not None
            if not failed:
                self._observer.mode(job.source.name, Mode.STOPPED, None)
        for keeper in keepers:
            await keeper.stop()
        for job in self._jobs:
            await job.source.close()
        offload.close()

    def _keeper(self, job: Job) -> LeaseKeeper:
        name = lease_name(self._schema, job.source.name)
        return LeaseKeeper(self._store, name, holder_name(), self._lease_ttl_seconds, self._clock)

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
        )


@asynccontextmanager
async def led(store: Store, schema: Schema, source: str, ttl_seconds: float, clock: Clock) -> AsyncIterator[Fence]:
    """Lead a source for the length of one command. Raises LeaseHeld where a process is following it."""
    keeper = LeaseKeeper(store, lease_name(schema, source), holder_name(), ttl_seconds, clock)
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
