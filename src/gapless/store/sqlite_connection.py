"""One SQLite connection: how it is opened, what a transaction on it is, what its errors mean."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import apsw
import apsw.ext

from gapless.clock import Clock
from gapless.errors import DiskFull, ReadOnlyStore, StoreError, StoreUnavailable
from gapless.model import StateChange
from gapless.schema import Kind, Rows, Table
from gapless.store.ddl import quote
from gapless.store.select import refused
from gapless.store.session import Value

_STEPS_BETWEEN_LOOKS = 10_000
_INTEGERS = frozenset({Kind.INT, Kind.BOOL})
_FIXED = frozenset({Kind.HASH, Kind.ADDRESS})
"""Kinds whose values are all of one width: they are not padded."""
_SHARED_MEMORY_BYTES = 32 * 1024
"""What the file beside a write-ahead log grows by."""
_READING = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "writefile", "edit", "fts3_tokenizer"})


def create_file(path: Path) -> None:
    """Make an empty file where there is none, to learn why it is not possible: SQLite does not say.

    An existing file is not touched: to close it would undo every lock this process holds on it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        return
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise read_only(path) from error
        raise StoreError(f"{path} cannot be created: {error.strerror}", todo="Correct [store] url.") from error


def open_connection(
    path: Path, busy_timeout_seconds: float, *, write: bool = True, create: bool = False
) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE if write else apsw.SQLITE_OPEN_READONLY
    connection = apsw.Connection(str(path), flags=flags | (apsw.SQLITE_OPEN_CREATE if create else 0))
    connection.set_busy_timeout(round(busy_timeout_seconds * 1000))
    # A misspelt column is an error, and not, as SQLite has it by default, a string.
    for setting in (apsw.SQLITE_DBCONFIG_DQS_DML, apsw.SQLITE_DBCONFIG_DQS_DDL):
        connection.config(setting, 0)
    connection.pragma("mmap_size", 0)
    if not write:
        connection.pragma("query_only", 1)
    return connection


