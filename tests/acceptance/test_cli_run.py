"""A run from outside: how it ends, who leads, what it serves and shows meanwhile."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from servers.recorded import LAST_BLOCK, RecordedProject

STOP_SECONDS_MAX = 10.0


@pytest.fixture
def project(tmp_path: Path) -> RecordedProject:
    return RecordedProject.create(tmp_path)


@contextmanager
def following(project: RecordedProject, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = project.start("run", *arguments)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


def at_the_end(project: RecordedProject) -> bool:
    try:
        return project.sql("select position from gapless_cursors") == [(LAST_BLOCK,)]
    except sqlite3.OperationalError:
        return False  # not created yet


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_graceful_stop(project: RecordedProject, number: signal.Signals, code: int) -> None:
    """Ctrl-C ends with 130 and SIGTERM with 0, within ten seconds, and the lease is given up."""
    with following(project) as process:
        wait_for(lambda: at_the_end(project))
        found = project.json("status")["sources"]["mainnet"]
        assert found["mode"] == "live"
        assert found["leader"]["holder"].endswith(f":{process.pid}")
        assert found["reason"] is None
        process.send_signal(number)
        _, said = process.communicate(timeout=STOP_SECONDS_MAX)
        assert process.returncode == code
        assert "Stopping" in said
        assert f"at {LAST_BLOCK}" in said
    assert project.json("status")["sources"]["mainnet"]["leader"] is None


def test_stop_at_any_moment(project: RecordedProject) -> None:
    """Interrupted wherever it is, a run ends with 130 or was done, and the next one goes on to the same digest."""
    for delay in (0.4, 0.6, 0.8, 1.0):
        with following(project, "--until", str(LAST_BLOCK)) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=STOP_SECONDS_MAX)
            assert process.returncode in {0, 130, -signal.SIGINT}, said
            assert "Traceback (most recent call last)" not in said or process.returncode == -signal.SIGINT
    project.ok("run", "--until", str(LAST_BLOCK))
    other = RecordedProject.create(project.folder / "other")
    other.ok("run", "--until", str(LAST_BLOCK))
    assert project.json("digest")["digest"] == other.json("digest")["digest"]


def test_standby_takes_over(project: RecordedProject) -> None:
    """A second instance waits, and leads when the first one stops."""
    with following(project) as first:
        wait_for(lambda: at_the_end(project))
        with following(project) as second:
            time.sleep(1.5)
            assert project.json("lease", "show")["leases"][0]["holder"].endswith(f":{first.pid}")
            assert "leads this source" in project.refused("rewind", "--to", "100", code=4)
            assert str(first.pid) in project.refused("lease", "release", code=4)
            first.send_signal(signal.SIGTERM)
            first.wait(STOP_SECONDS_MAX)
            wait_for(
                lambda: (project.json("lease", "show")["leases"][0]["holder"] or "").endswith(f":{second.pid}"), 20
            )


def test_forced_release(project: RecordedProject) -> None:
    """A killed leader's lease can be taken away before it expires."""
    with following(project) as process:
        wait_for(lambda: at_the_end(project))
        process.kill()
        process.wait()
        assert project.json("lease", "release", "--force", "--dry-run")["released"] is False
        assert project.json("lease", "release", "--force")["released"] is True
    assert project.json("rewind", "--to", "400")["undone"] == LAST_BLOCK - 400


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_metrics_and_health(project: RecordedProject) -> None:
    """While it runs, metrics and health are served: ready when it leads and is at the head, live also in standby."""
    ports = (free_port(), free_port())
    project.add('[telemetry]\nlisten = "127.0.0.1:${PORT}"')
    with following_with(project, PORT=str(ports[0])):
        wait_for(lambda: get(f"http://127.0.0.1:{ports[0]}/health/ready")[0] == 200)
        wait_for(lambda: at_the_end_by_metrics(ports[0]))
        body = get(f"http://127.0.0.1:{ports[0]}/metrics")[1]
        assert 'gapless_reorgs_total{source="mainnet"} 1.0' in body
        assert 'gapless_lease_held{source="mainnet"} 1.0' in body
        assert 'gapless_mode{mode="live",source="mainnet"} 1.0' in body
        with following_with(project, PORT=str(ports[1])):
            wait_for(lambda: get(f"http://127.0.0.1:{ports[1]}/health/live")[0] == 200)
            status, said = get(f"http://127.0.0.1:{ports[1]}/health/ready")
            assert status == 503
            assert "mainnet" in json.loads(said)["reasons"]


def at_the_end_by_metrics(port: int) -> bool:
    return (
        f'gapless_store_position{{source="mainnet"}} {float(LAST_BLOCK)}' in get(f"http://127.0.0.1:{port}/metrics")[1]
    )


@contextmanager
def following_with(project: RecordedProject, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = project.start("run", **environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=STOP_SECONDS_MAX + 5)


def test_json_at_the_end(project: RecordedProject) -> None:
    """`--json` prints where it stands when it ends; logs are JSON lines on standard error."""
    done = project.run("run", "--until", "100", "--json")
    assert json.loads(done.stdout)["sources"]["mainnet"]["indexed"] == 100
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {"time", "level", "event", "logger", "app"} <= set(events[0])
    assert list(events[0])[:3] == ["time", "level", "event"]


def on_a_terminal(project: RecordedProject, *arguments: str) -> tuple[int, str]:
    """Run a command with a terminal for all its streams; its exit code and what was shown."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gapless", *arguments],
        cwd=project.folder,
        env={**project.environment(), "TERM": "xterm", "COLUMNS": "160"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    return process.wait(30), shown.decode(errors="replace")


def test_bar_on_a_terminal(project: RecordedProject) -> None:
    """On a terminal a run shows a bar that ends where it was told, and logs are for people."""
    code, shown = on_a_terminal(project, "run", "--until", "300")
    assert code == 0
    assert "mainnet" in shown
    assert "━" in shown
    assert "300 of 300" in shown
    assert '"event"' not in shown


def test_status_on_a_terminal(project: RecordedProject) -> None:
    """Documents are laid out for reading on a terminal."""
    project.ok("run", "--until", "50")
    code, shown = on_a_terminal(project, "status", "--json")
    assert code == 0
    assert '\r\n  "app": "erc20"' in shown


def test_watch(project: RecordedProject) -> None:
    """`status --watch --json` is a stream of documents until Ctrl-C."""
    project.ok("run", "--until", "50")
    process = project.start("status", "--watch", "--json")
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    assert found["schema"] == 1
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=STOP_SECONDS_MAX)
    assert process.returncode == 130
