"""The doctor's look at the database, its disk and the address to listen on."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gapless.errors import GaplessError, MissingDatabase

if TYPE_CHECKING:
    from gapless.cli.findings import Findings
    from gapless.cli.project import Project
    from gapless.clock import Clock
    from gapless.store import Store

_FREE_BYTES_LOW = 5 * 10**9
_FREE_BYTES_MIN = 10**8
_READ_BYTES_MAX = 2**30
"""A larger SQLite file is not read as a whole here; `gapless verify` does."""
_SYNCS = 5
_SYNC_SECONDS_SLOW = 0.05
_DURABLE = {"fsync": "on", "full_page_writes": "on"}
"""What a Postgres server must say, or a power cut may cost what was committed."""


def examine_store(findings: Findings, project: Project) -> None:
    """Can it be opened and written, does it keep what it commits, has the disk room, who leads, what is missing."""
    from gapless.wiring import open_store

    url = project.config.store.url
    check_pages = False
    if url.startswith("sqlite:"):
        file = Path(url.removeprefix("sqlite:///"))
        _examine_disk(findings, file.parent, project.clock)
        check_pages = file.exists() and file.stat().st_size <= _READ_BYTES_MAX
    try:
        open_store(project.config, project.schema, project.clock, create=False, check_pages=check_pages).close()
        # Opened once more for writing: durability is set and read back, and a read-only file shows.
        store = open_store(project.config, project.schema, project.clock, create=True)
    except MissingDatabase as error:
        findings.warn("store", error.what, "Nothing to do: `gapless run` creates it.")
        return
    except GaplessError as error:
        findings.error("store", error)
        return
    with closing(store):
        try:
            _examine_open_store(findings, project, store)
        except GaplessError as error:
            findings.error("store", error)


def _examine_open_store(findings: Findings, project: Project, store: Store) -> None:
    facts = store.describe()
    findings.ok("store", f"{store.url}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    for name, wanted in _DURABLE.items():
        if facts.get(name, wanted) != wanted:
            findings.fail(
                "store", f"{name} is {facts[name]}", f"Set {name} = {wanted} on the server; a power cut loses commits."
            )
    if facts.get("synchronous_commit") == "off":
        findings.fail("store", "synchronous_commit is off", "Set it to on; a crash of the server loses commits.")
    for name in project.schema.sources:
        gaps, waiting, coverage = store.gaps(name), store.quarantine(name), store.coverage(name)
        if gaps or coverage.missing:
            known = max(len(gaps), int(bool(coverage.missing)))
            findings.warn("gaps", f"{name}: {known} known, {coverage.missing} positions missing", "`gapless repair`")
        if waiting:
            findings.warn("quarantine", f"{name}: {len(waiting)} items wait", "`gapless quarantine list`")
    for lease in store.leases():
        held = f"led by {lease.holder}, token {lease.token}" if lease.live else "led by nobody now"
        findings.ok("lease", f"{lease.name}: {held}")


def _examine_disk(findings: Findings, folder: Path, clock: Clock) -> None:
    try:
        free = shutil.disk_usage(folder).free
        seconds = _sync_seconds(folder, clock)
    except OSError as error:
        fix = "Let this user write that folder, or choose another one."
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            fix = "Free some space: commits are refused."
        findings.fail("disk", f"{folder}: {error.strerror}", fix)
        return
    said = f"{folder}: {free / 1e9:.1f} GB free, a sync takes {seconds * 1000:.1f} ms"
    if free < _FREE_BYTES_MIN:
        findings.fail("disk", said, "Free some space: commits will be refused.")
    elif free < _FREE_BYTES_LOW:
        findings.warn("disk", said, "Watch it, or free some space.")
    elif seconds > _SYNC_SECONDS_SLOW:
        findings.warn("disk", said, "Every commit waits for a sync: a local disk is faster.")
    else:
        findings.ok("disk", said)


def _sync_seconds(folder: Path, clock: Clock) -> float:
    """The median time to write a page and have it on disk."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            started = clock.monotonic()
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
            taken.append(clock.monotonic() - started)
    return sorted(taken)[_SYNCS // 2]


def examine_address(findings: Findings, listen: str) -> None:
    """Whether metrics and health can be served."""
    if not listen:
        findings.warn(
            "telemetry", "metrics and health are not served", 'Set [telemetry] listen = "127.0.0.1:9464" to serve them.'
        )
        return
    host, _, port = listen.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        findings.warn(
            "telemetry", f"{listen}: {error.strerror}", "Fine if `gapless run` has it; else set another listen."
        )
    else:
        findings.ok("telemetry", f"{listen} is free")
