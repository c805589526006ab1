"""From the columns of a segment's items to `Rows`, and from the items that would not go to `Quarantined`.

What is the same for all items of a block (its number, time and hash) is converted once a block and repeated.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat
from typing import Any, TypeVar

from gapless.errors import DecodeError
from gapless.model import Entry, Quarantined, Segment
from gapless.schema import Column_, Rows, Table, timestamp_text

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a segment as canonical text."""

    source: str
    positions: list[int]
    seconds: list[int]
    numbers: list[str]
    times: list[str]
    hashes: list[str]

    @classmethod
    def of(cls, segment: Segment[Any]) -> Blocks:
        """Raises DecodeError for a block whose time is beyond the year 9999, which no TIMESTAMP holds."""
        entries = segment.entries
        return cls(
            segment.source,
            [e.position for e in entries],
            [e.time_us // 1_000_000 for e in entries],
            [str(e.position) for e in entries],
            [_time(segment.source, e) for e in entries],
            [e.id for e in entries],
        )

    def lead(self, counts: Sequence[int]) -> list[Column_]:
        """block_number, block_timestamp and block_hash of so many items in each block."""
        return [
            list(chain.from_iterable(map(repeat, texts, counts))) for texts in (self.numbers, self.times, self.hashes)
        ]

    def rows(self, table: Table, columns: Sequence[Column_], counts: Sequence[int], odd: dict[int, str]) -> Rows:
        """The rows of a table that starts with `lead`. `counts` are the items of each block, `columns` what became
        of all of them but the odd ones, which are given by index."""
        if odd:
            counts = list(counts)
            for block in owners(counts, odd):
                counts[block] -= 1
        return Rows(table, (*self.lead(counts), *columns), tuple(counts))

    def quarantined(
        self,
        consumer: str,
        items: Sequence[T],
        counts: Sequence[int],
        odd: dict[int, str],
        describe: Callable[[T], tuple[str, str]],
    ) -> list[Quarantined]:
        """The odd ones, in order. `describe` gives an item's name within its block, and the item as JSON."""
        places = sorted(odd)
        return [
            Quarantined(self.source, self.positions[block], name, consumer, odd[place], payload)
            for place, block in zip(places, owners(counts, places), strict=True)
            for name, payload in [describe(items[place])]
        ]


def owners(counts: Sequence[int], places: Sequence[int] | dict[int, str]) -> list[int]:
    """Which block each item belongs to, by the items' indices in the segment."""
    ends = list(accumulate(counts))
    return [bisect_right(ends, place) for place in places]


def _time(source: str, entry: Entry) -> str:
    try:
        return timestamp_text(entry.time_us)
    except (OverflowError, ValueError) as error:
        raise DecodeError(
            f"The block's time, {entry.time_us // 1_000_000} seconds since 1970, is beyond the year 9999",
            source=source,
            position=entry.position,
            todo="The chain does not count seconds, or the endpoint lies: compare with another endpoint.",
        ) from error
