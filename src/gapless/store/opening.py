"""Opening a SQL database: whose it is, what it holds, whether it is what the app expects; and creating it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from gapless.errors import MissingDatabase, NewerDatabase, SchemaChanged, StoreError, WrongDatabase
from gapless.schema import Schema, timestamp_text
from gapless.store import FORMAT
from gapless.store.ddl import (
    APP_TABLES,
    VERSION_TABLES,
    Names,
    check_schema,
    create_app_tables,
    create_version_tables,
    create_views,
    differences,
)
from gapless.store.leases import SqlLeases
from gapless.store.session import Session


@dataclass(frozen=True, slots=True)
class Contents:
    """What is found in a database. `meta` is None where it holds no Gapless tables."""

    meta: dict[str, str] | None
    relations: frozenset[str]
    """Names of the tables that belong to the app or lie where they would be made."""
    definition: str | None = None
    """The stored definition of the version asked for."""
    live: str | None = None


class SqlOpening(SqlLeases):
    """`Store.open` for SQL databases."""

    @abstractmethod
    def _relations(self, s: Session) -> frozenset[str]:
        """Quoted names of all tables where this app's would be."""

    @abstractmethod
    def _connect(self, *, create: bool) -> bool:
        """Make the first connection. False where there is no database and none may be created."""

    def _prepare_creation(self, s: Session) -> None:
        """Keep other processes from creating the same tables, and make the schemas they live in."""

    def open(self, schema: Schema, *, create: bool) -> None:
        check_schema(schema, self.dialect)
        names = self._opened = Names(self.dialect, schema)
        try:
            if not self._connect(create=create):
                raise self._missing()
            with self._reading() as s:
                found = self._contents(s)
            if create and (found.meta is None or found.definition is None):
                self._check(found, created=True)
                found = self._transact(self._create)
            self._check(found, created=False)
        except BaseException:
            self.close()
            self._opened = None
            raise
        self._opened = names

    def close(self) -> None:
        """Let go of all connections."""

    def _missing(self) -> MissingDatabase:
        return MissingDatabase(
            f"There is no database of app {self._schema.app!r} at {self.url} yet",
            todo="`gapless run` creates it; check [store] url if it should be there.",
        )

    def _contents(self, s: Session) -> Contents:
        relations = self._relations(s)
        if self._names.meta not in relations:
            return Contents(None, relations)
        meta = {str(k): str(v) for k, v in s.run(f'SELECT "name", "value" FROM {self._names.meta}')}
        versions: Sequence[tuple[str, str, str]] = []
        if self._names.versions in relations and meta.get("format") == str(FORMAT):
            versions = s.run(f'SELECT "version", "state", "definition" FROM {self._names.versions}')
        return Contents(
            meta,
            relations,
            next((d for v, _, d in versions if v == self._schema.version), None),
            next((v for v, state, _ in versions if state == "live"), None),
        )

    def _check(self, found: Contents, *, created: bool) -> None:
        """Raise unless the database is this app's (or, before it is created, free)."""
        if found.meta is None:
            if found.relations:
                raise WrongDatabase(
                    f"{self.url} holds tables, but not those of Gapless: {_listed(found.relations)}",
                    todo="Use an empty database, or another name for the app.",
                )
            if not created:
                raise self._missing()
            return
        self._check_meta(found.meta)
        if found.definition is None:
            if created:
                return
            raise self._missing()
        self._check_tables(found)

    def _check_meta(self, meta: dict[str, str]) -> None:
        app = meta.get("app")
        if app != self._schema.app:
            raise WrongDatabase(
                f"{self.url} holds the tables of app {app!r}, not of {self._schema.app!r}",
                todo="Correct [app] name or [store] url.",
            )
        stored = int(meta.get("format", "0"))
        if stored > FORMAT:
            raise NewerDatabase(
                f"{self.url} was written by a newer Gapless (format {stored}; this one knows up to {FORMAT})",
                todo="Update Gapless: pip install --upgrade gapless",
            )

    def _check_tables(self, found: Contents) -> None:
        changed = differences(found.definition or "[]", self._schema)
        if changed:
            raise SchemaChanged(
                f"The app's tables differ from those in {self.url}: {'; '.join(changed)}",
                todo="Put the configuration back, or index into another database (or under another app name).",
            )
        wanted = {self._names.public(t) for t in APP_TABLES}
        wanted |= {self._names.versioned(t) for t in (*VERSION_TABLES, *self._schema.tables)}
        gone = wanted - found.relations
        if gone:
            raise StoreError(
                f"Tables were removed from {self.url}: {_listed(gone)}",
                todo="Restore them from a backup, or drop the rest and index again.",
            )

    def _create(self, s: Session) -> Contents:
        """Create what is missing; another process may have done so since we looked."""
        self._prepare_creation(s)
        found = self._contents(s)
        self._check(found, created=True)
        names, now = self._names, timestamp_text(self._clock.now_us())
        if found.meta is None:
            for statement in create_app_tables(names):
                s.run(statement)
            for name, value in {
                "product": "gapless",
                "format": str(FORMAT),
                "app": self._schema.app,
                "created": now,
            }.items():
                s.run(f'INSERT INTO {names.meta} ("name", "value") VALUES (?, ?)', name, value)
        if found.definition is None:
            live = found.live is None
            for statement in create_version_tables(names) + (create_views(names) if live else []):
                s.run(statement)
            s.run(
                f'INSERT INTO {names.versions} ("version", "state", "definition", "fingerprint", "created")'
                " VALUES (?, ?, ?, ?, ?)",
                *(self._schema.version, "live" if live else "shadow", self._schema.describe()),
                *(self._schema.fingerprint(), now),
            )
        return self._contents(s)


def _listed(relations: frozenset[str] | set[str]) -> str:
    shown = sorted(relations)[:5]
    return ", ".join(shown) + (f" and {len(relations) - 5} more" if len(relations) > 5 else "")
