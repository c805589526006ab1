"""Connections to Postgres: how they are opened, how long anything may take, what their errors mean.

The only file that needs psycopg. Every wait has two bounds: the server's (statement_timeout, lock_timeout) and, should
the server not be heard of any more, ours (`BoundedConnection.reply_seconds`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit
from urllib.parse import quote as percent

import psycopg
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from gapless.clock import SystemClock
from gapless.errors import ConfigError, DiskFull, ReadOnlyStore, StoreError, StoreUnavailable
from gapless.store.ddl import quote

R = TypeVar("R")

_REST_SECONDS = 0.5
_CLOCK = SystemClock()
"""Connections age in real time, as the server's do, whatever clock the store lives by."""
_SECRET_PARAMETERS = frozenset({"password", "sslpassword", "passfile"})


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """Limits of the connections to Postgres."""

    connections_max: int = 20
    """Of the pool that reads use; writing and leases have one connection each besides."""
    idle_seconds_max: float = 30.0
    """After which an unused connection of the pool is closed."""
    connect_timeout_seconds: float = 5.0
    """For a new connection, and for a free one of the pool."""
    statement_timeout_seconds: float = 30.0
    reply_margin_seconds: float = 5.0
    """How much later than the server we give up a statement that is not answered."""
    lock_timeout_seconds: float = 10.0
    """For a row or table that another transaction has locked."""
    idle_in_transaction_seconds_max: float = 15.0
    """After which the server ends a transaction whose client is silent: frozen processes keep nobody out for long."""
    lease_timeout_seconds: float = 4.0
    """For statements on leases; half of it for their locks."""
    settle_seconds_max: float = 30.0
    """How long to try to learn the outcome of a commit whose connection was lost."""
    rewind_seconds_max: float = 3600.0
    """For an operator's rewind, which may delete most of the tables."""


class RowLocked(StoreUnavailable):
    """Another transaction kept a lock for longer than the lock timeout."""


class NotPermitted(StoreError):
    """The role lacks a privilege."""


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection on which no single wait for the server lasts longer than `reply_seconds`."""

    reply_seconds: float = 60.0
    last_used: float = 0.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        self.last_used = _CLOCK.monotonic()
        try:
            return super().wait(gen, interval, self.reply_seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            # Given up in the middle of an answer: nothing more can be said on this connection.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def session_numbers(connection: BoundedConnection) -> tuple[int, int]:
    """The server process announced at login, and the one that answers; a pooler announces a number of its own."""
    connection.rollback()
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    connection.rollback()
    return connection.info.backend_pid, row[0] if row else 0


class _ExactNumber(Loader):
    """NUMERIC as int where it is whole: uint256 columns and sums over them."""

    def load(self, data: Any) -> int | Decimal:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else Decimal(text)


class Link:
    """One Postgres database: opens connections to it and explains what goes wrong."""

    def __init__(self, url: str, app: str, options: PostgresOptions) -> None:
        parameters = read_url(url)
        self.url = without_secrets(url)
        self._app = app
        self._options = options
        self._secrets = [str(v) for k, v in parameters.items() if k in _SECRET_PARAMETERS and v]
        defaults: dict[str, str | int] = {
            "connect_timeout": max(2, round(options.connect_timeout_seconds)),
            "application_name": "gapless",
            "client_encoding": "UTF8",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        self._parameters: dict[str, Any] = {**defaults, **parameters}
        self._lost_at = 0.0

    def connect(self, *, lease: bool = False) -> BoundedConnection:
        """A connection of its own, outside the pool."""
        with self.explained():
            connection = BoundedConnection.connect(**self._parameters)
            try:
                if lease:
                    seconds = self._options.lease_timeout_seconds
                    self._set_limits(connection, seconds, seconds / 2)
                else:
                    options = self._options
                    self._set_limits(connection, options.statement_timeout_seconds, options.lock_timeout_seconds)
            except BaseException:
                connection.close()
                raise
        return connection

    def open_pool(self) -> ConnectionPool[BoundedConnection]:
        pool = ConnectionPool(
            kwargs=self._parameters,
            connection_class=BoundedConnection,
            configure=self._configure_reader,
            check=self._check,
            min_size=0,
            max_size=self._options.connections_max,
            max_idle=self._options.idle_seconds_max,
            timeout=self._options.connect_timeout_seconds,
            # By default the pool tries for minutes with growing pauses, and would sleep on after the server is back.
            reconnect_timeout=self._options.connect_timeout_seconds,
            num_workers=1,
            name=f"gapless {self._app}",
            open=False,
        )
        pool.open()
        return pool

    def _check(self, connection: BoundedConnection) -> None:
        """Ask a connection that was not used for a while, or since another one was lost, whether it is still one: what
        ends one of them (a restart, a failover) mostly ends all, and each would be a failure of its own. Nothing is
        asked that could take long, so that half-open ones are not waited for as a statement is, one after the other."""
        if connection.last_used >= max(self._lost_at, _CLOCK.monotonic() - _REST_SECONDS):
            return
        patience_seconds = connection.reply_seconds
        connection.reply_seconds = self._options.connect_timeout_seconds / 2
        try:
            ConnectionPool.check_connection(connection)
        finally:
            connection.reply_seconds = patience_seconds

    def _configure_reader(self, connection: BoundedConnection) -> None:
        self._set_limits(connection, self._options.statement_timeout_seconds, self._options.lock_timeout_seconds)
        connection.adapters.register_loader("numeric", _ExactNumber)
        connection.autocommit = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True

    def _set_limits(self, connection: BoundedConnection, statement_seconds: float, lock_seconds: float) -> None:
        connection.reply_seconds = statement_seconds + self._options.reply_margin_seconds
        settings = {
            "search_path": quote(self._app),
            "statement_timeout": milliseconds(statement_seconds),
            "lock_timeout": milliseconds(lock_seconds),
            "idle_in_transaction_session_timeout": milliseconds(self._options.idle_in_transaction_seconds_max),
            "client_min_messages": "warning",
            "TimeZone": "UTC",
        }
        calls = ", ".join("set_config(%s, %s, false)" for _ in settings)
        connection.autocommit = True
        connection.execute(f"SELECT {calls}".encode(), [part for item in settings.items() for part in item])
        # A role may have it switched off; a commit that returned must be on disk.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.autocommit = False

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Errors of Postgres as ours: what, where, what to do."""
        try:
            yield
        except PoolTimeout as error:
            raise StoreUnavailable(
                f"No connection to {self.url} was free within {self._options.connect_timeout_seconds:g} s",
                todo="Check that the server is up and accepts connections.",
            ) from error
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError):
                self._lost_at = _CLOCK.monotonic()
            raise self.in_words(error) from error

    def in_words(self, error: psycopg.Error) -> StoreError:
        text = str(error).strip().split("\n")[0] or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        lost = "08006" if isinstance(error, psycopg.OperationalError) else ""
        state = error.sqlstate or _state_of_refusal(str(error)) or lost
        for prefix, (kind, what, todo) in _MEANINGS.items():
            if state.startswith(prefix):
                return kind(f"{what.format(url=self.url)}: {text}", todo=todo)
        return StoreError(f"{self.url} could not do what was asked: {text}")


