"""The server store: one Postgres database (15 to 18), a schema for the app and one for each version of its tables.

One connection writes, one keeps leases, a pool reads. A commit holds the lease row so that no other process can be
granted the lease before it ends (renewals pass), and is named after its fencing token in `pg_stat_activity`: should a
process freeze in the middle of one, whoever takes the expired lease ends that session instead of waiting for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from gapless.clock import Clock, SystemClock
from gapless.errors import (
    CommitUnknown,
    InvariantViolation,
    MissingExtra,
    ReadOnlyStore,
    StoreError,
    StoreUnavailable,
    check,
)
from gapless.model import Cursor, Fence
from gapless.schema import Schema
from gapless.store.ddl import POSTGRES, quote
from gapless.store.opening import SqlOpening
from gapless.store.select import check_select
from gapless.store.session import Session, lease_lost, legible
from gapless.store.turnstile import Turnstile

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

    from gapless.store.postgres_connection import BoundedConnection, Link, PostgresOptions

T = TypeVar("T")

_OLDEST_VERSION = 150_000
_SETTLE_PAUSE_SECONDS = 0.25
_END_SESSION_MILLISECONDS = 1000


class PostgresStore(SqlOpening):
    """`Store` in a Postgres database."""

    dialect = POSTGRES

    def __init__(self, url: str, clock: Clock | None = None, options: PostgresOptions | None = None) -> None:
        """Raises MissingExtra where psycopg is not installed, ConfigError for a URL that cannot be read."""
        try:
            from gapless.store import postgres_connection, postgres_session
        except ImportError as error:
            raise MissingExtra(
                "The store is a Postgres URL, and the driver for it is not installed",
                todo="Install it: pip install 'gapless[postgres]'",
            ) from error
        self._driver = postgres_connection
        self._sessions = postgres_session
        self.options = options or postgres_connection.PostgresOptions()
        postgres_connection.read_url(url)
        self.url = postgres_connection.without_secrets(url)
        self._full_url = url
        self._clock = clock or SystemClock()
        self._linked: Link | None = None
        self._pool: ConnectionPool[BoundedConnection] | None = None
        self._writer: BoundedConnection | None = None
        self._leaser: BoundedConnection | None = None
        self._write_turn = Turnstile()
        self._lease_turn = Turnstile()
        self._never = threading.Event()
        self._writing_as = ""

    def __repr__(self) -> str:
        return f"<PostgresStore {self.url}>"

    # --- connections ------------------------------------------------------------------------------------------------

    @property
    def _link(self) -> Link:
        if self._linked is None:
            self._linked = self._driver.Link(self._full_url, self._schema.app, self.options)
        return self._linked

    def open(self, schema: Schema, *, create: bool) -> None:
        self._linked = None
        super().open(schema, create=create)

    def _connect(self, *, create: bool) -> bool:
        probe = self._link.connect()
        try:
            with self._link.explained():
                self._check_server(probe, write=create)
                self._check_sessions(probe)
        finally:
            probe.close()
        self._pool = self._link.open_pool()
        return True

    def _check_server(self, connection: BoundedConnection, *, write: bool) -> None:
        session = self._sessions.PostgresSession(connection)
        [(version, shown, encoding, read_only)] = session.run(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
            " current_setting('server_encoding'), current_setting('transaction_read_only') = 'on'"
        )
        if version < _OLDEST_VERSION:
            raise StoreError(f"{self.url} runs Postgres {shown}", todo="Gapless needs Postgres 15 or newer.")
        if encoding != "UTF8":
            raise StoreError(
                f"The database of {self.url} is encoded in {encoding}",
                todo="Create one in UTF8: createdb -E UTF8 <name>",
            )
        if write and read_only:
            raise ReadOnlyStore(
                f"{self.url} is read-only (a standby, or default_transaction_read_only is on)",
                todo="Connect to the primary server.",
            )

    def _check_sessions(self, first: BoundedConnection) -> None:
        """Refuse a pooler that gives each transaction any session: limits set in ours would then hold for others, and
        theirs for us. It is told by two of our connections being answered by one session of the server."""
        announced, answering = self._driver.session_numbers(first)
        if announced == answering:
            return
        second = self._link.connect()
        try:
            shared = self._driver.session_numbers(second)[1] == answering
        finally:
            second.close()
        if shared:
            raise StoreError(
                f"{self.url} is a pooler in transaction mode",
                todo="Connect to the server itself, or give this database pool_mode = session.",
            )

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(timeout=self.options.connect_timeout_seconds)
        for connection in (self._leaser, self._writer):
            if connection is not None:
                connection.close()
        self._leaser = self._writer = None

    # --- the hooks of the shared SQL --------------------------------------------------------------------------------

    def _transact(self, work: Callable[[Session], T], committed: Callable[[Session], bool] | None = None, /) -> T:
        with self._write_turn.hold(self.options.statement_timeout_seconds):
            if self._writer is None or self._writer.closed:
                self._writer = self._link.connect()
            connection = self._writer
            reply_seconds = connection.reply_seconds
            try:
                result = self._run(connection, work)
                self._commit(connection, committed)
            finally:
                connection.reply_seconds = reply_seconds
            return result

    def _lease_transact(self, work: Callable[[Session], T]) -> T:
        with self._lease_turn.hold(self.options.lease_timeout_seconds):
            if self._leaser is None or self._leaser.closed:
                self._leaser = self._link.connect(lease=True)
            result = self._run(self._leaser, work)
            self._commit(self._leaser, None)
            return result

    def _run(self, connection: BoundedConnection, work: Callable[[Session], T]) -> T:
        """Run `work`, leaving the transaction open; where it raises, nothing of it remains."""
        try:
            with self._link.explained():
                return work(self._sessions.PostgresSession(connection))
        except BaseException:
            _roll_back(connection)
            raise

    def _commit(self, connection: BoundedConnection, committed: Callable[[Session], bool] | None) -> None:
        status = connection.info.transaction_status
        check(status.name in ("INTRANS", "IDLE"), f"a transaction is committed from within ({status.name})")
        try:
            with self._link.explained():
                connection.commit()
        except StoreError as error:
            if not connection.closed:
                # The server is there and said no: the transaction is undone.
                _roll_back(connection)
                raise
            if committed is None or not self._settle(committed, error):
                raise StoreUnavailable(
                    f"The connection to {self.url} was lost at COMMIT, and nothing was written",
                    todo="It is tried again.",
                ) from error
        except BaseException:
            connection.close()
            raise

    def _settle(self, committed: Callable[[Session], bool], lost: StoreError) -> bool:
        """Whether the transaction whose COMMIT got no answer took place: asked on a new connection, by waiting for the
        cursor's row, which it holds until it has ended one way or the other."""
        deadline = self._clock.monotonic() + self.options.settle_seconds_max
        while True:
            try:
                with self._settling() as session:
                    return committed(session)
            except StoreUnavailable as error:
                if isinstance(error, self._driver.RowLocked):
                    self._end_lost_session()
                if self._clock.monotonic() >= deadline:
                    raise CommitUnknown(
                        f"The connection to {self.url} was lost at COMMIT ({lost.what}), and whether it took place"
                        f" could not be read for {self.options.settle_seconds_max:g} s",
                        todo="The cursor will be read again before anything is written.",
                    ) from error
            self._clock.wait(self._never, _SETTLE_PAUSE_SECONDS)

    def _end_lost_session(self) -> None:
        """The server may wait for the lost connection to speak again: nobody will."""
        with suppress(StoreUnavailable):
            self._end_sessions(self._writing_as)

    @contextmanager
    def _settling(self) -> Iterator[Session]:
        connection = self._link.connect(lease=True)
        try:
            with self._link.explained():
                yield self._sessions.PostgresSession(connection)
        finally:
            connection.close()

    @contextmanager
    def _borrowed(self) -> Iterator[BoundedConnection]:
        if self._pool is None:
            raise InvariantViolation(f"The database {self.url} is used before open()")
        with self._link.explained(), self._pool.connection() as connection:
            yield connection

    @contextmanager
    def _reading(self, *, together: bool = False) -> Iterator[Session]:
        with legible(self.url), self._borrowed() as connection:
            session = self._sessions.PostgresSession(connection)
            if together:
                with connection.transaction():
                    yield session
            else:
                yield session

    def _now_us(self, session: Session, /) -> int:
        # Not now(): that is when the transaction began, which may have waited for a lock since.
        return int(session.run("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[0][0])

    def _take_time(self, session: Session, /) -> None:
        if isinstance(session, self._sessions.PostgresSession):
            session.limit(self.options.rewind_seconds_max)

    def _check_fence(self, session: Session, fence: Fence) -> None:
        """Locks the lease row against a new grant until the transaction ends, and names the session after the token."""
        self._writing_as = self._session_name(fence.name, fence.token)
        held = session.run(
            f"SELECT set_config('application_name', ?, true) FROM {self._names.leases}"
            ' WHERE "name" = ? AND "holder" = ? AND "token" = ? FOR KEY SHARE',
            *(self._writing_as, fence.name, fence.holder, fence.token),
        )
        if not held:
            raise lease_lost(fence)

    def _session_name(self, lease: str, token: int) -> str:
        return f"gapless {token} {self._schema.app}/{lease}".encode("ascii", "replace")[:63].decode()

    def _end_sessions(self, name: str) -> None:
        """End what a frozen or lost process left in the middle of a commit. Its transaction is undone, or, where its
        COMMIT has arrived, done."""
        with self._reading() as s:
            s.run(
                "SELECT pg_terminate_backend(pid, ?) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = ? AND pid <> pg_backend_pid()",
                *(_END_SESSION_MILLISECONDS, name),
            )

    def _relations(self, s: Session) -> frozenset[str]:
        schemas = (self._schema.app, f"{self._schema.app}_{self._schema.version}")
        rows = s.run(
            "SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN (?, ?) AND c.relkind IN ('r', 'p')",
            *schemas,
        )
        return frozenset(f"{quote(schema)}.{quote(table)}" for schema, table in rows)

    def _prepare_creation(self, s: Session) -> None:
        app = self._schema.app
        s.run("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", f"gapless {app}")
        for schema in (app, f"{app}_{self._schema.version}"):
            # Asked first: IF NOT EXISTS needs the right to create even where there is nothing to do.
            if not s.run("SELECT 1 FROM pg_namespace WHERE nspname = ?", schema):
                s.run(f"CREATE SCHEMA {quote(schema)}")

    # --- what differs in the protocols ------------------------------------------------------------------------------

    def cursor(self, source: str) -> Cursor | None:
        """Locks the row for a moment, so that a commit of a process that has just lost its lease is waited for."""
        try:
            with self._reading() as s:
                return self._read_cursor(s, source, POSTGRES.share_row)
        except (ReadOnlyStore, self._driver.NotPermitted):
            return super().cursor(source)

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> Fence | None:
        try:
            return super().acquire(name, holder, ttl_seconds)
        except self._driver.RowLocked:
            # Free or expired, and yet held by a commit: of a process that froze in the middle of it.
            for lease in self.leases():
                if lease.name == name and not lease.live:
                    self._end_sessions(self._session_name(name, lease.token))
            return super().acquire(name, holder, ttl_seconds)

    def query(self, sql: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        statement = check_select(sql)
        with self._borrowed() as connection, connection.transaction(force_rollback=True):
            # Rolled back: that takes back what a function in the query may have set for the session.
            return self._sessions.run_select(connection, statement, limit)

    def describe(self) -> dict[str, str]:
        settings = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "data_checksums")
        with self._reading() as s:
            shown = [s.run("SELECT current_setting(?)", name)[0][0] for name in settings]
            [(standby, size)] = s.run("SELECT pg_is_in_recovery(), pg_database_size(current_database())")
        facts = dict(zip(settings, map(str, shown), strict=True))
        version = facts.pop("server_version")
        return {
            "server": f"PostgreSQL {version}",
            **facts,
            "standby": "yes" if standby else "no",
            "size_bytes": str(size),
        }


def _roll_back(connection: BoundedConnection) -> None:
    """Undo the open transaction; where that cannot be said any more, the server does it when the connection ends."""
    with suppress(Exception):
        connection.rollback()
    if connection.closed or connection.info.transaction_status.name != "IDLE":
        connection.close()
