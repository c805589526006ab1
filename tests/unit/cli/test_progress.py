"""Rate, time left, and the lines of a run without a terminal."""

from __future__ import annotations

from typing import Any

import pytest
import structlog.testing

from gapless.cli.progress import Lines, Meter, Rate
from gapless.model import Mode
from gapless.telemetry.watch import SourceState, Watch
from gapless.testing.fake_clock import FakeClock


def test_rate() -> None:
    """The rate is that of the last moments, not of the whole run."""
    rate = Rate()
    assert rate.per_second == 0
    assert rate.eta_seconds(0, 100) is None
    for second in range(61):
        rate.note(second, second * 10)
    assert rate.per_second == pytest.approx(10)
    assert rate.eta_seconds(600, 1000) == pytest.approx(40)
    for second in range(61, 100):
        rate.note(second, 600)
    assert rate.per_second == 0


def test_rate_after_a_fork() -> None:
    """Going back is not a negative rate."""
    rate = Rate()
    rate.note(0, 100)
    rate.note(1, 94)
    assert rate.per_second == 0
    rate.note(2, 104)
    assert rate.per_second == pytest.approx(10)


def test_meter() -> None:
    """Done and total count from the source's first position."""
    state = SourceState(start=1000, target=1999, position=1499, head=2010)
    meter = Meter(state)
    assert (meter.done, meter.total) == (500, 1000)
    assert meter.fields()["percent"] == 50.0
    assert meter.fields()["lag_positions"] == 511
    assert Meter(SourceState()).fields()["percent"] is None


def progress_lines(mode: Mode, seconds: int) -> list[Any]:
    clock = FakeClock()
    watch = Watch(["mainnet"], clock)
    watch.mode("mainnet", mode, None)
    watch.target("mainnet", 0, 100_000)
    watch.head("mainnet", 100_000, 0, 1)
    lines = Lines(watch, clock)
    with structlog.testing.capture_logs() as said:
        for second in range(seconds):
            clock.advance(1)
            watch.position("mainnet", second * 100, 1)
            lines.tick()
    return [line for line in said if line["event"] == "progress"]


def test_a_line_every_ten_seconds() -> None:
    """Catching up, a minute is six lines with rate and time left."""
    said = progress_lines(Mode.CATCHING_UP, 60)
    assert len(said) == 6
    assert said[-1]["positions_per_s"] == 100
    assert said[-1]["eta_s"] == pytest.approx((100_000 - 5900) / 100, abs=1)


def test_quiet_when_live() -> None:
    """A source that only waits for its chain says a line in five minutes."""
    assert len(progress_lines(Mode.LIVE, 600)) == 2
