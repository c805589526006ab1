"""SQL over the memory store: its tables, copied into a SQLite database that lives for one query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gapless.clock import Clock
from gapless.model import StateChange
from gapless.schema import Nature, Rows, Schema
from gapless.store import ReadStore
from gapless.store.ddl import SQLITE, Names, create_app_tables, create_version_tables, create_views
from gapless.store.sqlite_connection import SqliteSession, open_connection, run_select

_EVERYWHERE = (-(2**63), 2**63 - 1)
_QUERY_SECONDS_MAX = 30.0


def query_memory(
    store: ReadStore, schema: Schema, sql: str, limit: int, clock: Clock
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one read-only statement over a copy of the app's tables; the product's own tables are there, but empty."""
    connection = open_connection(Path(":memory:"), 0.0, create=True)
    try:
        names, session = Names(SQLITE, schema), SqliteSession(connection)
        for statement in create_app_tables(names) + create_version_tables(names) + create_views(names):
            session.run(statement)
        for table in schema.tables:
            if table.nature is Nature.FACT:
                columns, positions = store.facts(table, *_EVERYWHERE)
                session.insert(names.versioned(table), Rows(table, tuple(columns), (len(positions),)))
            else:
                rows = [
                    StateChange(table.name, tuple(r.values[i] for i in table.key_indexes), r.values, r.position)
                    for r in store.state_rows(table)
                ]
                session.upsert(names.versioned(table), table, rows)
        return run_select(connection, sql, limit, _QUERY_SECONDS_MAX, clock)
    finally:
        connection.close()
