"""T4: the connection to Postgres breaks right before or after COMMIT reaches it. Each effect happens exactly once."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from faults.live import Weaver, broken, difference, settle, through
from faults.scale import draws, figures, tiers
from gapless.testing.tcp_proxy import COMMIT, Fault, TcpProxy, Trigger
from servers.anvil import Anvil, build_transfers
from servers.postgres import PostgresServer
from servers.project import Project, stop

FIRED_SECONDS_MAX = 60.0
SINCE = b"COPY "
"""Of the commits, those that wrote rows; not a lease's."""


def cut(proxy: TcpProxy, fault: Fault, draw: random.Random, process: subprocess.Popen[bytes]) -> bool:
    """Break one commit of rows. False where none came."""
    armed = proxy.arm(Trigger(COMMIT, fault, since=SINCE, skip=draw.randrange(3)))
    deadline = time.monotonic() + FIRED_SECONDS_MAX
    while not armed.fired.wait(0.05):
        if time.monotonic() > deadline or process.poll() is not None:
            return False
    return True


def storm(
    anvil: Anvil, folder: Path, server: PostgresServer, url: str, faults: list[Fault], draw: random.Random
) -> tuple[int, int, int, float]:
    """Index a moving chain while commits are broken; cuts that took place, rows lost, rows doubled, seconds."""
    built = build_transfers(anvil, 30, 20, real=False)
    began, done = time.monotonic(), 0
    with TcpProxy(server.port) as proxy:
        project = Project(folder, through(url, proxy.port), [anvil.url], built.token, span_max=2, poll="20 ms")
        process = project.start("run")
        try:
            with Weaver(anvil, built.token, draw, pause=(0.0, 0.1), fork=0.05):
                for fault in faults:
                    if not cut(proxy, fault, draw, process):
                        break
                    done += 1
            proxy.calm()
            lost, doubled = settle(project, anvil, built.token) if process.poll() is None else (-1, -1)
            if (lost, doubled) == (0, 0):
                assert difference(project, anvil, built.token) == (0, 0)
        finally:
            stop(process)
    return done, lost, doubled, time.monotonic() - began


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.parametrize("cuts", tiers("CUTS", 20, 1_000))
def test_each_effect_happens_exactly_once(
    anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, cuts: int
) -> None:
    """Half of the cuts before the server has COMMIT, half after: no row is lost, none is there twice."""
    draw = draws("exactly_once", cuts)
    faults = [Fault.CUT_BEFORE] * (cuts // 2) + [Fault.CUT_AFTER] * (cuts - cuts // 2)
    draw.shuffle(faults)
    done, lost, doubled, seconds = storm(anvil, tmp_path, postgres_server, postgres_url, faults, draw)
    before = faults[:done].count(Fault.CUT_BEFORE)
    figures(
        "T4 lost commits",
        cut_before=before,
        cut_after=done - before,
        lost=lost,
        doubled=doubled,
        seconds=round(seconds),
    )
    assert done == cuts
    assert (lost, doubled) == (0, 0)


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.parametrize(
    ("build", "fault"),
    [
        ("lost-reply-is-success", Fault.CUT_BEFORE),
        pytest.param("lost-reply-is-failure", Fault.CUT_AFTER, marks=pytest.mark.slow),
    ],
)
def test_a_build_that_guesses_is_caught(
    anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, build: str, fault: Fault
) -> None:
    """A lost answer taken for a failure and written again, or taken for success: rows or the run are lost."""
    built = build_transfers(anvil, 6, 20, real=False)
    with TcpProxy(postgres_server.port) as proxy:
        url = through(postgres_url, proxy.port)
        project = Project(tmp_path, url, [anvil.url], built.token, span_max=1, poll="20 ms")
        with broken(project, build):
            armed = proxy.arm(Trigger(COMMIT, fault, since=SINCE, skip=2))
            process = project.start("run")
            try:
                assert armed.fired.wait(FIRED_SECONDS_MAX), project.log()
                try:
                    found = settle(project, anvil, built.token, seconds=6)
                except AssertionError:
                    found = (-1, -1)  # it did not get there
            finally:
                stop(process)
    assert found != (0, 0)
