"""The embedded store: one SQLite file, written ahead (WAL) and synced at every commit.

One connection writes and makes all checkpoints, under a lock that hands over in turn; so the lease is renewed between
two commits however quickly they follow. Reads have connections of their own, which cannot write, and see the last
commit. Leases have theirs, without a sync: a lease row that a power cut takes back was held by a process the cut ended
too, and any commit made under it has synced it along.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw

from gapless.clock import Clock, SystemClock
from gapless.errors import StoreError
from gapless.model import Fence
from gapless.store.ddl import SQLITE
from gapless.store.opening import SqlOpening
from gapless.store.select import check_select
from gapless.store.session import Session, lease_lost, legible
from gapless.store.sqlite_connection import (
    SqliteSession,
    create_file,
    in_words,
    open_connection,
    read_only,
    run_select,
    transaction,
)
from gapless.store.turnstile import Turnstile

T = TypeVar("T")

_PAUSE_SECONDS = 0.02
SAFE_VERSION = (3, 51, 3)
"""Older ones can corrupt a file when two connections make checkpoints; here only one ever does."""


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """Limits of the embedded store."""

    busy_timeout_seconds: float = 10.0
    """How long to wait for another process (or thread) that is writing."""
    query_timeout_seconds: float = 30.0
    """How long a user's query may run."""
    cache_bytes: int = 32 * 1024 * 1024
    page_bytes: int = 8192
    """Of a new file. Larger pages than SQLite's 4096 take 15 % more rows a second."""
    checkpoint_pages: int = 2000
    """Write-ahead pages after which a commit also makes a checkpoint."""
    size_bytes_max: int | None = None
    """The file never grows beyond this: commits raise DiskFull instead."""
    check_pages: bool = False
    """Look for damage when opening, indexes against tables included: reads the whole file."""


