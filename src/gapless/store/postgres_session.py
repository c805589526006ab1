"""A transaction on Postgres: COPY for facts, a temporary table for state, a cursor for a user's query."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import psycopg

from gapless.errors import StoreError, check
from gapless.model import StateChange
from gapless.schema import Column, Kind, Nature, Rows, Table
from gapless.store.ddl import POSTGRES, quote
from gapless.store.postgres_connection import BoundedConnection, milliseconds
from gapless.store.select import refused
from gapless.store.session import Value

_STAGE_NAME = '"pg_temp".{}'


class PostgresSession:
    """`Session` on a connection; psycopg begins the transaction with the first statement."""

    def __init__(self, connection: BoundedConnection) -> None:
        self.connection = connection

    def run(self, sql: str, *values: Value) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(_with_placeholders(sql), values or None)
        return cursor.fetchall() if cursor.description else []

    def stream(self, sql: str, rows_at_once: int) -> Iterator[list[tuple[Any, ...]]]:
        with self.connection.cursor("gapless_stream") as cursor:
            cursor.execute(_with_placeholders(sql))
            while rows := cursor.fetchmany(rows_at_once):
                yield rows

    def insert(self, relation: str, rows: Rows) -> None:
        self._copy(relation, rows)

    def upsert(self, relation: str, table: Table, changes: Sequence[StateChange]) -> None:
        """Through a temporary table, which COPY fills: one statement for all rows, whatever their number."""
        stage, create = _stage(table)
        self.run(create)
        rows = [_staged(table, change) for change in changes]
        self._copy(_STAGE_NAME.format(stage.name), Rows(stage, tuple(zip(*rows, strict=True)), (len(rows),)))
        for statement in _from_stage(relation, table):
            self.run(statement)

    def limit(self, seconds: float) -> None:
        """Let the statements of this transaction take so long."""
        self.run("SELECT set_config('statement_timeout', ?, true)", milliseconds(seconds))
        self.connection.reply_seconds += seconds

    def _copy(self, relation: str, rows: Rows) -> None:
        columns = ", ".join(quote(c.name) for c in rows.table.columns)
        cursor = self.connection.cursor()
        with cursor.copy(f"COPY {relation} ({columns}) FROM STDIN".encode()) as copy:
            copy.write(rows.text)
        check(cursor.rowcount == len(rows), f"COPY into {relation} took {cursor.rowcount} of {len(rows)} rows")


def run_select(connection: BoundedConnection, sql: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one query in a read-only transaction, as a cursor: Postgres takes nothing else for one."""
    try:
        with connection.cursor("gapless_query") as cursor:
            cursor.execute(sql.encode())
            rows = cursor.fetchmany(limit)
            return [column.name for column in cursor.description or ()], rows
    except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.FeatureNotSupported) as error:
        raise refused("it would write") from error
    except psycopg.errors.QueryCanceled as error:
        raise StoreError("The query took too long and was stopped", todo="Ask for fewer rows.") from error
    except psycopg.ProgrammingError as error:
        text = str(error).split("\n")[0]
        if "multiple commands" in text:
            raise refused("there is more than one") from error
        raise StoreError(f"The query cannot be run: {text}", todo="Correct the statement.") from error


@lru_cache(maxsize=512)
def _with_placeholders(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()


@lru_cache(maxsize=256)
def _stage(table: Table) -> tuple[Table, str]:
    """The temporary table that state changes pass through, and how it is made. It stays for the session, emptied by
    every commit: making one a commit would fill the catalogue with dead rows."""
    columns = tuple(Column(c.name, c.kind, nullable=True) for c in table.columns)
    columns += (Column("_position", Kind.INT), Column("_gone", Kind.BOOL))
    name = "gapless_stage_" + hashlib.sha256(table.name.encode()).hexdigest()[:16]
    lines = ", ".join(f"{quote(c.name)} {POSTGRES.types[c.kind]}" for c in columns)
    create = f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({lines}) ON COMMIT DELETE ROWS"
    return Table(name, "", Nature.STATE, columns, table.key), create


def _staged(table: Table, change: StateChange) -> tuple[str | None, ...]:
    if change.values is not None:
        return (*change.values, str(change.position), "0")
    key = dict(zip(table.key, change.key, strict=True))
    return (*(key.get(c.name) for c in table.columns), str(change.position), "1")


@lru_cache(maxsize=256)
def _from_stage(relation: str, table: Table) -> tuple[str, str]:
    stage = _STAGE_NAME.format(_stage(table)[0].name)
    names = [c.name for c in table.columns] + ["_position"]
    columns = ", ".join(map(quote, names))
    changed = ", ".join(f"{quote(c)} = excluded.{quote(c)}" for c in names if c not in table.key)
    key = ", ".join(map(quote, table.key))
    same = " AND ".join(f"t.{quote(k)} = s.{quote(k)}" for k in table.key)
    # In key order, so that two writers could never lock rows crosswise.
    put = (
        f"INSERT INTO {relation} ({columns}) SELECT {columns} FROM {stage} WHERE NOT _gone ORDER BY {key}"
        f" ON CONFLICT ({key}) DO UPDATE SET {changed}"
    )
    return put, f"DELETE FROM {relation} AS t USING {stage} AS s WHERE s._gone AND {same}"
