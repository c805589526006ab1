"""A scratch database beside the app's own: on the same disk or server, with the app's tables, and gone afterwards."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapless.bench.sweeper import SCRATCH_PREFIX
from gapless.errors import StoreError

if TYPE_CHECKING:
    from gapless.clock import Clock
    from gapless.config import Config
    from gapless.schema import Schema
    from gapless.store import Store

_SWEEP_SECONDS_MAX = 60.0
_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Scratch:
    """An open scratch database."""

    store: Store
    schema: Schema
    """The app's tables, under a name of the scratch's own."""


@contextmanager
def scratch(config: Config, schema: Schema, clock: Clock) -> Iterator[Scratch]:
    """The app's tables in a new place that is removed when the block ends, however it ends.

    Raises what opening a database raises, and StoreError where the scratch could not be removed."""
    from gapless.wiring import open_store

    name = SCRATCH_PREFIX + secrets.token_hex(6)
    own = replace(schema, app=name)
    url, removal = _place(config.store.url, name)
    elsewhere = config.model_copy(update={"store": config.store.model_copy(update={"url": url})})
    sweeper = _start_sweeper(removal)
    try:
        store = open_store(elsewhere, own, clock, create=True)
        try:
            yield Scratch(store, own)
        finally:
            store.close()
    finally:
        _sweep(sweeper, name, url)


def _place(url: str, name: str) -> tuple[str, dict[str, Any]]:
    """The scratch's URL, and what the sweeper must remove."""
    if url.startswith(_SQLITE):
        path = Path(url.removeprefix(_SQLITE)).absolute().with_name(f".{name}.db")
        return f"{_SQLITE}{path}", {"path": str(path)}
    return url, {"url": url, "schemas": [f"{name}_v1", name]}


def _start_sweeper(removal: dict[str, Any]) -> subprocess.Popen[str]:
    """In a session of its own, so that Ctrl-C in the terminal does not reach it."""
    sweeper = subprocess.Popen(
        [sys.executable, "-m", "gapless.bench.sweeper"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if sweeper.stdin is not None:
        sweeper.stdin.write(json.dumps(removal) + "\n")
        sweeper.stdin.flush()
    return sweeper


def _sweep(sweeper: subprocess.Popen[str], name: str, url: str) -> None:
    """Let the sweeper do its work and wait for it."""
    said = ""
    try:
        said = (sweeper.communicate(timeout=_SWEEP_SECONDS_MAX)[1] or "").strip()
    except subprocess.TimeoutExpired:
        said = f"it took longer than {_SWEEP_SECONDS_MAX:g} s"
        with suppress(OSError):
            sweeper.kill()
        sweeper.communicate()
    if sweeper.returncode != 0:
        if url.startswith(_SQLITE):
            todo = f"Remove it: rm '{url.removeprefix(_SQLITE)}'*"
        else:
            todo = f'Remove it: DROP SCHEMA "{name}_v1", "{name}" CASCADE'
        raise StoreError(f"The scratch database {name} could not be removed: {said}", todo=todo)
