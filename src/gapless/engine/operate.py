"""What an operator asks for on one source, outside of following: repair, replay, rewind, verify.

Each takes the lease for as long as it writes, so it never races a follower; verifying writes nothing and needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from gapless.clock import Clock
from gapless.engine import plan
from gapless.engine.derive import Deriver
from gapless.engine.observer import Observer
from gapless.engine.process import Process, ThisProcess
from gapless.engine.repair import Damage, Repaired, Repairer, find_damage, record_damage
from gapless.engine.runner import STOP_SECONDS_MAX, Job, Runner, led, stateless_deriver
from gapless.engine.verify import Mismatch, Verification, Verifier, fold_state, no_rows
from gapless.errors import NotReady, UsageError
from gapless.model import Cursor, Fence
from gapless.schema import Schema
from gapless.store import Store, StoredSource

_EVERYTHING = 2**62
"""A cache bound that is never reached: the fold of `verify` keeps every row."""

Progress = Callable[[int, int], None]
"""Called with (positions done, positions in all)."""


def _no_progress(_done: int, _total: int) -> None:
    return


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of a source is committed."""

    start: int
    cursor: Cursor

    def clip(self, first: int | None, last: int | None) -> tuple[int, int]:
        """A range asked for, within what is committed. Raises UsageError when nothing of it is."""
        low = self.start if first is None else max(first, self.start)
        high = self.cursor.position if last is None else min(last, self.cursor.position)
        if low > high:
            asked = f"{'' if first is None else first}..{'' if last is None else last}"
            raise UsageError(
                f"The range {asked} has nothing committed in it",
                todo=f"Committed is {self.start}..{self.cursor.position}.",
            )
        return low, high


def bounds(store: Store, source: str) -> Bounds:
    """Raises NotReady before the first commit."""
    bound: StoredSource | None = store.source(source)
    cursor = store.cursor(source)
    if bound is None or cursor is None:
        raise NotReady("Nothing is committed yet", source=source, todo="Run `gapless run` first.")
    return Bounds(bound.start, cursor)


class Operator:
    """Operations on one source of an app."""

    def __init__(
        self,
        job: Job,
        schema: Schema,
        store: Store,
        clock: Clock,
        lease_ttl_seconds: float,
        process: Process | None = None,
    ) -> None:
        self._process = process or ThisProcess(clock)
        self._job = job
        self._schema = schema
        self._store = store
        self._clock = clock
        self._ttl_seconds = lease_ttl_seconds
        self.name = job.source.name

    @property
    def has_state(self) -> bool:
        return any(b.is_state for b in self._job.bindings)

    def _led(self) -> AbstractAsyncContextManager[Fence]:
        return led(self._store, self._schema, self.name, self._ttl_seconds, self._clock, self._process)

    def damage(self, *, record: bool) -> list[Damage]:
        """What is missing or damaged; with `record`, also written into the gap ledger."""
        found = find_damage(self._store, self.name)
        if record:
            record_damage(self._store, self.name, found, self._clock.now_us())
        return found

    async def repair(self, damages: Sequence[Damage], progress: Progress = _no_progress) -> Repaired:
        """Fetch damaged ranges again and put them right. Stops at the first range that cannot be."""
        offload = self._process.offload(1)
        total = sum(d.last - d.first + 1 for d in damages)
        entries = changed = 0
        try:
            async with self._led() as fence:
                head = await self._job.source.head()
                deriver = stateless_deriver(self._job)
                repairer = Repairer(self._job.source, deriver, self._store, offload, self._clock)
                for damage in damages:
                    repaired = await repairer.mend(damage, head=head, fence=fence)
                    entries += repaired.entries
                    changed += repaired.changed
                    progress(entries, total)
        finally:
            await offload.close(STOP_SECONDS_MAX)
        return Repaired(entries, changed)

    async def replay(self, first: int, last: int, observer: Observer) -> Repaired:
        """Derive a range again and replace it. Facts are replaced in place. With state tables everything from `first`
        on is undone and derived again up to where it was, because state cannot be derived from the middle.

        Raises NothingToUndo where the undo records for that are gone and `first` is not the very first position."""
        if not self.has_state:
            return await self.repair([Damage(first, last, "replay")])
        committed = bounds(self._store, self.name)
        await self.rewind(first - 1)
        options = replace(self._job.options, until=committed.cursor.position)
        runner = Runner(
            [replace(self._job, options=options)],
            self._schema,
            self._store,
            self._clock,
            observer,
            self._ttl_seconds,
            self._process,
        )
        await runner.run()
        entries = committed.cursor.position - first + 1
        return Repaired(entries, entries)

    async def rewind(self, to: int) -> int:
        """Undo everything above a position; `start - 1` undoes everything. Returns how many entries were undone."""
        committed = bounds(self._store, self.name)
        if not committed.start - 1 <= to <= committed.cursor.position:
            raise UsageError(
                f"Block {to} is not committed",
                source=self.name,
                todo=f"Committed is {committed.start}..{committed.cursor.position}; "
                f"{committed.start - 1} undoes everything.",
            )
        ancestor = plan.before_first(committed.start)
        if to >= committed.start:
            rows = self._store.entries(self.name, to, to)
            if not rows:
                raise NotReady(f"Block {to} is missing", source=self.name, todo="Run `gapless repair` first.")
            ancestor = rows[0].entry.cursor
        offload = self._process.offload(1)
        try:
            async with self._led() as fence:
                # In a thread: it may take long, and a loop that stands still gives the lease away.
                return await offload.write(lambda: self._store.rewind(self.name, ancestor, committed.cursor, fence))
        finally:
            await offload.close(STOP_SECONDS_MAX)

    async def verify(self, first: int, last: int) -> Verification:
        """Derive `first..last` again and compare with what is stored; over everything committed, state tables too."""
        head = await self._job.source.head()
        verifier = Verifier(self._job.source, stateless_deriver(self._job), self._store, self._schema)
        verification = await verifier.verify(first, last, head)
        committed = bounds(self._store, self.name)
        if last == committed.cursor.position:
            ends = verifier.at_cursor(committed.cursor)
            if bounds(self._store, self.name) == committed:  # else it is followed, and they are new ones
                verification = replace(verification, mismatches=(*verification.mismatches, *ends))
        if not self.has_state or (first, last) != (committed.start, committed.cursor.position):
            return verification
        job = self._job
        deriver = Deriver(self.name, job.decoder, job.handlers, job.bindings, no_rows, _EVERYTHING)
        found: list[Mismatch] = await fold_state(job.source, deriver, self._store, self._schema, first, last, head)
        return replace(verification, mismatches=(*verification.mismatches, *found))
