"""Progress of a command that works through a range."""

from __future__ import annotations

import pytest

from gapless.cli.steps import Steps
from gapless.testing.fake_clock import FakeClock


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal a line every ten seconds says how far, how fast, how long; quick work says nothing."""
    clock = FakeClock()
    with Steps("verify", clock) as steps:
        for done in range(1, 26):
            clock.advance(1)
            steps.tick(done * 100, 5000)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "verify: 1 000 of 5 000 (20 %), 100/s, 40 s left",
        "verify: 2 000 of 5 000 (40 %), 100/s, 30 s left",
    ]
