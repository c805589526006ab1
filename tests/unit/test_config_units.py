"""Quantities as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.config import units
from gapless.model import Finality, FinalityRule


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500 ms", 0.5),
        ("30 seconds", 30),
        ("1 second", 1),
        ("30s", 30),
        ("1.5 min", 90),
        ("15 minutes", 900),
        ("2 hours", 7200),
        ("1 day", 86400),
        ("1_000 s", 1000),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    """A duration is a number with a unit, in any usual spelling."""
    assert units.duration_seconds(text) == seconds


@pytest.mark.parametrize("text", [30, 1.5, "30", "seconds", "30 fortnights", "-3 s", "", None, True, "1e3 s"])
def test_duration_refused(text: object) -> None:
    """A bare number or an unknown unit is refused with an example of what to write."""
    with pytest.raises(ValueError, match="30 seconds"):
        units.duration_seconds(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64 MB", 64_000_000), ("64MiB", 67_108_864), ("1 gb", 10**9), ("512 B", 512), ("1.5 KB", 1500)]
)
def test_size(text: str, size: int) -> None:
    """MB are powers of ten, MiB powers of two."""
    assert units.size_bytes(text) == size


@pytest.mark.parametrize("text", [64, "64", "64 Mb/s", "12 parsec"])
def test_size_refused(text: object) -> None:
    """A size without a unit of bytes is refused."""
    with pytest.raises(ValueError, match="64 MB"):
        units.size_bytes(text)


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("100 %", 1.0), ("0%", 0.0), ("0.5%", 0.005)])
def test_share(text: str, value: float) -> None:
    """A share is a percentage."""
    assert units.share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["101%", "1", 0.01, "-1%", 1])
def test_share_refused(text: object) -> None:
    """More than all, or a number whose meaning nobody can see, is refused."""
    with pytest.raises(ValueError, match="percentage"):
        units.share(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("finalized", Finality(FinalityRule.TAG, "finalized")),
        ("safe", Finality(FinalityRule.TAG, "safe")),
        ("12 blocks", Finality(FinalityRule.DEPTH, 12)),
        ("1 block", Finality(FinalityRule.DEPTH, 1)),
        ("15 minutes", Finality(FinalityRule.AGE, 900.0)),
    ],
)
def test_finality(text: str, rule: Finality) -> None:
    """Finality is a tag, a depth, or an age, told apart by the unit."""
    assert units.finality(text) == rule


@pytest.mark.parametrize("text", ["final", 12, "12", "1.5 blocks", "latest"])
def test_finality_refused(text: object) -> None:
    """What is none of the three is refused, naming the three."""
    with pytest.raises(ValueError, match=r"12 blocks.*15 minutes"):
        units.finality(text)


def test_start() -> None:
    """A start is a position, the head, or a date, which means midnight UTC."""
    day = datetime(2026, 11, 22, tzinfo=UTC)
    assert units.start(7) == 7
    assert units.start("head") == "head"
    assert units.start("2026-11-22") == day
    assert units.start(day.date()) == day
    assert units.start(datetime(2026, 11, 22)) == day  # noqa: DTZ001
    assert units.start("2026-11-22T02:00:00+02:00") == day
    for bad in (-1, True, 1.0, "tail", None):
        with pytest.raises(ValueError, match="position"):
            units.start(bad)


@given(st.integers(1, 10**9))
def test_text_round_trip(number: int) -> None:
    """What `config show` prints is read back as the same value."""
    assert units.duration_seconds(units.duration_text(number)) == number
    assert units.duration_seconds(units.duration_text(number / 1000)) == pytest.approx(number / 1000)
    assert units.size_bytes(units.size_text(number)) == number
    depth = Finality(FinalityRule.DEPTH, number)
    assert units.finality(units.finality_text(depth)) == depth
    assert units.share(units.share_text(number / 10**9)) == pytest.approx(number / 10**9)