@contextmanager
def transaction(connection: apsw.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Commit when the block ends, roll back when it raises."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, a full disk among them.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class SqliteSession:
    """`Session` on a connection with an open transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(sql, values))

    def stream(self, sql: str, rows_at_once: int) -> Iterator[list[tuple[Any, ...]]]:
        cursor = self._connection.execute(sql)
        part: list[tuple[Any, ...]] = []
        try:
            for row in cursor:
                part.append(row)
                if len(part) == rows_at_once:
                    yield part
                    part = []
        finally:
            cursor.close(True)
        if part:
            yield part

    def insert(self, relation: str, rows: Rows) -> None:
        # Canonical text goes in as it is: the column's type turns digits into an integer, exactly.
        if rows.packed is not None:
            matrix = rows.packed.matrix
            values = {"rows": rows.packed.buffer, "width": matrix.shape[1], "count": len(matrix)}
            self._connection.execute(_unpack_statement(relation, rows.table, rows.packed.widths), values)
            return
        self._connection.executemany(_insert_statement(relation, rows.table), zip(*rows.columns, strict=True))

    def upsert(self, relation: str, table: Table, changes: Sequence[StateChange]) -> None:
        put = [(*c.values, str(c.position)) for c in changes if c.values is not None]
        gone = [c.key for c in changes if c.values is None]
        if put:
            self._connection.executemany(_upsert_statement(relation, table), put)
        if gone:
            where = " AND ".join(f"{quote(k)} = ?" for k in table.key)
            self._connection.executemany(f"DELETE FROM {relation} WHERE {where}", gone)


@lru_cache(maxsize=256)
def _insert_by_names(relation: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {relation} ({', '.join(map(quote, columns))}) VALUES ({', '.join('?' * len(columns))})"


@lru_cache(maxsize=256)
def _unpack_statement(relation: str, table: Table, widths: tuple[int, ...]) -> str:
    """All rows in one statement, cut out of the matrix by SQLite itself: no Python object is made for a value, and
    other threads go on meanwhile."""
    at, values = 1, []
    for column, width in zip(table.columns, widths, strict=True):
        kind = "INTEGER" if column.kind in _INTEGERS else "TEXT"
        values.append(f"CAST(substr(:rows, o + {at}, {width}) AS {kind})")
        if column.kind not in _INTEGERS and column.kind not in _FIXED:
            values[-1] = f"rtrim({values[-1]})"
        at += width + 1
    names = ", ".join(quote(c.name) for c in table.columns)
    return (
        f"WITH RECURSIVE r(o) AS (VALUES(0) UNION ALL SELECT o + :width FROM r LIMIT :count)"
        f" INSERT INTO {relation} ({names}) SELECT {', '.join(values)} FROM r"
    )


def _insert_statement(relation: str, table: Table) -> str:
    return _insert_by_names(relation, tuple(c.name for c in table.columns))


def _upsert_statement(relation: str, table: Table) -> str:
    columns = (*(c.name for c in table.columns), "_position")
    changed = ", ".join(f"{quote(c)} = excluded.{quote(c)}" for c in columns if c not in table.key)
    key = ", ".join(map(quote, table.key))
    return f"{_insert_by_names(relation, columns)} ON CONFLICT ({key}) DO UPDATE SET {changed}"


def run_select(
    connection: apsw.Connection, sql: str, limit: int, timeout_seconds: float, clock: Clock
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one statement that can do nothing but read, on a connection of its own."""
    connection.authorizer = _allow_reading
    deadline = clock.monotonic() + timeout_seconds
    connection.set_progress_handler(lambda: clock.monotonic() > deadline, _STEPS_BETWEEN_LOOKS)
    try:
        info = apsw.ext.query_info(connection, sql)
        if info.query_remaining:
            raise refused("there is more than one")
        if not info.is_readonly:
            raise refused("it would write")
        rows: list[tuple[Any, ...]] = []
        for row in connection.execute(sql):
            rows.append(row)
            if len(rows) >= limit:
                break
        return [d[0] for d in info.description], rows[:limit]
    except apsw.AuthError as error:
        raise refused("it would do more than read") from error
    except apsw.InterruptError as error:
        raise StoreError(
            f"The query took longer than {timeout_seconds:g} s and was stopped", todo="Ask for fewer rows."
        ) from error
    except apsw.SQLError as error:
        raise StoreError(f"The query cannot be run: {error}", todo="Correct the statement.") from error


def _allow_reading(operation: int, *names: str | None) -> int:
    if operation not in _READING:
        return apsw.SQLITE_DENY
    if operation == apsw.SQLITE_FUNCTION and names[1] in _FORBIDDEN_FUNCTIONS:
        return apsw.SQLITE_DENY
    return apsw.SQLITE_OK


def in_words(error: apsw.Error, path: Path) -> StoreError:
    """What an error of SQLite means for the database at `path`."""
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return StoreUnavailable(
                f"{path} is being written by another process and did not become free in time",
                todo="Look for a second instance, a backup or a database browser that keeps it locked.",
            )
        case apsw.FullError():
            return _no_space(path)
        case apsw.IOError() if _is_full(path):
            # Where the file of shared memory beside the log found no room, SQLite speaks of input and output.
            return _no_space(path)
        case apsw.ReadOnlyError() | apsw.PermissionsError():
            return read_only(path)
        case apsw.NotADBError():
            return StoreError(
                f"{path} is not a SQLite database (or is encrypted)", todo="Correct [store] url, or move the file away."
            )
        case apsw.CorruptError() | apsw.FormatError():
            return StoreError(
                f"{path} is damaged: {error}", todo="Restore it from a backup, or remove the file and index again."
            )
        case apsw.CantOpenError() if not os.access(path.parent, os.W_OK):
            return read_only(path)
        case apsw.CantOpenError():
            return StoreError(
                f"{path} cannot be opened: {error}", todo="Check that this user may read and write it and its folder."
            )
        case apsw.IOError():
            return StoreError(
                f"Reading or writing {path} failed: {error}",
                todo="Check the disk. Start again afterwards: everything up to the last commit is kept.",
            )
        case apsw.ConstraintError():
            return StoreError(
                f"A row does not fit the tables of {path}: {error}", todo="Nothing of the batch was kept."
            )
    return StoreError(
        f"SQLite could not do what was asked of {path}: {error}", todo="`gapless doctor` looks for damage."
    )


def _no_space(path: Path) -> DiskFull:
    return DiskFull(f"There is no space left for {path}", todo="Nothing was kept of the batch. Free some space.")


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _SHARED_MEMORY_BYTES
    except OSError:
        return False


def read_only(path: Path) -> ReadOnlyStore:
    """The error for a file or folder this process may not write."""
    return ReadOnlyStore(
        f"{path} cannot be written",
        todo=f"Let this user write the file and its folder: chown or chmod {path.parent}",
    )
