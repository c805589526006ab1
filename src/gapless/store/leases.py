"""Leadership as a row with a fencing token, in SQL. Times are the database's own.

The token grows with every grant and is never set back: not by release, not by expiry. A process that was frozen and
thawed finds another token in the row, whatever its own clock says.
"""

from __future__ import annotations

from gapless.errors import check
from gapless.model import Fence, LeaseRow
from gapless.schema import timestamp_text
from gapless.store.ddl import LEASES
from gapless.store.reads import SqlReads
from gapless.store.session import Session, micros


class SqlLeases(SqlReads):
    """LeaseStore."""

    def acquire(self, name: str, holder: str, ttl_seconds: float) -> Fence | None:
        check(holder, "a lease is held by somebody")
        # A standby asks again and again: it looks first, so that it does not queue for the row's lock each time.
        if any(lease.name == name and lease.live for lease in self.leases()):
            return None
        return self._lease_transact(lambda s: self._grant(s, name, holder, ttl_seconds))

    def _grant(self, s: Session, name: str, holder: str, ttl_seconds: float) -> Fence | None:
        # No conflict target: with one, Postgres checks only its index for rows under way, and two who create the row at
        # once can wait for each other at the table's other one.
        s.run(
            f'INSERT INTO {self._names.leases} ("name", "holder", "token", "expires") VALUES (?, ?, 0, ?)'
            " ON CONFLICT DO NOTHING",
            *(name, "", timestamp_text(0)),
        )
        expires = self._names.text_of(LEASES, "expires")
        [(leader, token, until)] = s.run(
            f'SELECT "holder", "token", {expires} FROM {self._names.leases} WHERE "name" = ?{self.dialect.lock_row}',
            name,
        )
        now_us = self._now_us(s)
        if leader and micros(until) > now_us:
            return None
        s.run(
            f'UPDATE {self._names.leases} SET "holder" = ?, "token" = ?, "expires" = ? WHERE "name" = ?',
            *(holder, token + 1, _later(now_us, ttl_seconds), name),
        )
        return Fence(name, holder, token + 1)

    def renew(self, fence: Fence, ttl_seconds: float) -> bool:
        def work(s: Session) -> bool:
            expires = _later(self._now_us(s), ttl_seconds)
            return self._update_lease(s, fence, fence.holder, expires)

        return self._lease_transact(work)

    def release(self, fence: Fence) -> None:
        self._lease_transact(lambda s: self._update_lease(s, fence, "", timestamp_text(self._now_us(s))))

    def _update_lease(self, s: Session, fence: Fence, holder: str, expires: str) -> bool:
        ours = s.run(
            f'UPDATE {self._names.leases} SET "holder" = ?, "expires" = ?'
            ' WHERE "name" = ? AND "holder" = ? AND "token" = ? RETURNING "token"',
            *(holder, expires, fence.name, fence.holder, fence.token),
        )
        return bool(ours)

    def leases(self) -> list[LeaseRow]:
        expires = self._names.text_of(LEASES, "expires")
        with self._reading() as s:
            rows = s.run(f'SELECT "name", "holder", "token", {expires} FROM {self._names.leases} ORDER BY "name"')
            now_us = self._now_us(s)
            return [LeaseRow(r[0], r[1], r[2], (micros(r[3]) - now_us) / 1e6) for r in rows]


def _later(now_us: int, seconds: float) -> str:
    return timestamp_text(now_us + round(seconds * 1e6))
