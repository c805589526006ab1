"""T24: minutes or hours of following Anvil through forks, kills and weather at a stated rate. Nothing grows.

`make soak` runs it: FAULTS_SOAK_MINUTES (10), FAULTS_SOAK_BLOCKS_PER_SECOND (4).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from faults.live import Weaver, broken, descriptors, resident_kib, settle, through
from faults.scale import draws, figures, quantile
from gapless.testing.tcp_proxy import TcpProxy, Weather
from servers.anvil import Anvil, build_transfers
from servers.postgres import PostgresServer
from servers.project import Project, stop

MINUTES = float(os.environ.get("FAULTS_SOAK_MINUTES", 10))
BLOCKS_PER_SECOND = float(os.environ.get("FAULTS_SOAK_BLOCKS_PER_SECOND", 4))
WARM_UP_SHARE = 0.3
SAMPLE_SECONDS = 0.5
TROUBLE_EVERY_SECONDS = 20.0
GROWTH_KIB_PER_HOUR_MAX = 1024
NOISE_KIB = 2048
"""What the memory of a process moves by itself in a run too short to tell a slope."""
DESCRIPTORS_MORE_MAX = 12
CONNECTIONS_MAX = 16


@dataclass
class Samples:
    """What one process looked like over time; a kill begins a new list."""

    at: list[float] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, pid: int, now: float) -> None:
        self.at.append(now)
        self.kib.append(resident_kib(pid))
        self.files.append(descriptors(pid))
        try:
            self.threads.append(len(list(Path(f"/proc/{pid}/task").iterdir())))
        except OSError:
            self.threads.append(0)

    def slope(self, values: list[int]) -> float:
        """Of a straight line through the values after the warm-up, a second."""
        start = int(len(values) * WARM_UP_SHARE)
        xs, ys = self.at[start:], values[start:]
        if len(xs) < 3:
            return 0.0
        mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
        spread = sum((x - mean_x) ** 2 for x in xs)
        return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / (spread or 1.0)


def connections(project: Project) -> int:
    [(count,)] = project.sql(
        "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'gapless%'"
    )
    return int(count)


def soak(
    anvil: Anvil, folder: Path, server: PostgresServer, url: str, seconds: float, draw: random.Random, *, kills: bool
) -> tuple[Samples, list[float], dict[str, int], tuple[int, int]]:
    """Follow for so long; samples of the process that lived longest, lags in blocks, what happened, the difference."""
    built = build_transfers(anvil, 30, 20, real=False)
    pause = 1.0 / BLOCKS_PER_SECOND
    best, samples, lags = Samples(), Samples(), list[float]()
    happened = {"kills": 0, "cuts": 0, "storms": 0, "connections_max": 0}
    with TcpProxy(anvil.port) as node, TcpProxy(server.port) as sql:
        rpc = [f"http://127.0.0.1:{node.port}"]
        project = Project(folder, through(url, sql.port), rpc, built.token, poll="100 ms", timeout="5 seconds")
        witness = Project(folder / "witness", url, rpc, built.token)
        process = project.start("run")
        project.wait_position(0)
        began, next_trouble = time.monotonic(), TROUBLE_EVERY_SECONDS
        kill_at = seconds * 0.1 if kills else seconds * 2
        with Weaver(anvil, built.token, draw, pause=(0.5 * pause, pause), fork=0.05) as weaver:
            while (now := time.monotonic() - began) < seconds:
                samples.take(process.pid, now)
                lags.append(max(0.0, anvil.head() - witness.position()))
                happened["connections_max"] = max(happened["connections_max"], connections(witness))
                if now >= kill_at:
                    process, samples, kill_at = _killed(project, process), Samples(), seconds * 2
                    happened["kills"] += 1
                elif now >= next_trouble:
                    _trouble(node, sql, draw, happened)
                    next_trouble = now + TROUBLE_EVERY_SECONDS
                best = samples if len(samples.at) > len(best.at) else best
                time.sleep(SAMPLE_SECONDS)
        happened |= {"blocks": weaver.blocks, "forks": weaver.forks}
        for proxy in (node, sql):
            proxy.calm()
        try:
            found = settle(witness, anvil, built.token)
        finally:
            stop(process)
    return best, lags, happened, found


def _killed(project: Project, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    process.send_signal(signal.SIGKILL)
    process.wait()
    return project.start("run")


def _trouble(node: TcpProxy, sql: TcpProxy, draw: random.Random, happened: dict[str, int]) -> None:
    """A cut, or latency until the next trouble."""
    proxy = draw.choice((node, sql))
    for each in (node, sql):
        each.calm()
    if draw.random() < 0.6:
        (proxy.cut if draw.random() < 0.5 else proxy.reset)()
        happened["cuts"] += 1
    else:
        proxy.weather = Weather(latency_seconds=(0.0, 0.05))
        happened["storms"] += 1


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.soak
@pytest.mark.timeout(24 * 3600)
def test_nothing_grows(anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str) -> None:
    """Memory, files, threads and connections stay flat, the lag returns to nothing, and every row is there once."""
    seconds = MINUTES * 60
    draw = draws("nothing_grows", round(seconds))
    samples, lags, happened, (lost, doubled) = soak(
        anvil, tmp_path, postgres_server, postgres_url, seconds, draw, kills=True
    )
    hours = (samples.at[-1] - samples.at[0]) * (1 - WARM_UP_SHARE) / 3600
    growth = samples.slope(samples.kib) * 3600
    files = samples.files[int(len(samples.files) * WARM_UP_SHARE) :]
    figures(
        "T24 soak",
        minutes=MINUTES,
        blocks_per_second=BLOCKS_PER_SECOND,
        rss_mib=round(samples.kib[-1] / 1024, 1),
        rss_slope_kib_per_hour=round(growth),
        files_min=min(files),
        files_max=max(files),
        threads_max=max(samples.threads),
        lag_blocks_p50=quantile(lags, 0.5),
        lag_blocks_p99=quantile(lags, 0.99),
        lag_seconds_p99=round(quantile(lags, 0.99) / BLOCKS_PER_SECOND, 1),
        lost=lost,
        doubled=doubled,
        **happened,
    )
    assert (lost, doubled) == (0, 0)
    assert growth * hours <= GROWTH_KIB_PER_HOUR_MAX * hours + NOISE_KIB
    assert max(files) - min(files) <= DESCRIPTORS_MORE_MAX
    assert happened["connections_max"] <= CONNECTIONS_MAX


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.soak
def test_a_build_that_leaks_is_caught(
    anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 kB left behind by every commit is a slope that the test above does not pass."""
    seconds, draw = 40.0, draws("that_leaks", 40)
    start = Project.start

    def leaking(self: Project, *arguments: str, log: str = "log") -> subprocess.Popen[bytes]:
        monkeypatch.setattr(Project, "start", start)
        with broken(self, "leaks"):
            return self.start(*arguments, log=log)

    monkeypatch.setattr(Project, "start", leaking)
    samples, *_ = soak(anvil, tmp_path, postgres_server, postgres_url, seconds, draw, kills=False)
    hours = (samples.at[-1] - samples.at[0]) * (1 - WARM_UP_SHARE) / 3600
    assert samples.slope(samples.kib) * 3600 * hours > GROWTH_KIB_PER_HOUR_MAX * hours + NOISE_KIB
