"""The tables of a database: names, types and CREATE statements for SQLite and Postgres, from one `Schema`.

The app's tables and those of the product that belong to one generation of them live in a version (`erc20_v1` on
Postgres, `v1_…` on SQLite); readers use views over the live version. What belongs to the whole app (meta, versions,
leases, flags) is not versioned. The product's own tables are declared with the same `Table` values as the app's, so
they are created, filled and read by the same code; docs/reference/tables.md explains every column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gapless.errors import ConfigError
from gapless.schema import Column, Kind, Nature, Schema, Table

_T, _I, _B, _S = Kind.TEXT, Kind.INT, Kind.BOOL, Kind.TIMESTAMP
_UNREADABLE_KEYS = frozenset({Kind.JSON})


def _product(name: str, key: str, *columns: tuple[str, Kind] | tuple[str, Kind, bool]) -> Table:
    return Table(name, "", Nature.FACT, tuple(Column(*c) for c in columns), tuple(key.split()))


META = _product("gapless_meta", "name", ("name", _T), ("value", _T))
VERSIONS = _product(
    "gapless_versions",
    "version",
    ("version", _T),
    ("state", _T),
    ("definition", _T),
    ("fingerprint", _T),
    ("created", _S),
)
LEASES = _product("gapless_leases", "name", ("name", _T), ("holder", _T), ("token", _I), ("expires", _S))
FLAGS = _product("gapless_flags", "name", ("name", _T), ("value", _T), ("updated", _S))
CURSORS = _product(
    "gapless_cursors",
    "source",
    ("source", _T),
    ("kind", _T, True),
    ("chain", _T, True),
    ("genesis", _T, True),
    ("start", _I, True),
    ("position", _I, True),
    ("id", _T, True),
    ("head", _I, True),
    ("head_time", _S, True),
    ("finalized", _I, True),
    ("mode", _T),
    ("reason", _T, True),
    ("updated", _S),
    ("reorgs", _I),
    ("reorg_deepest", _I),
    ("undo_floor", _I, True),
    ("revision", _I),
    ("token", _I),
)
ENTRIES = _product(
    "gapless_entries",
    "source position",
    ("source", _T),
    ("position", _I),
    ("id", _T),
    ("parent_id", _T),
    ("time", _S),
    ("evidence", _T),
    ("rows", _I),
    ("digest", _T),
    ("served_by", _T),
    ("audited", _B),
)
UNDO = _product(
    "gapless_undo",
    "source position table_name key",
    ("source", _T),
    ("position", _I),
    ("table_name", _T),
    ("key", _T),
    ("previous", _T, True),
    ("previous_position", _I, True),
)
QUARANTINE = _product(
    "gapless_quarantine",
    "source",
    ("source", _T),
    ("position", _I),
    ("item", _T),
    ("consumer", _T),
    ("reason", _T),
    ("payload", _T),
    ("created", _S),
    ("attempts", _I),
)
GAPS = _product(
    "gapless_gaps",
    "source first last",
    ("source", _T),
    ("first", _I),
    ("last", _I),
    ("reason", _T),
    ("since", _S),
    ("attempts", _I),
)

APP_TABLES = (META, VERSIONS, LEASES, FLAGS)
"""One set for the whole app."""
VERSION_TABLES = (CURSORS, ENTRIES, UNDO, QUARANTINE, GAPS)
"""One set for each version of the app's tables."""


@dataclass(frozen=True)
class Dialect:
    """What differs between the SQL databases."""

    name: str
    versioned: str
    """Quoted name of a relation in a version; `{app}`, `{version}`, `{table}`."""
    public: str
    """Quoted name of a view, or of a table of the whole app."""
    types: Mapping[Kind, str]
    texts: Mapping[Kind, str]
    """SQL that turns a column `{}` into its canonical text, where the column is not that already."""
    index: str
    """Quoted name of an index."""
    identity: str
    """A number given out by the database, as primary key."""
    table_suffix: str = ""
    bytewise: str = ""
    """Makes ORDER BY compare bytes."""
    lock_row: str = ""
    share_row: str = ""
    name_bytes_max: int | None = None
    json_is_parsed: bool = False
    """JSON comes back re-arranged and must be made canonical again."""
    unordered: frozenset[Kind] = frozenset()
    """Kinds whose ORDER BY is not the order of their values."""
    views_delete: bool = True
    """Rows can be deleted through a simple view."""


