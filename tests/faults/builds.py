"""Deliberately broken builds, each with a promise removed: `python -m faults.builds NAME` runs the command line of one.

They show that the suites beside them see what they are for. None of them is ever imported by the package.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gapless.errors import StoreError
from gapless.store.session import Session

BUILDS: dict[str, Callable[[], None]] = {}


def build(work: Callable[[], None]) -> Callable[[], None]:
    BUILDS[work.__name__.replace("_", "-")] = work
    return work


@build
def cursor_before_rows() -> None:
    """The cursor moves in a transaction of its own, and the rows come after."""
    from gapless.store.entries import SqlEntries

    write_facts, commit = SqlEntries._write_facts, SqlEntries.commit

    def late(self: Any, batch: Any, expected: Any, fence: Any) -> None:
        SqlEntries._write_facts = lambda *_: None  # type: ignore[method-assign]
        commit(self, batch, expected, fence)
        time.sleep(0.05)
        self._transact(lambda s: write_facts(self, s, batch))

    SqlEntries.commit = late  # type: ignore[method-assign]


@build
def lost_reply_is_failure() -> None:
    """A commit whose answer was lost counts as not done, and is written again without compare-and-set."""
    from gapless.errors import StoreUnavailable
    from gapless.store.entries import SqlEntries
    from gapless.store.postgres import PostgresStore

    PostgresStore._settle = lambda *_: False  # type: ignore[method-assign]
    SqlEntries._check_cursor = lambda *_: None  # type: ignore[method-assign]
    commit = SqlEntries.commit

    def again(self: Any, batch: Any, expected: Any, fence: Any) -> None:
        try:
            commit(self, batch, expected, fence)
        except StoreUnavailable:
            commit(self, batch, expected, fence)

    SqlEntries.commit = again  # type: ignore[method-assign]


@build
def lost_reply_is_success() -> None:
    """A commit whose answer was lost counts as done, whatever became of it."""
    from gapless.store import entries
    from gapless.store.postgres import PostgresStore

    PostgresStore._settle = lambda *_: True  # type: ignore[method-assign]
    entries.SqlEntries._check_cursor = lambda *_: None  # type: ignore[method-assign]


@build
def no_fence() -> None:
    """Whoever led once writes for ever: no token, no cursor compared, no trust that ends."""
    from gapless.engine.lease import LeaseKeeper
    from gapless.store.entries import SqlEntries
    from gapless.store.postgres import PostgresStore

    def unchecked(self: Any, session: Session, fence: Any) -> None:
        self._writing_as = self._session_name(fence.name, fence.token)

    PostgresStore._check_fence = unchecked  # type: ignore[method-assign]
    SqlEntries._check_cursor = lambda *_: None  # type: ignore[method-assign]
    LeaseKeeper.fence = property(lambda self: self._fence)  # type: ignore[method-assign, assignment]
    LeaseKeeper.require = lambda self: self._fence  # type: ignore[method-assign, return-value]
    LeaseKeeper.refused = lambda *_: None  # type: ignore[method-assign]
    kept = LeaseKeeper._set

    def never_lost(self: Any, fence: Any, trusted_until: float) -> None:
        if fence is not None:
            kept(self, fence, trusted_until)

    LeaseKeeper._set = never_lost  # type: ignore[method-assign]


@build
def full_disk_is_fine() -> None:
    """A batch that found no room counts as written."""
    from gapless.errors import DiskFull
    from gapless.store.entries import SqlEntries

    commit = SqlEntries.commit

    def careless(self: Any, batch: Any, expected: Any, fence: Any) -> None:
        with suppress(DiskFull):
            commit(self, batch, expected, fence)

    SqlEntries.commit = careless  # type: ignore[method-assign]
    SqlEntries._check_cursor = lambda *_: None  # type: ignore[method-assign]


@build
def slow_standby() -> None:
    """A standby that asks for the lease only now and then."""
    from gapless.engine import lease

    lease._RENEWALS_PER_LEASE = 0.15  # type: ignore[assignment]


@build
def waits_for_ever() -> None:
    """No wait for Postgres or for a node ends by itself."""
    from gapless.sources.evm import rpc
    from gapless.store.postgres_connection import BoundedConnection

    BoundedConnection.wait = lambda self, gen, *_a, **_k: super(BoundedConnection, self).wait(gen)  # type: ignore[method-assign]
    _ = rpc


@build
def always_ready() -> None:
    """Health that never says no."""
    from gapless.telemetry.health import Health, Verdict

    Health.ready = lambda self: Verdict(True, {}, {})  # type: ignore[method-assign]


@build
def leaks() -> None:
    """Every commit leaves 200 kB behind."""
    from gapless.store.entries import SqlEntries

    commit, kept = SqlEntries.commit, []

    def hoarding(self: Any, batch: Any, expected: Any, fence: Any) -> None:
        kept.append(bytearray(b"x" * 200_000))
        commit(self, batch, expected, fence)

    SqlEntries.commit = hoarding  # type: ignore[method-assign]


def main() -> int:
    from gapless.cli.endings import run_to_exit

    name, *arguments = sys.argv[1:]
    BUILDS[name]()
    _ = StoreError
    return run_to_exit(arguments, None)


if __name__ == "__main__":
    sys.exit(main())
