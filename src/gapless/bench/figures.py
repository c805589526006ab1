"""What was measured, as values. Rates are by wall time, except those of processing, which are by CPU time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Of a call that asks the node for nothing it must look up: what the way there and back takes."""

    calls: int
    median_seconds: float
    worst_seconds: float
    """The 90th percentile."""


@dataclass(frozen=True, slots=True)
class RangeRate:
    """Ranges of one size asked for with several requests in flight, the answers only counted."""

    blocks: int
    """In each range."""
    ranges: int
    """Answered within the time."""
    requests: int
    seconds: float
    logs: int
    size_bytes: int
    node_seconds: float
    """Mean of what a request waited for the first byte of its answer beyond the round trip."""
    network_seconds: float
    """Mean of the round trip and the time from the first byte to the last."""
    refused: int
    limited: int
    """Of the refused: because of too many requests."""
    refusal: str | None = None
    """The last one, in the endpoint's words."""

    @property
    def blocks_per_second(self) -> float:
        return self.blocks * self.ranges / self.seconds if self.seconds > 0 else 0.0

    @property
    def logs_per_second(self) -> float:
        return self.logs / self.seconds if self.seconds > 0 else 0.0

    def document(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "blocks_per_second": round(self.blocks_per_second, 1),
            "logs_per_second": round(self.logs_per_second, 1),
            "bytes_per_second": round(self.size_bytes / self.seconds) if self.seconds > 0 else 0,
        }


@dataclass(frozen=True, slots=True)
class Stage:
    """So many blocks and rows went through one stage in so many seconds."""

    blocks: int
    rows: int
    seconds: float

    @property
    def blocks_per_second(self) -> float:
        return self.blocks / self.seconds if self.seconds > 0 else 0.0

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    def document(self) -> dict[str, Any]:
        rates = {"blocks_per_second": self.blocks_per_second, "rows_per_second": self.rows_per_second}
        return {**asdict(self), **{name: round(value, 1) for name, value in rates.items()}}


@dataclass(frozen=True, slots=True)
class Writing:
    """What the database takes."""

    rate: Stage
    commit_seconds: float
    """Mean of a commit as a run makes them while it catches up."""
    single_seconds: float
    """Median of a commit of one block: what a commit costs beside its rows, and what the head pays."""

    def document(self) -> dict[str, Any]:
        return {
            **self.rate.document(),
            "commit_seconds": self.commit_seconds,
            "commit_of_one_block_seconds": self.single_seconds,
        }


@dataclass(frozen=True, slots=True)
class Limit:
    """The slowest part."""

    name: str
    """`node`, `network`, `decode` or `database`."""
    reason: str
    suggestion: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was measured of one source."""

    source: str
    endpoint: str
    store: str
    positions: tuple[int, int]
    """The range the samples come from."""
    concurrency: int
    round_trip: RoundTrip
    ranges: Sequence[RangeRate]
    decode: Stage
    """Decoding, checking and deriving, by CPU time of one core."""
    database: Writing
    end_to_end: Stage
    limit: Limit
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def best(self) -> RangeRate:
        """The size that brought the most blocks a second."""
        return max(self.ranges, key=lambda rate: rate.blocks_per_second)

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "source": self.source,
            "endpoint": self.endpoint,
            "store": self.store,
            "positions": list(self.positions),
            "concurrency": self.concurrency,
            "round_trip": asdict(self.round_trip),
            "ranges": [rate.document() for rate in self.ranges],
            "decode": self.decode.document(),
            "database": self.database.document(),
            "end_to_end": self.end_to_end.document(),
            "limit": asdict(self.limit),
            "notes": list(self.notes),
        }
