"""What the SQL stores share: a session inside one transaction, and the hooks each database fills in.

All SQL of the four protocols is written once, over `Session`, with `?` for values. Values travel as canonical text or
int; each database converts them by the column's own type. What differs between databases is in `ddl.Dialect`, and in
the few hooks of `SqlStore` below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import msgspec

from gapless.clock import Clock
from gapless.errors import InvariantViolation, LeaseLost, StoreError
from gapless.model import Fence, StateChange
from gapless.schema import Rows, Schema, Table
from gapless.store.ddl import Dialect, Names

T = TypeVar("T")
Value = str | int | None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Session(Protocol):
    """One connection inside one transaction."""

    def run(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        """Run one statement; the rows it returns."""
        ...

    def stream(self, sql: str, rows_at_once: int) -> Iterator[list[tuple[Any, ...]]]:
        """Run one query and hand out its rows in parts, without holding all of them."""
        ...

    def insert(self, relation: str, rows: Rows) -> None:
        """Add rows by the fastest way the database has. Raises StoreError where a key is there already."""
        ...

    def upsert(self, relation: str, table: Table, changes: Sequence[StateChange]) -> None:
        """Insert, replace or delete state rows; one change a key."""
        ...


class SqlStore(ABC):
    """The hooks. `work` gets a session; the transaction is committed when it returns and rolled back when it raises."""

    dialect: Dialect
    url: str
    _clock: Clock
    _opened: Names | None = None

    @property
    def _names(self) -> Names:
        if self._opened is None:
            raise InvariantViolation(f"The database {self.url} is used before open()")
        return self._opened

    @property
    def _schema(self) -> Schema:
        return self._names.schema

    @abstractmethod
    def _transact(self, work: Callable[[Session], T], committed: Callable[[Session], bool] | None = None, /) -> T:
        """Run `work` in one transaction on the writing connection.

        `committed` decides, on a new connection, whether the transaction took place, should the connection be lost at
        COMMIT."""

    @abstractmethod
    def _reading(self, *, together: bool = False) -> AbstractContextManager[Session]:
        """A session that sees what is committed: each statement by itself, or, `together`, all of them the same."""

    @abstractmethod
    def _lease_transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction on the connection of leases, which no commit can keep waiting for long."""

    @abstractmethod
    def _now_us(self, session: Session, /) -> int:
        """The database's clock."""

    @abstractmethod
    def _check_fence(self, session: Session, fence: Fence) -> None:
        """Raise LeaseLost unless the lease is still the fence's, and keep it so until the transaction ends."""

    def _take_time(self, session: Session, /) -> None:  # noqa: B027 - most databases need nothing
        """Announce that what follows may take long: an operator's rewind, not a commit."""


def micros(text: str) -> int:
    """Microseconds since 1970 UTC of a canonical timestamp."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


@contextmanager
def legible(url: str) -> Iterator[None]:
    """What is read must be what was written: bytes that are no text, a time that is none, a mode that does not exist
    mean a damaged file or somebody's hand, and are no accident of this program."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        said = " ".join(str(error).split())
        raise StoreError(
            f"{url} holds something that Gapless did not write: {said}",
            todo="It is damaged or was altered: `gapless doctor` looks. `gapless replay --range A..B` writes a range"
            " anew; where that fails too, restore the database from a backup, or remove it and index again.",
        ) from error


def printable(text: str) -> str:
    """Free text (a reason, a message) without what Postgres or UTF-8 cannot hold."""
    if "\0" in text or not text.isascii():
        return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return text


def lease_lost(fence: Fence) -> LeaseLost:
    """The error for a fence that is not the lease's any more."""
    return LeaseLost(
        f"The lease {fence.name!r} is not held by {fence.holder!r} with token {fence.token} any more",
        todo="Nothing was written. Another process leads; this one may take the lease again when it is free.",
    )
