"""Who reads a journal, and how far each has come."""

from __future__ import annotations

from gapless.errors import JournalError, check


class Consumers:
    """Named positions that only grow."""

    def __init__(self, acknowledged: dict[str, int] | None = None) -> None:
        self._acknowledged = dict(acknowledged or {})

    def known(self, consumer: str) -> bool:
        return consumer in self._acknowledged

    def add(self, consumer: str, floor: int) -> None:
        check(0 < len(consumer) <= 200, "a consumer's name has 1 to 200 characters")
        self._acknowledged[consumer] = floor

    def remove(self, consumer: str) -> None:
        self._acknowledged.pop(consumer, None)

    def acknowledged(self, consumer: str) -> int:
        return self._acknowledged[consumer]

    def acknowledge(self, consumer: str, upto: int, last: int) -> None:
        """Raises JournalError for who is not known and for what was never there."""
        if consumer not in self._acknowledged:
            raise JournalError(f"No consumer {consumer!r} is known to the journal", todo="Subscribe it first.")
        if upto > last:
            raise JournalError(
                f"{consumer!r} acknowledges position {upto}, and the journal ends at {last}",
                todo="That position is not from this journal; subscribe again and read from what it returns.",
            )
        self._acknowledged[consumer] = max(upto, self._acknowledged[consumer])

    def trimmable(self, upto: int | None, floor: int) -> int:
        """How far a trim may go: never past what every consumer has acknowledged."""
        slowest = min(self._acknowledged.values(), default=floor)
        return max(floor, slowest if upto is None else min(upto, slowest))

    def positions(self) -> dict[str, int]:
        return dict(self._acknowledged)
