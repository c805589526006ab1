"""T17: SIGKILL again and again while the chain grows and forks. Nothing is lost, nothing is doubled, nobody helps."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from faults.live import Weaver, broken, expected, settle
from faults.scale import draws, figures, patience, quantile, tiers
from servers.anvil import Anvil, build_transfers
from servers.project import Project, stop

RECOVERY_SECONDS_MAX = 5.0
START_SECONDS_MAX = 30.0


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "sqlite:///chain.db"


def revision(project: Project) -> int:
    """How often the source's data changed; -1 before there is any."""
    with suppress(Exception):  # the tables may not be there yet
        return int(project.sql("select revision from gapless_cursors")[0][0])
    return -1


def live_for(project: Project, seconds: float, *, after_commit: bool) -> float | None:
    """Run it and kill it so long after its start, or after its first commit; how soon that came, if it did."""
    before, recovered = revision(project), None
    process = project.start("run")
    began = time.monotonic()
    end = began + (START_SECONDS_MAX if after_commit else seconds)
    while time.monotonic() < end:
        if recovered is None and revision(project) > before:
            recovered = time.monotonic() - began
            end = min(end, time.monotonic() + seconds) if after_commit else end
        assert process.poll() is None, project.log()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return recovered


@pytest.mark.anvil
@pytest.mark.parametrize("kills", tiers("KILLS", 8, 2_000, timeout_seconds=4 * 3600))
def test_kills_lose_and_double_nothing(anvil: Anvil, tmp_path: Path, store_url: str, kills: int) -> None:
    """Killed at random moments, also while starting, the next start goes on by itself, and every row is there once."""
    draw = draws("test_kills", kills)
    built = build_transfers(anvil, 60, 20, real=False)
    project = Project(tmp_path, store_url, [anvil.url], built.token, span_max=5, poll="50 ms")
    recoveries: list[float] = []
    began = time.monotonic()
    with Weaver(anvil, built.token, draw) as weaver:
        for _ in range(kills):
            # Half of them whatever it is at, starting included; half among its commits.
            took = live_for(project, min(3.0, 0.3 + draw.expovariate(1.2)), after_commit=draw.random() < 0.5)
            if took is not None:
                recoveries.append(took)
    process = project.start("run")
    try:
        lost, doubled = settle(project, anvil, built.token)
    finally:
        stop(process)
    figures(
        "T17 kill storm",
        store=store_url.split(":")[0],
        kills=kills,
        recovered=len(recoveries),
        recovery_p50=round(quantile(recoveries or [0.0], 0.5), 2),
        recovery_p99=round(quantile(recoveries or [0.0], 0.99), 2),
        blocks=weaver.blocks,
        forks=weaver.forks,
        lost=lost,
        doubled=doubled,
        seconds=round(time.monotonic() - began),
    )
    assert (lost, doubled) == (0, 0)
    assert project.json("gaps")["gaps"] == []
    assert quantile(recoveries or [0.0], 0.99) <= RECOVERY_SECONDS_MAX * patience(few=kills < 100)


@pytest.mark.anvil
def test_a_build_that_moves_the_cursor_first_is_caught(anvil: Anvil, tmp_path: Path) -> None:
    """Killed between the cursor's transaction and the rows', such a build leaves holes, and the comparison says so."""
    built = build_transfers(anvil, 60, 20, real=False)
    project = Project(tmp_path, "sqlite:///chain.db", [anvil.url], built.token, span_max=2, poll="50 ms")
    with broken(project, "cursor-before-rows"):
        for _ in range(4):
            process, before = project.start("run"), project.position()
            deadline = time.monotonic() + 30
            while project.position() <= before and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            head, at = anvil.head(), project.position()
            if difference_below(project, anvil, built.token, at) and at <= head:
                return
    pytest.fail("the broken build lost nothing that was noticed")


def difference_below(project: Project, anvil: Anvil, token: str, position: int) -> bool:
    """Whether rows of committed blocks are missing."""
    wanted = {row for row in expected(anvil, token) if row.block_number <= position}
    return bool(wanted - set(project.transfers()))
