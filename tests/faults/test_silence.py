"""T13: nothing fails, and nothing gets on. Mode, health and metrics tell within a minute; liveness stays as it is."""

from __future__ import annotations

import re
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from faults.live import broken, get, seconds_until
from faults.scale import figures
from gapless.testing import TOKEN, FakeNode, ScriptedChain, Stall
from servers.project import APP, Project, stop

TOLD_SECONDS_MAX = 60.0
BACK_SECONDS_MAX = 60.0
STAYS_SECONDS = 4.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Watched:
    """A run whose health and metrics are looked at from outside."""

    def __init__(self, folder: Path, store_url: str, node: FakeNode) -> None:
        self.port = free_port()
        self.project = Project(
            folder,
            store_url,
            [node.url],
            TOKEN,
            poll="100 ms",
            timeout="1 second",
            deadline="2 seconds",
            stall_after="3 seconds",
        )
        config = folder / self.project.config
        config.write_text(
            config.read_text() + f'[telemetry]\nlisten = "127.0.0.1:{self.port}"\nready_lag_max = "1 hour"\n'
        )

    def health(self, kind: str) -> int:
        return get(f"http://127.0.0.1:{self.port}/health/{kind}")[0]

    def reason(self) -> str:
        return get(f"http://127.0.0.1:{self.port}/health/ready")[1]

    def metric(self, pattern: str) -> float:
        found = re.search(rf"^gapless_{pattern} (\S+)$", get(f"http://127.0.0.1:{self.port}/metrics")[1], re.MULTILINE)
        return float(found.group(1)) if found else -1.0

    def mode(self) -> str:
        body = get(f"http://127.0.0.1:{self.port}/metrics")[1]
        found = re.search(r'^gapless_mode\{mode="(\w+)",source="chain"\} 1.0$', body, re.MULTILINE)
        return found.group(1) if found else ""


@pytest.fixture
def node() -> Iterator[FakeNode]:
    chain = ScriptedChain(seed=1)
    chain.mine(30, logs=2)
    with FakeNode(chain) as node:
        yield node


@contextmanager
def watched(folder: Path, store_url: str, node: FakeNode) -> Iterator[tuple[Watched, subprocess.Popen[bytes]]]:
    run = Watched(folder, store_url, node)
    process = run.project.start("run")
    try:
        seconds_until(lambda: run.health("ready") == 200 and run.mode() in {"live", "idle"}, 60, run.project.log)
        yield run, process
    finally:
        stop(process)


def assert_told(run: Watched, process: subprocess.Popen[bytes], what: str, mode: str, ready: int, stage: str) -> None:
    """Soon the mode and readiness say so, the stage's age grows, and the process counts as alive all the time."""
    began = time.monotonic()
    told = seconds_until(lambda: run.mode() == mode and run.health("ready") == ready, TOLD_SECONDS_MAX, run.project.log)
    age = run.metric(f'progress_age_seconds{{source="chain",stage="{stage}"}}')
    age = age if age >= 0 else run.metric(f'progress_age_seconds{{stage="{stage}",source="chain"}}')
    end = time.monotonic() + STAYS_SECONDS
    while time.monotonic() < end:  # alerts look for a mode that stays
        assert run.health("live") == 200
        assert run.mode() == mode
        time.sleep(0.1)
    assert process.poll() is None
    if ready != 200:
        assert "chain" in run.reason()
    assert 0 <= age <= TOLD_SECONDS_MAX + (time.monotonic() - began)
    figures("T13 silence", what=what, told_seconds=round(told, 1), mode=mode, ready=ready, live=200)


def test_a_source_that_stops(tmp_path: Path, node: FakeNode) -> None:
    """A node that accepts every question and never answers: degraded, not ready, alive; and back by itself."""
    with watched(tmp_path, "sqlite:///chain.db", node) as (run, process):
        stalled = node.behave(Stall())
        assert_told(run, process, "source stops", "degraded", 503, "head")
        stalled.off()
        node.chain.mine(2, logs=1)
        seconds_until(lambda: run.project.position() == node.chain.height, BACK_SECONDS_MAX, run.project.log)


def test_a_source_that_repeats_itself(tmp_path: Path, node: FakeNode) -> None:
    """A node that answers, and whose chain stands still: idle after `stall_after`, and the commits' age grows."""
    with watched(tmp_path, "sqlite:///chain.db", node) as (run, process):
        assert_told(run, process, "source repeats itself", "idle", 200, "commit")
        before = run.metric('progress_age_seconds{source="chain",stage="commit"}')
        time.sleep(1.0)
        assert run.metric('progress_age_seconds{source="chain",stage="commit"}') > before
        node.chain.mine(1, logs=1)
        seconds_until(lambda: run.mode() == "live", BACK_SECONDS_MAX, run.project.log)


@contextmanager
def held_sqlite(folder: Path) -> Iterator[None]:
    """Somebody writes the file and does not come to an end."""
    with closing(sqlite3.connect(folder / "chain.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        yield
        other.execute("rollback")


@contextmanager
def held_postgres(url: str) -> Iterator[None]:
    """Somebody locks a table and does not come to an end."""
    with psycopg.connect(url) as other:
        other.execute(f"LOCK TABLE {APP}_v1.gapless_entries IN ACCESS EXCLUSIVE MODE".encode())
        yield
        other.rollback()


def blocked(
    held: Callable[[], AbstractContextManager[None]],
    run: Watched,
    process: subprocess.Popen[bytes],
    node: FakeNode,
    what: str,
) -> None:
    with held():
        node.chain.mine(2, logs=1)
        assert_told(run, process, what, "degraded", 503, "commit")
    seconds_until(lambda: run.project.position() == node.chain.height, BACK_SECONDS_MAX, run.project.log)


def test_a_sink_that_blocks_on_sqlite(tmp_path: Path, node: FakeNode) -> None:
    """Another writer holds the file: no commit gets through, and it is said; afterwards it goes on."""
    with watched(tmp_path, "sqlite:///chain.db", node) as (run, process):
        blocked(lambda: held_sqlite(tmp_path), run, process, node, "SQLite held by another writer")


@pytest.mark.postgres
def test_a_sink_that_blocks_on_postgres(tmp_path: Path, node: FakeNode, postgres_url: str) -> None:
    """A table is locked by somebody else: the same."""
    with watched(tmp_path, postgres_url, node) as (run, process):
        blocked(lambda: held_postgres(postgres_url), run, process, node, "Postgres table locked")


def test_a_build_that_is_always_ready_is_caught(tmp_path: Path, node: FakeNode) -> None:
    """Health that never says no stays ready through a stall: what the tests above would not pass."""
    run = Watched(tmp_path, "sqlite:///chain.db", node)
    with broken(run.project, "always-ready"):
        process = run.project.start("run")
        try:
            seconds_until(lambda: run.mode() in {"live", "idle"}, 60, run.project.log)
            node.behave(Stall())
            seconds_until(lambda: run.mode() == "degraded", TOLD_SECONDS_MAX, run.project.log)
            assert run.health("ready") == 200
        finally:
            stop(process)