SQLITE = Dialect(
    name="SQLite",
    versioned='"{version}_{table}"',
    public='"{table}"',
    index='"{version}_gapless_by_{table}"',
    types={
        Kind.INT: "INTEGER",
        Kind.BOOL: "INTEGER",
        **dict.fromkeys(
            (Kind.UINT256, Kind.ADDRESS, Kind.HASH, Kind.BYTES, Kind.TIMESTAMP, Kind.TEXT, Kind.JSON), "TEXT"
        ),
    },
    texts={Kind.INT: "CAST({} AS TEXT)", Kind.BOOL: "CAST({} AS TEXT)"},
    identity="INTEGER PRIMARY KEY AUTOINCREMENT",
    table_suffix=" STRICT",
    unordered=frozenset({Kind.UINT256, Kind.TIMESTAMP}),
    views_delete=False,
)

_PG_SECONDS = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')"
_PG_MICROS = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
# Text is collated bytewise: the same order as in SQLite and Python, and no index that breaks with a new libc.
POSTGRES = Dialect(
    name="Postgres",
    versioned='"{app}_{version}"."{table}"',
    public='"{app}"."{table}"',
    index='"gapless_by_{table}"',
    types={
        Kind.INT: "BIGINT",
        Kind.UINT256: "NUMERIC(78,0)",
        Kind.BOOL: "BOOLEAN",
        Kind.TIMESTAMP: "TIMESTAMPTZ",
        Kind.JSON: "JSONB",
        **dict.fromkeys((Kind.ADDRESS, Kind.HASH, Kind.BYTES, Kind.TEXT), 'TEXT COLLATE "C"'),
    },
    texts={
        Kind.INT: "{}::text",
        Kind.UINT256: "{}::text",
        Kind.BOOL: "{}::int::text",
        Kind.JSON: "{}::text",
        Kind.TIMESTAMP: f"CASE WHEN {{}} = date_trunc('second', {{}}) THEN {_PG_SECONDS} ELSE {_PG_MICROS} END || 'Z'",
    },
    identity="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    bytewise=' COLLATE "C"',
    lock_row=" FOR UPDATE",
    share_row=" FOR SHARE",
    name_bytes_max=63,
    json_is_parsed=True,
)


def quote(name: str) -> str:
    """A name as SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Names:
    """Quoted names of everything, for one schema in one dialect."""

    dialect: Dialect
    schema: Schema

    def _fill(self, pattern: str, table: str) -> str:
        parts = {"app": self.schema.app, "version": self.schema.version, "table": table}
        return pattern.format(**{k: v.replace('"', '""') for k, v in parts.items()})

    def versioned(self, table: Table) -> str:
        """The table itself, in this schema's version."""
        return self._fill(self.dialect.versioned, table.name)

    def public(self, table: Table) -> str:
        """A table of the whole app, or the view over a versioned table."""
        return self._fill(self.dialect.public, table.name)

    def index(self, what: str) -> str:
        return self._fill(self.dialect.index, what)

    def text(self, column: Column, prefix: str = "") -> str:
        """SQL for a column's canonical text."""
        name = prefix + quote(column.name)
        pattern = self.dialect.texts.get(column.kind, "{}")
        return pattern.replace("{}", name)

    def text_of(self, table: Table, column: str) -> str:
        """SQL for the canonical text of one column, by name."""
        return self.text(next(c for c in table.columns if c.name == column))

    def texts(self, table: Table) -> str:
        """SQL for all columns' canonical texts, in order."""
        return ", ".join(self.text(c) for c in table.columns)

    meta = cached_property(lambda self: self.public(META))
    versions = cached_property(lambda self: self.public(VERSIONS))
    leases = cached_property(lambda self: self.public(LEASES))
    flags = cached_property(lambda self: self.public(FLAGS))
    cursors = cached_property(lambda self: self.versioned(CURSORS))
    entries = cached_property(lambda self: self.versioned(ENTRIES))
    undo = cached_property(lambda self: self.versioned(UNDO))
    quarantine = cached_property(lambda self: self.versioned(QUARANTINE))
    gaps = cached_property(lambda self: self.versioned(GAPS))


def check_schema(schema: Schema, dialect: Dialect) -> None:
    """Raise ConfigError for tables the database cannot hold as declared."""
    for table in schema.tables:
        if table.name.startswith(("gapless_", "sqlite_", "pg_")):
            raise ConfigError(
                f"Table {table.name!r} has a reserved name",
                todo="Choose one without the prefix gapless_, sqlite_ or pg_.",
            )
        for column in table.columns:
            if column.name == "_position":
                raise ConfigError(f"Table {table.name!r} has a column '_position', which the store adds itself")
            if column.name in table.key and (column.nullable or column.kind in _UNREADABLE_KEYS):
                what = "may be NULL" if column.nullable else "holds JSON"
                raise ConfigError(f"Column {table.name}.{column.name} {what} and is part of the key")
        limit = dialect.name_bytes_max
        for name in (table.name, *(c.name for c in table.columns)):
            if limit is not None and len(name.encode()) > limit:
                raise ConfigError(
                    f"The name {name!r} is longer than the {limit} bytes {dialect.name} allows",
                    todo="Give the contract or table a shorter name.",
                )


