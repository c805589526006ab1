"""T18: every kind of weather between Gapless and its node, and between Gapless and Postgres, by the cell.

A cell: a run in the background, weather for some seconds, then fair again. It must stand at the head soon, with every
row there once, and have needed no more memory than before; whatever waits, waits within a bound.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.live import Weaver, broken, resident_kib, seconds_until, settle, through
from faults.scale import draws, figures, patience
from gapless.testing.tcp_proxy import Direction, TcpProxy, Weather
from servers.anvil import Anvil, build_transfers
from servers.postgres import PostgresServer
from servers.project import Project, stop

Storm = Callable[[TcpProxy, threading.Event, random.Random], None]

STORM_SECONDS = 4.0
BACK_SECONDS_MAX = 85.0
"""35 s is the longest single wait, for a statement that Postgres does not answer; on half-open connections there may be
two in a row, one that reads and one that writes. A request to a node has 5 s here."""
GROWTH_KIB_MAX = 64 * 1024
WAYS = frozenset(Direction)


def steady(weather: Weather, *, cut: bool = False) -> Storm:
    """The same all the time; with `cut` for everybody, and not only for who comes."""

    def blow(proxy: TcpProxy, over: threading.Event, _draw: random.Random) -> None:
        proxy.weather = weather
        if cut:
            proxy.cut()
        over.wait()

    return blow


def again_and_again(strike: Callable[[TcpProxy], None]) -> Storm:
    def blow(proxy: TcpProxy, over: threading.Event, draw: random.Random) -> None:
        while not over.wait(draw.uniform(0.05, 0.6)):
            strike(proxy)

    return blow


STORMS: dict[str, Storm] = {
    "latency 50 ms": steady(Weather(latency_seconds=(0.05, 0.05))),
    "latency 0 to 500 ms": steady(Weather(latency_seconds=(0.0, 0.5))),
    "cut": again_and_again(TcpProxy.cut),
    "reset": again_and_again(TcpProxy.reset),
    "half-open": again_and_again(TcpProxy.forsake),
    "silence to the server": steady(Weather(silent=frozenset({Direction.TO_SERVER}))),
    "silence to the client": steady(Weather(silent=frozenset({Direction.TO_CLIENT}))),
    "slow drip, 1 B/s": steady(Weather(bytes_per_second=1)),
    "refused": steady(Weather(refusing=True), cut=True),
    "deaf, then cut": steady(Weather(deaf=True), cut=True),
}
PHASES = ("backfill", "live")
LINKS = ("node", "postgres")
FEW = {
    ("node", "half-open", "live"),
    ("node", "reset", "live"),
    ("postgres", "reset", "live"),
    ("postgres", "cut", "live"),
}
CELLS = [
    pytest.param(link, storm, phase, marks=[] if (link, storm, phase) in FEW else pytest.mark.slow)
    for link in LINKS
    for storm in STORMS
    for phase in PHASES
]


class Cell:
    """One run between two proxies."""

    def __init__(self, anvil: Anvil, folder: Path, url: str, node: TcpProxy, sql: TcpProxy) -> None:
        self.anvil, self.node, self.sql = anvil, node, sql
        self.built = build_transfers(anvil, 60, 40, real=False)
        rpc = [f"http://127.0.0.1:{node.port}"]
        self.project = Project(
            folder, through(url, sql.port), rpc, self.built.token, span_max=4, poll="50 ms", timeout="5 seconds"
        )
        self.witness = Project(folder / "witness", url, rpc, self.built.token)

    def proxy(self, link: str) -> TcpProxy:
        return self.node if link == "node" else self.sql

    def blow(self, link: str, storm: str, draw: random.Random, process: subprocess.Popen[bytes]) -> int:
        """Weather for a while; the most memory seen, KiB."""
        over, peak = threading.Event(), 0
        thread = threading.Thread(target=STORMS[storm], args=(self.proxy(link), over, draw), daemon=True)
        thread.start()
        end = time.monotonic() + STORM_SECONDS
        while time.monotonic() < end:
            peak = max(peak, resident_kib(process.pid))
            time.sleep(0.1)
        over.set()
        thread.join(5)
        self.proxy(link).calm()
        if storm == "deaf, then cut":
            self.proxy(link).cut()
        return peak

    def run(self, link: str, storm: str, phase: str, draw: random.Random) -> tuple[float, int, int, int]:
        """Seconds to the head after the weather, rows lost, rows doubled, growth in KiB."""
        process = self.project.start("run")
        try:
            self.wait(0 if phase == "backfill" else self.anvil.head())
            before = resident_kib(process.pid)
            if phase == "backfill":
                build_transfers(self.anvil, 150, 10, token=self.built.token, real=False, seed=3)
                peak = self.blow(link, storm, draw, process)
            else:
                with Weaver(self.anvil, self.built.token, draw, pause=(0.1, 0.3)):
                    peak = self.blow(link, storm, draw, process)
            began = time.monotonic()
            lost, doubled = settle(self.witness, self.anvil, self.built.token, BACK_SECONDS_MAX * patience(few=False))
            assert process.poll() is None, self.project.log()
            peak = max(peak, resident_kib(process.pid))
            return time.monotonic() - began, lost, doubled, max(0, peak - before)
        except AssertionError:
            print(self.project.log())
            raise
        finally:
            stop(process)

    def wait(self, position: int) -> None:
        seconds_until(lambda: self.witness.position() >= position, 60, self.project.log)


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("link", "storm", "phase"), CELLS)
def test_weather_passes(
    anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, link: str, storm: str, phase: str
) -> None:
    """After it the run stands at the head within the longest wait there is, exact, and no larger than 64 MiB more."""
    draw = draws("weather", 0)
    with TcpProxy(anvil.port) as node, TcpProxy(postgres_server.port) as sql:
        cell = Cell(anvil, tmp_path, postgres_url, node, sql)
        seconds, lost, doubled, growth = cell.run(link, storm, phase, draw)
    figures(
        "T18 weather",
        link=link,
        storm=storm,
        phase=phase,
        back_seconds=round(seconds, 1),
        growth_mib=round(growth / 1024, 1),
        lost=lost,
        doubled=doubled,
    )
    assert (lost, doubled) == (0, 0)
    assert growth <= GROWTH_KIB_MAX


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_build_that_waits_for_ever_is_caught(
    anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    """Without a bound on replies a half-open connection to Postgres holds the run up until the kernel gives it up."""
    with TcpProxy(anvil.port) as node, TcpProxy(postgres_server.port) as sql:
        cell = Cell(anvil, tmp_path, postgres_url, node, sql)
        with broken(cell.project, "waits-for-ever"):
            process = cell.project.start("run")
            try:
                cell.wait(anvil.head())
                sql.forsake()
                build_transfers(anvil, 5, 5, token=cell.built.token, real=False, seed=4)
                with pytest.raises(AssertionError):
                    settle(cell.witness, anvil, cell.built.token, BACK_SECONDS_MAX)
            finally:
                process.kill()
                process.wait()
