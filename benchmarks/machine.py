"""What the figures were measured on, without which they mean nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = ("aiohttp", "apsw", "msgspec", "psycopg")


def machine() -> dict[str, str]:
    """Processor, cores, memory, system, versions, and the commit."""
    return {
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory_gib():.0f} GiB",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "gapless": f"{metadata.version('gapless')} {_commit()}".strip(),
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES) + f", SQLite {_sqlite()}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def _sqlite() -> str:
    try:
        import apsw
    except ImportError:
        return sqlite3.sqlite_version
    return str(apsw.sqlite_lib_version())


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
