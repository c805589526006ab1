"""A process's way to the database, on which calls get lost: before they had an effect, or after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random  # noqa: TID251 - the type; the draws are the simulation's
from typing import Any

from gapless.errors import CommitUnknown, DiskFull, StoreUnavailable
from gapless.model import Cursor, Fence
from gapless.store import Batch, Store

_LOSABLE = frozenset({"acquire", "renew", "release", "report", "record_gap", "clear_gaps", "bind_source"})
"""Calls other than commits that may have their effect although the answer is lost."""


@dataclass(slots=True)
class StoreTrouble:
    """Shares, 0 to 1, of calls that fail; the same for all processes, or one's own."""

    away: bool = False
    """Nothing is reached."""
    refused: float = 0.0
    """Any call fails with no effect."""
    lost: float = 0.0
    """A lease's or a book's call takes effect, and is answered with an error."""
    commit_refused: float = 0.0
    """A commit fails, and nothing is written."""
    commit_unknown: float = 0.0
    """The connection breaks at COMMIT, before it or after it, and nobody can say which."""
    full: float = 0.0
    """The disk is full."""


class SimulatedStore:
    """A `Store` that passes every call on, or loses it. `wrote` is told of each batch that was committed or replaced,
    at the moment it was; `called` of each call and how it ended."""

    def __init__(
        self,
        inner: Store,
        troubles: tuple[StoreTrouble, ...],
        draw: Random,
        wrote: Callable[[str, Batch, Cursor | None, Fence], None],
        called: Callable[[str, str], None],
    ) -> None:
        self._inner = inner
        self._troubles = troubles
        self._draw = draw
        self._wrote = wrote
        self._called = called
        self.severed = False
        """The process is gone: nothing it does has an effect any more."""

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._inner, name)
        if not callable(work):
            return work

        def call(*args: Any, **kwargs: Any) -> Any:
            self._check_reached(name)
            found = work(*args, **kwargs)
            if name in _LOSABLE and self._unlucky("lost"):
                self._called(name, "lost")
                raise StoreUnavailable("The connection broke before the answer came")
            self._called(name, "")
            return found

        setattr(self, name, call)  # found at once from now on
        return call

    def commit(self, batch: Batch, expected: Cursor | None, fence: Fence) -> None:
        self._check_reached("commit")
        if self._unlucky("commit_refused"):
            self._called("commit", "refused")
            raise StoreUnavailable("The connection broke; nothing was written")
        if self._unlucky("full"):
            self._called("commit", "full")
            raise DiskFull("The disk is full; nothing of the batch was kept")
        unknown = self._unlucky("commit_unknown")
        if unknown and self._draw.random() < 0.5:
            self._called("commit", "unknown, not done")
            raise CommitUnknown("The connection broke at COMMIT")
        self._inner.commit(batch, expected, fence)
        self._called("commit", "unknown, done" if unknown else "")
        self._wrote("commit", batch, expected, fence)
        if unknown:
            raise CommitUnknown("The connection broke at COMMIT")

    def replace(self, batch: Batch, fence: Fence) -> None:
        self._check_reached("replace")
        self._inner.replace(batch, fence)
        self._called("replace", "")
        self._wrote("replace", batch, None, fence)

    def _check_reached(self, name: str) -> None:
        if self.severed:
            raise StoreUnavailable("The process is gone")
        if any(t.away for t in self._troubles) or self._unlucky("refused"):
            self._called(name, "away")
            raise StoreUnavailable("The database cannot be reached")

    def _unlucky(self, kind: str) -> bool:
        share: float = max(getattr(t, kind) for t in self._troubles)
        return share > 0 and self._draw.random() < share
