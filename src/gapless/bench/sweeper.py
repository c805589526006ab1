"""Removes a scratch database when the process that uses it is gone: `python -m gapless.bench.sweeper`.

It reads what to remove from standard input, one line of JSON, and waits for the input to end. That happens when the
measuring process closes it, and also when that process is killed: so nothing stays behind either way. Standard library
and driver only; it deals in names that only a scratch has.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from gapless.clock import SystemClock

SCRATCH_PREFIX = "gapless_bench_"
_SUFFIXES = ("", "-wal", "-shm", "-journal")
_TRIES_MAX = 20
_PAUSE_SECONDS = 0.5


def remove_file(path: Path) -> None:
    """A scratch file of SQLite with what lies beside it."""
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def drop_schemas(url: str, names: list[str]) -> None:
    """Scratch schemas of Postgres. A killed process's session may hold them for a moment: tried for ten seconds."""
    import psycopg

    clock, never = SystemClock(), threading.Event()
    for attempt in range(_TRIES_MAX):
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
                connection.execute("SET lock_timeout = '2s'")
                for name in names:
                    connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE'.encode())
            return
        except psycopg.Error:
            if attempt == _TRIES_MAX - 1:
                raise
            clock.wait(never, _PAUSE_SECONDS)


def main() -> int:
    """0 when everything is gone, 1 with the reason on standard error when not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    found = json.loads(sys.stdin.readline() or "{}")
    sys.stdin.read()
    names = [found["path"]] if "path" in found else found.get("schemas", [])
    if not all(SCRATCH_PREFIX in Path(name).name for name in names):
        print(f"refused: {names} is not a scratch", file=sys.stderr)
        return 1
    try:
        if "path" in found:
            remove_file(Path(found["path"]))
        elif names:
            drop_schemas(found["url"], names)
    except Exception as error:  # noqa: BLE001 - whatever it is, whoever started this must hear of it
        print(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