def _columns(names: Names, table: Table) -> list[str]:
    lines = [f"{quote(c.name)} {names.dialect.types[c.kind]}{'' if c.nullable else ' NOT NULL'}" for c in table.columns]
    if table.nature is Nature.STATE:
        lines.append(f"{quote('_position')} {names.dialect.types[Kind.INT]} NOT NULL")
    return lines


def _create(names: Names, relation: str, table: Table) -> str:
    lines = _columns(names, table)
    if table is QUARANTINE:
        lines.insert(0, f'"id" {names.dialect.identity}')
    else:
        lines.append(f"PRIMARY KEY ({', '.join(map(quote, table.key))})")
    if table is LEASES:
        # On Postgres this makes the token part of a key: a commit's FOR KEY SHARE then holds off a new grant, but
        # not the renewal of the lease it runs under.
        lines.append('UNIQUE ("name", "token")')
    return f"CREATE TABLE {relation} ({', '.join(lines)}){names.dialect.table_suffix}"


def create_app_tables(names: Names) -> list[str]:
    return [_create(names, names.public(t), t) for t in APP_TABLES]


def create_version_tables(names: Names) -> list[str]:
    """Tables of one version, the app's own ones included."""
    statements = [_create(names, names.versioned(t), t) for t in (*VERSION_TABLES, *names.schema.tables)]
    statements.append(f'CREATE INDEX {names.index("quarantine")} ON {names.quarantine} ("source", "position")')
    # Lets `status` count evidence from the index alone.
    statements.append(f'CREATE INDEX {names.index("evidence")} ON {names.entries} ("source", "evidence")')
    return statements


def create_views(names: Names) -> list[str]:
    """Views over this version. A state table's `_position` is the store's own and stays behind the view."""
    statements = []
    for table in (*VERSION_TABLES, *names.schema.tables):
        columns = ", ".join(quote(c.name) for c in table.columns)
        if table is QUARANTINE:
            columns = f'"id", {columns}'
        view, relation = names.public(table), names.versioned(table)
        statements.append(f"CREATE VIEW {view} AS SELECT {columns} FROM {relation}")
        if not names.dialect.views_delete:
            key = ("id",) if table is QUARANTINE else table.key
            where = " AND ".join(f"{quote(k)} = OLD.{quote(k)}" for k in key)
            statements.append(
                f"CREATE TRIGGER {quote(table.name + '_delete')} INSTEAD OF DELETE ON {view} "
                f"BEGIN DELETE FROM {relation} WHERE {where}; END"
            )
    return statements


def differences(stored: str, schema: Schema) -> list[str]:
    """What distinguishes the stored definition from the app's tables, in words."""
    old = {t["name"]: t for t in json.loads(stored)}
    new = {t.name: t.describe() for t in schema.tables}
    found = [f"table {name} is not in the database" for name in sorted(new.keys() - old.keys())]
    found += [f"table {name} is in the database, but not in the app" for name in sorted(old.keys() - new.keys())]
    for name in sorted(new.keys() & old.keys()):
        found += _table_differences(name, old[name], new[name])
    return found


def _table_differences(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = [
        f"table {name}: {what} {old[what]!r} in the database, {new[what]!r} in the app"
        for what in ("source", "nature")
        if old[what] != new[what]
    ]
    before = {c[0]: c for c in old["columns"]}
    after = {c[0]: c for c in new["columns"]}
    found += [f"column {name}.{c} is not in the database" for c in after if c not in before]
    found += [f"column {name}.{c} is in the database, but not in the app" for c in before if c not in after]
    for column in (c for c in after if c in before and before[c] != after[c]):
        found.append(
            f"column {name}.{column}: {_typed(before[column])} in the database, {_typed(after[column])} in the app"
        )
    if not found and [c[0] for c in old["columns"]] != [c[0] for c in new["columns"]]:
        found.append(f"table {name}: the columns are in another order")
    if old["key"] != new["key"]:
        found.append(
            f"table {name}: key ({', '.join(old['key'])}) in the database, ({', '.join(new['key'])}) in the app"
        )
    return found


def _typed(column: list[Any]) -> str:
    return f"{column[1]}{' or NULL' if column[2] else ''}"
