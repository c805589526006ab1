"""The synchronous heart of a journal that lives in this process: what it holds and decides, without waiting.

`shell.Shell` makes a `Journal` of it. A log is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gapless.errors import JournalError, JournalTrimmed
from gapless.journal import Damage, JournalState, Message, Record
from gapless.journal.limits import Limits


class Log(Protocol):
    """The Journal port without waiting: `append` raises JournalFull at high water, `read` returns what is there."""

    url: str
    limits: Limits
    blocks: bool
    """Whether calls wait for a disk, and so belong on a thread."""

    def open(self) -> None: ...

    def append(self, messages: Sequence[Message]) -> list[int]: ...

    def read(self, after: int, records_max: int, bytes_max: int) -> list[Record]: ...

    def subscribe(self, consumer: str) -> int: ...

    def unsubscribe(self, consumer: str) -> None: ...

    def acknowledge(self, consumer: str, upto: int) -> None: ...

    def trim(self, upto: int | None) -> int: ...

    def state(self) -> JournalState: ...

    def verify(self) -> list[Damage]: ...

    def close(self) -> None: ...


def check_reach(after: int, floor: int, last: int) -> None:
    """A reader asks for what is there or will be next: JournalTrimmed before that, JournalError beyond."""
    if after < floor:
        raise JournalTrimmed(
            f"Position {after + 1} was trimmed; the oldest in the journal is {floor + 1}",
            todo="Subscribe, and read from the position it returns; what lies before is read from the source again.",
        )
    if after > last:
        raise JournalError(
            f"Position {after} lies beyond the journal's last, {last}",
            todo="That position is not from this journal; subscribe and read from the position it returns.",
        )
