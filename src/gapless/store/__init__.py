"""The Store port: tables, cursor and everything that must be true together.

One class implements all of the small protocols below. Methods are synchronous: the engine calls the writing ones
from one thread, so there is one writing connection; reads may come from any thread and see only committed data.

The commit protocol, in one transaction: fence check, compare-and-set of the cursor by (position, id), rewind if
the batch says so, rows, state, undo, quarantine, entries with digest, cursor. Either all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gapless.model import (
    Coverage,
    Cursor,
    Entry,
    Fence,
    Gap,
    Identity,
    LeaseRow,
    Quarantined,
    SourceReport,
    StateChange,
    StoredEntry,
    Undo,
)
from gapless.schema import Column_, Rows, Schema, Table

FORMAT = 1
"""Version of the product's own tables. A store written with a higher one is refused (NewerDatabase)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything one transaction writes: consecutive entries of one source with all they produced."""

    source: str
    entries: tuple[Entry, ...]
    digests: tuple[str, ...]
    counts: tuple[int, ...]
    """Fact rows of each entry."""
    rows: tuple[Rows, ...]
    changes: tuple[StateChange, ...] = ()
    """Final value of every state row the batch touched; one item a key."""
    undo: tuple[Undo, ...] = ()
    """For entries that are not final yet."""
    quarantined: tuple[Quarantined, ...] = ()
    rewind_to: Cursor | None = None
    """The common ancestor, when the batch replaces a forked branch. `Cursor(start - 1, "")` means before the first."""
    head: int | None = None
    finalized: int | None = None


@dataclass(frozen=True, slots=True)
class StoredSource:
    identity: Identity
    start: int


@dataclass(frozen=True, slots=True)
class StateRow:
    values: tuple[str | None, ...]
    position: int


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    id: int
    item: Quarantined
    created_us: int
    attempts: int


class EntryStore(Protocol):
    """Ordered, exactly-once effects."""

    def bind_source(self, source: str, identity: Identity, start: int) -> StoredSource:
        """Record what the source is, or compare with what is recorded. Raises WrongChain when they differ; the
        recorded start wins over the given one and is returned."""
        ...

    def cursor(self, source: str) -> Cursor | None:
        """The last committed entry; None before the first. On Postgres it waits for a commit still in flight."""
        ...

    def commit(self, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        """The commit protocol. `expected` is the cursor the batch was built on (before any rewind).

        Raises LeaseLost (fence), CursorMoved (compare-and-set), StoreUnavailable (nothing written), CommitUnknown,
        DiskFull, ReadOnlyStore. When the connection is lost at COMMIT the cursor is read back on a new connection:
        success if it shows the batch, StoreUnavailable if not, CommitUnknown if it cannot be read."""
        ...

    def replace(self, batch: Batch, fence: Fence) -> None:
        """Replace what the batch's entries produced (facts, quarantine, digests), in one transaction; state, undo and
        cursor stay. Entries must lie at or below the cursor, and link to the stored neighbours on both sides
        (parent of the first, child of the last) where these exist; otherwise raises CursorMoved. Clears the gaps it
        covers. Idempotent."""
        ...

    def rewind(self, source: str, ancestor: Cursor, expected: Cursor, fence: Fence) -> int:
        """Undo every entry above `ancestor` (facts, state, quarantine, entries, gaps) and set the cursor, in one
        transaction. Position `start - 1` means: everything. Returns the number of entries undone. Raises
        NothingToUndo where state tables exist and the undo records for that range were pruned, unless everything is
        undone."""
        ...

    def prune_undo(self, source: str, upto: int) -> None:
        """Forget undo records at or below a final position."""
        ...


class ReadStore(Protocol):
    """What is committed."""

    def source(self, source: str) -> StoredSource | None: ...

    def entries(self, source: str, first: int, last: int) -> list[StoredEntry]:
        """In position order; missing ones are simply not there."""
        ...

    def served_unaudited(self, source: str, served_by: str) -> list[tuple[int, int]]:
        """Ranges served by one endpoint and neither proved nor audited, merged, in order."""
        ...

    def coverage(self, source: str) -> Coverage: ...

    def missing(self, source: str, first: int, last: int) -> list[tuple[int, int]]:
        """Ranges between first and last without an entry row, merged, in order (missing prefix and suffix included)."""
        ...

    def damaged(self, source: str, first: int, last: int) -> list[tuple[int, int, int]]:
        """(position, rows recorded, rows found) of entries whose fact rows were removed or added behind our back."""
        ...

    def facts(self, table: Table, first: int, last: int) -> tuple[list[Column_], list[int]]:
        """Canonical columns of the rows at positions first..last in key order, and each row's position."""
        ...

    def state(self, table: Table, keys: Sequence[tuple[str | None, ...]]) -> dict[tuple[str | None, ...], StateRow]:
        """State rows by key; absent keys are left out."""
        ...

    def state_rows(self, table: Table) -> Iterator[StateRow]:
        """Every row of a state table in key order (bytewise order of canonical text)."""
        ...

    def state_before(self, source: str, ancestor: int) -> list[Undo]:
        """For each state row changed above `ancestor`: what it was there (the oldest undo record above it)."""
        ...

    def row_count(self, table: Table) -> int: ...

    def query(self, sql: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run one read-only statement with the live version's views in scope. Writes raise ReadOnlyStore."""
        ...


class LeaseStore(Protocol):
    """Leadership as a row with a fencing token. Times are judged by the store's own clock."""

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> Fence | None:
        """Take the lease if it is free or expired: the token grows with each grant. None while it is held, also by a
        holder of the same name: two containers may both be `host:1`."""
        ...

    def renew(self, fence: Fence, ttl_seconds: float) -> bool:
        """Prolong a lease that is still ours (same holder and token); False when it is not."""
        ...

    def release(self, fence: Fence) -> None:
        """Give it up at once; no effect when it is no longer ours."""
        ...

    def leases(self) -> list[LeaseRow]: ...


class Ledger(Protocol):
    """The operator's books."""

    def gaps(self, source: str) -> list[Gap]: ...

    def record_gap(self, gap: Gap) -> None:
        """Insert, or for a known (source, first, last) update reason and attempts but keep `since_us`."""
        ...

    def clear_gaps(self, source: str, first: int, last: int) -> None:
        """Forget recorded gaps inside the range; those that overlap it are cut to what remains outside."""
        ...

    def quarantine(self, source: str | None = None) -> list[QuarantineRow]: ...

    def discard_quarantine(self, ids: Sequence[int]) -> int: ...

    def flags(self) -> dict[str, str]: ...

    def set_flag(self, name: str, value: str | None) -> None: ...

    def report(self, source: str, report: SourceReport) -> None:
        """Save what `status` shows. Only the leader calls it; reorg counters are kept by `commit` and not touched."""
        ...

    def reported(self, source: str) -> SourceReport: ...


class Store(EntryStore, ReadStore, LeaseStore, Ledger, Protocol):
    """A database."""

    url: str
    """Without password."""

    def open(self, schema: Schema, *, create: bool) -> None:
        """Connect and make sure the tables are there. With `create` false a missing database is StoreError, and
        nothing is written.

        Raises StoreUnavailable, ReadOnlyStore, WrongDatabase, NewerDatabase, SchemaChanged (naming the
        differences)."""
        ...

    def describe(self) -> dict[str, str]:
        """Facts for `doctor`: server version, durability settings as read back, size."""
        ...

    def close(self) -> None: ...
