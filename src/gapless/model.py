"""The values that travel between a source, the engine and a store. Frozen; no I/O.

source --Segment--> engine (decode, handlers) --Batch--> store (one transaction)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from gapless.errors import check

P = TypeVar("P", covariant=True)


class Evidence(StrEnum):
    """How far an entry was checked before it was committed."""

    PROVED = "proved"
    """The hashes that commit to it were recomputed."""
    CHECKED = "checked"
    """Self-consistent: links, counts, bloom."""
    TRUSTED = "trusted"
    """Nothing was compared beyond, at most, the parent link."""


class Mode(StrEnum):
    """What a source's indexer is doing, for `status`, health and alerts."""

    STARTING = "starting"
    STANDBY = "standby"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    IDLE = "idle"
    DEGRADED = "degraded"
    HALTED = "halted"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a source is: compared with what the store holds before any write and again while running."""

    kind: str
    """`evm`, `cometbft`, …"""
    chain: str
    """The chain id, in decimal for EVM chains."""
    genesis: str
    """The id of the first entry: the genesis hash."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A position together with the id found there. Never compare positions by number alone."""

    position: int
    id: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where a source stands: its newest entry, and the position at or below which entries never change.

    `finalized` is -1 while nothing is final."""

    latest: Cursor
    finalized: int
    time_us: int
    """Time of the newest entry, microseconds since 1970 UTC."""


class FinalityRule(StrEnum):
    TAG = "tag"
    """The chain says so: `finalized` or `safe`."""
    DEPTH = "depth"
    """So many positions below the head."""
    AGE = "age"
    """Older than so many seconds, by block time."""


@dataclass(frozen=True, slots=True)
class Finality:
    """When an entry counts as final: `Finality(TAG, "finalized")`, `(DEPTH, 12)`, `(AGE, 900.0)`."""

    rule: FinalityRule
    value: str | int | float


@dataclass(frozen=True, slots=True)
class Entry:
    """One block or frame, without its payload."""

    position: int
    id: str
    parent_id: str
    time_us: int
    """The source's own time for it, microseconds since 1970 UTC."""
    evidence: Evidence
    served_by: str = ""
    """Label of the endpoint that served it, without credentials."""
    audited: bool = False
    """True where nothing could have been left out unseen: proved, or compared with a second endpoint."""

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.position, self.id)


@dataclass(frozen=True, slots=True)
class Segment(Generic[P]):
    """A run of consecutive, linked entries as a source yields them; the payload's form is the source kind's own."""

    source: str
    entries: tuple[Entry, ...]
    payload: P
    size_bytes: int
    """Bytes received for it: what bounds on memory count."""

    def __post_init__(self) -> None:
        check(self.entries, "a segment has at least one entry")

    @property
    def first(self) -> Entry:
        return self.entries[0]

    @property
    def last(self) -> Entry:
        return self.entries[-1]


@dataclass(frozen=True, slots=True)
class StateChange:
    """The new value of one state row, as of the end of a batch. `values` is None when the row is deleted.

    Keys and values are canonical text (see `gapless.schema`), in the table's column order."""

    table: str
    key: tuple[str | None, ...]
    values: tuple[str | None, ...] | None
    position: int
    """The entry that changed it last."""


@dataclass(frozen=True, slots=True)
class Undo:
    """What a state row was before the entry at `position` first touched it; `previous` is None when there was none."""

    position: int
    table: str
    key: tuple[str | None, ...]
    previous: tuple[str | None, ...] | None
    previous_position: int | None
    """Which entry had written the previous value."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An item that matched but could not be decoded or handled; kept with its bytes until retried or discarded."""

    source: str
    position: int
    item: str
    """Where in the entry: `log:17`."""
    consumer: str
    """The table or handler that could not take it."""
    reason: str
    payload: str
    """The item as received, JSON."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A range known to be missing or damaged."""

    source: str
    first: int
    last: int
    reason: str
    since_us: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write a source: checked inside every commit."""

    name: str
    """The lease's name."""
    holder: str
    token: int


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease as stored. `live` is judged by the database's clock, not by the reader's."""

    name: str
    holder: str
    token: int
    expires_in_seconds: float

    @property
    def live(self) -> bool:
        return bool(self.holder) and self.expires_in_seconds > 0


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What the leader last said about a source, as stored for `status`."""

    mode: Mode = Mode.STOPPED
    reason: str | None = None
    head: int | None = None
    head_time_us: int | None = None
    finalized: int | None = None
    updated_us: int = 0
    reorgs: int = 0
    reorg_deepest: int = 0


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A row of `gapless_entries`."""

    entry: Entry
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what should be there is there."""

    first: int | None
    last: int | None
    entries: int
    evidence: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        if self.first is None or self.last is None:
            return 0
        return self.last - self.first + 1 - self.entries
