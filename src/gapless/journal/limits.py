"""How much a journal holds, and when it asks its writers to wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gapless.errors import JournalFull, check

if TYPE_CHECKING:
    from gapless.journal import Message

ID_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a journal. Both high waters count; a journal that reached one waits until both low waters hold."""

    records_high: int = 50_000_000
    records_low: int = 45_000_000
    bytes_high: int = 16 * 2**30
    bytes_low: int = 12 * 2**30
    append_timeout_seconds: float = 60.0
    """How long an append waits for low water before JournalFull."""
    message_bytes_max: int = 16 * 2**20
    recent_ids: int = 16_384
    """An id is recognised among at least so many of the newest records, as far as they are not trimmed. (Of one that is
    trimmed, a file journal that was restarted has nothing left; the store knows it.)"""
    segment_bytes: int = 64 * 2**20
    """A segment that has grown to this is followed by a new one; space is freed by whole segments."""

    def __post_init__(self) -> None:
        check(0 <= self.records_low < self.records_high, "low water lies below high water (records)")
        check(0 <= self.bytes_low < self.bytes_high, "low water lies below high water (bytes)")
        check(self.recent_ids >= 1 and self.message_bytes_max >= 1 and self.segment_bytes >= 1, "limits are positive")

    @classmethod
    def in_memory(cls) -> Limits:
        """For a journal that is a buffer in the process."""
        return cls(records_high=100_000, records_low=75_000, bytes_high=256 * 2**20, bytes_low=192 * 2**20)

    def check_messages(self, messages: Sequence[Message]) -> None:
        """Refuse what no journal may hold. Raises InvariantViolation."""
        for message in messages:
            check(0 < len(message.id.encode()) <= ID_BYTES_MAX, f"an id has 1 to {ID_BYTES_MAX} bytes")
            check(len(message.payload) <= self.message_bytes_max, "a payload is within message_bytes_max")
            check(0 <= message.received_us < 2**63, "received_us is a time")


class Gauge:
    """High and low water: full from the one until the other."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._full = False

    def full(self, records: int, bytes_held: int) -> bool:
        """Whether appends wait, now that the journal holds this much."""
        limits = self._limits
        if records >= limits.records_high or bytes_held >= limits.bytes_high:
            self._full = True
        elif records <= limits.records_low and bytes_held <= limits.bytes_low:
            self._full = False
        return self._full

    def admit(self, records: int, bytes_held: int) -> None:
        """Raises JournalFull while appends have to wait."""
        if self.full(records, bytes_held):
            raise JournalFull(
                f"The journal stands at its high water: {records} records, {bytes_held} bytes",
                todo="It goes on by itself once its consumers have acknowledged more; see which one is slow.",
            )


class RecentIds:
    """The positions of the newest ids."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._positions: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._positions)

    def position(self, message_id: str) -> int | None:
        return self._positions.get(message_id)

    def add(self, message_id: str, position: int) -> None:
        """In the order of positions; the oldest is forgotten when there are too many."""
        positions = self._positions
        positions[message_id] = position
        if len(positions) > self._count_max:
            del positions[next(iter(positions))]

    def place(self, messages: Sequence[Message], following: int) -> tuple[list[int], list[Message]]:
        """The position of each message if `following` is the next free one, and those that are new."""
        places: list[int] = []
        fresh: list[Message] = []
        within: dict[str, int] = {}
        for message in messages:
            known = self._positions.get(message.id) or within.get(message.id)
            if known is None:
                known = within[message.id] = following + len(fresh)
                fresh.append(message)
            places.append(known)
        return places, fresh
