"""What a command works on: the app of `-c`, its tables, and its database."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gapless.errors import UsageError

if TYPE_CHECKING:
    from gapless.app import App
    from gapless.config import Config
    from gapless.schema import Schema
    from gapless.store import Store
    from gapless.wiring import Wired

T = TypeVar("T")

GIVEN_APP: ContextVar[App | None] = ContextVar("given_app", default=None)
"""The app whose `cli()` was called."""
GIVEN_SPEC: ContextVar[str | None] = ContextVar("given_spec", default=None)
"""The `-c` that stood before the command."""
SPEC_VARIABLE = "GAPLESS_CONFIG"
DEFAULT_FILE = "gapless.toml"


class Project:
    """An app, opened as far as a command needs it."""

    def __init__(self, app: App) -> None:
        from gapless.clock import SystemClock

        self.app = app
        self.clock = SystemClock()

    @property
    def config(self) -> Config:
        return self.app.config

    @cached_property
    def _wired(self) -> tuple[Schema, dict[str, Wired]]:
        from gapless.wiring import wire

        return wire(self.app)

    @property
    def schema(self) -> Schema:
        return self._wired[0]

    @property
    def wired(self) -> dict[str, Wired]:
        return self._wired[1]

    @contextmanager
    def store(self, *, create: bool = False, check_pages: bool = False) -> Iterator[Store]:
        """The database, open for the length of the block."""
        from gapless.wiring import open_store

        opened = open_store(self.config, self.schema, self.clock, create=create, check_pages=check_pages)
        try:
            yield opened
        finally:
            opened.close()

    def source(self, name: str | None) -> str:
        """The source a command is about. Raises UsageError where it must be named."""
        from gapless.config.problems import suggestion

        names = sorted(self.config.sources)
        if name is None and len(names) == 1:
            return names[0]
        if name is None:
            raise UsageError("Which source?", todo=f"Add --source with one of: {', '.join(names)}.")
        if name not in names:
            raise UsageError(f"There is no source {name!r}{suggestion(name, names)}")
        return name

    def sources(self, name: str | None) -> list[str]:
        """The sources a command is about: the named one, else all."""
        return sorted(self.config.sources) if name is None else [self.source(name)]


def load(spec: str | None) -> Project:
    """The project of `-c` behind the command, or before it, or of `GAPLESS_CONFIG`, or of this directory.

    Raises ConfigError and UsageError."""
    from gapless import app, config

    spec = spec or GIVEN_SPEC.get()
    given = GIVEN_APP.get()
    if spec is None and given is not None:
        return Project(given)
    spec = spec or os.environ.get(SPEC_VARIABLE) or None
    if spec is None and not Path(DEFAULT_FILE).exists() and "GAPLESS_APP__NAME" in os.environ:
        return Project(app.App.from_config(config.load(None, os.environ)))
    return Project(app.load(spec or DEFAULT_FILE))


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end. What is worth a warning meanwhile goes to standard error, never among data."""
    import asyncio

    from gapless.telemetry import logs

    logs.configure("warning")
    return asyncio.run(work)