class SqliteStore(SqlOpening):
    """`Store` in one SQLite file."""

    dialect = SQLITE

    def __init__(self, path: str | Path, clock: Clock | None = None, options: SqliteOptions | None = None) -> None:
        self.path = Path(path)
        self.url = f"sqlite:///{self.path}"
        self.options = options or SqliteOptions()
        self._clock = clock or SystemClock()
        self._turn = Turnstile()
        self._writer: apsw.Connection | None = None
        self._leaser: apsw.Connection | None = None
        self._idle: list[apsw.Connection] = []
        self._idle_lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<SqliteStore {self.url}>"

    # --- connections ------------------------------------------------------------------------------------------------

    def _connect(self, *, create: bool) -> bool:
        self._closed = False
        folder = self.path.parent
        if not folder.is_dir():
            raise StoreError(f"The folder {folder} of {self.url} does not exist", todo=f"Create it: mkdir -p {folder}")
        if self.path.is_dir():
            raise StoreError(f"{self.path} is a folder, not a database file", todo="Correct [store] url.")
        with self._explained():
            if not create and (not self.path.exists() or self.path.stat().st_size == 0):
                return False
            if create:
                create_file(self.path)
                self._open_writer()
            if self.options.check_pages:
                self._check_pages()
        return True

    def _open_writer(self) -> apsw.Connection:
        if self._writer is None:
            connection = open_connection(self.path, self.options.busy_timeout_seconds, create=True)
            try:
                self._make_durable(connection)
            except BaseException:
                connection.close()
                raise
            self._writer = connection
        return self._writer

    def _make_durable(self, connection: apsw.Connection) -> None:
        """Write-ahead log, synced at every commit; read back, since SQLite does not report what it declines."""
        if connection.readonly("main"):
            raise read_only(self.path)
        options = self.options
        if not connection.pragma("page_count"):
            connection.pragma("page_size", options.page_bytes)
        mode = self._switch_to_wal(connection)
        connection.pragma("synchronous", "FULL")
        level = connection.pragma("synchronous")
        if (mode, level) != ("wal", 2):
            raise StoreError(
                f"{self.url} cannot be made durable: journal_mode is {mode!r} and synchronous is {level!r}",
                todo="Put the file on a local disk; network folders do not support the write-ahead log.",
            )
        connection.pragma("cache_size", -options.cache_bytes // 1024)
        connection.pragma("journal_size_limit", 64 * 1024 * 1024)
        connection.wal_autocheckpoint(options.checkpoint_pages)
        if options.size_bytes_max is not None:
            connection.pragma("max_page_count", options.size_bytes_max // connection.pragma("page_size"))
        # Asks for the write lock, so that a folder that cannot be written is noticed now.
        with transaction(connection):
            pass

    def _switch_to_wal(self, connection: apsw.Connection) -> str:
        """SQLite does not wait by itself for another process that is doing the same; nor does that process live by
        our clock."""
        clock, never = SystemClock(), threading.Event()
        deadline = clock.monotonic() + self.options.busy_timeout_seconds
        while True:
            try:
                return str(connection.pragma("journal_mode", "wal"))
            except apsw.BusyError:
                if clock.monotonic() >= deadline:
                    raise
            clock.wait(never, _PAUSE_SECONDS)

    def _open_leaser(self) -> apsw.Connection:
        if self._leaser is None:
            self._leaser = open_connection(self.path, self.options.busy_timeout_seconds)
            self._leaser.pragma("synchronous", "NORMAL")
            self._leaser.wal_autocheckpoint(0)
        return self._leaser

    def _check_pages(self) -> None:
        with self._reading() as s:
            found = [str(row[0]) for row in s.run("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise StoreError(
                f"{self.path} is damaged: {'; '.join(found)}",
                todo="Restore it from a backup, or remove the file and index again.",
            )

    def close(self) -> None:
        """Readers first: the last connection to close moves the log into the file, and that is the writing one."""
        with self._idle_lock:
            readers, self._idle, self._closed = self._idle, [], True
        for connection in (*readers, self._leaser, self._writer):
            if connection is not None:
                connection.close()
        self._leaser = self._writer = None

    # --- the hooks of the shared SQL --------------------------------------------------------------------------------

    def _transact(self, work: Callable[[Session], T], _committed: Callable[[Session], bool] | None = None, /) -> T:
        """There is nothing to settle afterwards: COMMIT either returns or raises."""
        with self._explained(), self._turn.hold(self.options.busy_timeout_seconds):
            connection = self._open_writer()
            with transaction(connection):
                return work(SqliteSession(connection))

    def _lease_transact(self, work: Callable[[Session], T]) -> T:
        with self._explained(), self._turn.hold(self.options.busy_timeout_seconds):
            connection = self._open_leaser()
            with transaction(connection):
                return work(SqliteSession(connection))

    @contextmanager
    def _reading(self, *, together: bool = True) -> Iterator[Session]:  # noqa: ARG002 - always together, at no cost
        with self._explained(), legible(self.url):
            with self._idle_lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = open_connection(self.path, self.options.busy_timeout_seconds, write=False)
            try:
                with transaction(connection, "BEGIN"):
                    yield SqliteSession(connection)
            except BaseException:
                connection.close()
                raise
            with self._idle_lock:
                if not self._closed:
                    self._idle.append(connection)
                    return
            connection.close()

    def _now_us(self, _session: Session, /) -> int:
        return self._clock.now_us()

    def _check_fence(self, session: Session, fence: Fence) -> None:
        held = session.run(
            f'SELECT 1 FROM {self._names.leases} WHERE "name" = ? AND "holder" = ? AND "token" = ?',
            *(fence.name, fence.holder, fence.token),
        )
        if not held:
            raise lease_lost(fence)

    def _relations(self, s: Session) -> frozenset[str]:
        rows = s.run("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return frozenset('"' + str(name).replace('"', '""') + '"' for (name,) in rows)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of SQLite in words: which file, and what to do."""
        try:
            yield
        except apsw.Error as error:
            raise in_words(error, self.path) from error

    # --- for people -------------------------------------------------------------------------------------------------

    def query(self, sql: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        statement = check_select(sql)
        with self._explained(), legible(self.url):
            connection = open_connection(self.path, self.options.busy_timeout_seconds, write=False)
            try:
                return run_select(connection, statement, limit, self.options.query_timeout_seconds, self._clock)
            finally:
                connection.close()

    def describe(self) -> dict[str, str]:
        with self._explained():
            with self._reading() as s:
                facts = {
                    name: str(s.run(f"PRAGMA {name}")[0][0]) for name in ("journal_mode", "page_size", "page_count")
                }
            with self._turn.hold(self.options.busy_timeout_seconds):
                synchronous = None if self._writer is None else self._writer.pragma("synchronous")
        version = apsw.sqlite_lib_version()
        safe = tuple(int(part) for part in version.split(".")) >= SAFE_VERSION
        return {
            "server": f"SQLite {version}",
            "wal_reset_bug": "not affected" if safe else "affected, mitigated: one connection makes all checkpoints",
            "path": str(self.path),
            "journal_mode": facts["journal_mode"],
            "synchronous": {None: "not opened for writing", 2: "full"}.get(synchronous, str(synchronous)),
            "size_bytes": str(int(facts["page_size"]) * int(facts["page_count"])),
        }
