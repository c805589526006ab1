"""The Source port: something ordered that can be followed, and the decoder that turns its segments into rows.

Adapters live beside this file by kind (`evm/`, …). Correctness comes from fetching what the cursor says is next;
push channels only wake `wait_head` up early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from gapless.model import Cursor, Head, Identity, Quarantined, Segment
from gapless.schema import Rows

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """One endpoint's score sheet, for status, metrics and logs."""

    label: str
    """Host and port or path; never credentials."""
    healthy: bool
    latency_seconds: float
    lag_positions: int
    requests: int
    errors: int
    lies: int
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """Counters since start, as read by metrics."""

    requests: int = 0
    bytes_received: int = 0
    retries: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """By kind: timeout, http, rate_limited, refused, bad_answer."""
    contradictions: dict[str, int] = field(default_factory=dict)
    """Refused answers by kind of lie."""
    audits: int = 0
    endpoints: tuple[EndpointReport, ...] = ()


class Source(Protocol[P_co]):
    """A chain that can be asked for any range. Every method may raise `SourceError`s."""

    name: str
    kind: str

    async def identity(self) -> Identity:
        """What this is. Every endpoint must agree; raises WrongChain where two do not."""
        ...

    async def head(self) -> Head:
        """Where the source stands now."""
        ...

    async def wait_head(self, known: Cursor, timeout_seconds: float) -> Head:
        """Return the head as soon as it differs from `known`, or when the time is over. A push channel may shorten
        the wait; a dead one never lengthens it."""
        ...

    def span(self) -> int:
        """How many positions one `fetch` should ask for now, as learned from this source so far (at least 1)."""
        ...

    async def fetch(self, first: int, last: int, *, head: Head, avoid: frozenset[str] = frozenset()) -> Segment[P_co]:
        """Entries `first..last`, all of them, linked and verified at the configured level.

        Retries, splitting, failover and audits happen inside, within bounds. `head` decides which positions are
        near enough to the head to be fetched in the stricter way. Endpoints labelled in `avoid` are not asked.
        Raises Contradiction when every endpoint contradicts itself, NotYetAvailable, HistoryPruned,
        SourceUnavailable when the retry budget is spent."""
        ...

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        """The ids the source's current chain has at these positions; None beyond its head. For finding the common
        ancestor after a fork."""
        ...

    async def opinions(self, position: int) -> dict[str, Cursor | None]:
        """What each endpoint that answers has at a position: by label; None beyond its head. Those caught lying lately
        are asked only where there is no other. One endpoint's word is no reason to undo what the rest still have."""
        ...

    def doubt(self, labels: frozenset[str]) -> None:
        """These endpoints are on a chain of their own: for a while their heads do not count, and they are asked for
        blocks only where no other can give them."""
        ...

    def take_liars(self) -> frozenset[str]:
        """Labels of endpoints newly caught in a lie since the last call: what they served un-audited must be
        fetched again elsewhere."""
        ...

    def statistics(self) -> SourceStatistics: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Events:
    """Decoded events of one contract event over a segment, as columns; the input of handlers and of fact tables.

    `order` sorts events of all kinds within the segment: (position, index within the entry)."""

    name: str
    """`<contract>.<Event>`."""
    rows: Rows
    order: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder makes of a segment."""

    rows: tuple[Rows, ...]
    """Fact tables, one item a table; tables without rows may be left out."""
    events: tuple[Events, ...]
    """Only those a handler subscribed to."""
    quarantined: tuple[Quarantined, ...]


class Decoder(Protocol[P_contra]):
    """Turns a segment's payload into columns. Pure: no I/O, no clock, no randomness; the same in any order."""

    def decode(self, segment: Segment[P_contra]) -> Decoded: ...


AnySource = Source[Any]
AnyDecoder = Decoder[Any]