_LATER = "It is tried again; check the server if this goes on."
_MEANINGS: dict[str, tuple[type[StoreError], str, str]] = {
    "53100": (DiskFull, "The disk of {url} is full", "Nothing was kept of the batch. Free some space on the server."),
    "25006": (ReadOnlyStore, "{url} refuses writes", "Connect to the primary server, with a role that may write."),
    "28": (StoreError, "{url} refuses the login", "Check user and password in [store] url, and pg_hba.conf."),
    "3D000": (StoreError, "The database of {url} does not exist", "Create it: createdb <name>"),
    "42501": (
        NotPermitted,
        "The role may not do this in {url}",
        "Grant it: GRANT CREATE ON DATABASE …, or make it the owner of the app's schemas.",
    ),
    "55P03": (RowLocked, "{url}: another transaction keeps a lock", _LATER),
    "57014": (
        StoreUnavailable,
        "{url}: a statement took longer than its limit",
        "Raise the statement timeout, or ask for less.",
    ),
    "40": (StoreUnavailable, "{url} undid the transaction", _LATER),
    "08": (StoreUnavailable, "{url} cannot be reached", _LATER),
    "57P": (StoreUnavailable, "{url} is shutting down or starting", _LATER),
    "25P": (StoreUnavailable, "{url} ended an idle transaction", _LATER),
    "53": (StoreUnavailable, "{url} is out of resources", _LATER),
    "XX001": (StoreError, "{url} reports damaged data", "Restore it from a backup, or index again."),
    "XX002": (StoreError, "{url} reports a damaged index", "REINDEX it, and look for bad memory or disks."),
    "58": (StoreError, "The server of {url} cannot read or write its files", "Look at the server's log."),
    "23": (StoreError, "A row does not fit the tables of {url}", "Nothing of the batch was kept."),
    "22": (StoreError, "A value does not fit its column in {url}", "Nothing of the batch was kept."),
}
"""By SQLSTATE or the beginning of it; the first that fits."""


def _state_of_refusal(text: str) -> str | None:
    """libpq does not pass on the SQLSTATE of a refused connection: it is told by the (English) message, and a message
    that is not known counts as not reachable."""
    for words, state in {
        "authentication failed": "28P01",
        "no password supplied": "28P01",
        "pg_hba.conf": "28000",
        "not permitted to log in": "28000",
    }.items():
        if words in text:
            return state
    if "does not exist" in text:
        return "3D000" if 'database "' in text else "28000" if 'role "' in text else None
    return None


def read_url(url: str) -> dict[str, Any]:
    """The parameters in a URL. Raises ConfigError without quoting it: what cannot be read may be a password."""
    if _is_legible(url):
        with suppress(psycopg.Error):
            return dict(conninfo_to_dict(url))
    raise ConfigError(
        "The Postgres URL in [store] url cannot be read",
        todo="Write postgresql://user:password@host:port/database; percent-encode @ : / ? # in the password.",
    )


def _is_legible(url: str) -> bool:
    """An @ that does not end the login belongs to the password, and then so does something taken for the host."""
    return url.startswith(("postgres://", "postgresql://")) and url.count("@") == urlsplit(url).netloc.count("@") <= 1


def without_secrets(url: str) -> str:
    """The URL as it may be shown: no password, wherever it was given."""
    if not _is_legible(url):
        return "postgresql://…"
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    shown = urlencode([(k, v) for k, v in parse_qsl(parts.query) if k not in _SECRET_PARAMETERS])
    login = percent(user.split(":", 1)[0], safe="%") + at
    return f"postgresql://{login}{hosts}{parts.path}" + (f"?{shown}" if shown else "")


def milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
