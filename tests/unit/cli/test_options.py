"""How options are read."""

from __future__ import annotations

import pytest

from gapless.cli.options import Range, parse_range
from gapless.cli.run import _check_roles, parse_until
from gapless.engine.plan import Until
from gapless.errors import UsageError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, Range()),
        ("5..9", Range(5, 9)),
        ("5..", Range(5, None)),
        ("..9", Range(None, 9)),
        ("7", Range(7, 7)),
        ("..", Range()),
        ("1_000 .. 2_000", Range(1000, 2000)),
        ("0..0", Range(0, 0)),
    ],
)
def test_range(text: str | None, wanted: Range) -> None:
    """Both ends are included, and either may be left open."""
    assert parse_range(text) == wanted


@pytest.mark.parametrize("text", ["", "a..b", "5-9", "9..5", "-1..5", "5...9"])
def test_range_refused(text: str) -> None:
    """What is no range is refused, with one that is."""
    with pytest.raises(UsageError, match="--range"):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(None, Until.FOREVER), ("head", Until.HEAD), ("finalized", Until.FINALIZED), ("1_000", 1000), ("0", 0)],
)
def test_until(text: str | None, wanted: Until | int) -> None:
    """A run ends at the head, at what is final, at a position, or never."""
    assert parse_until(text) == wanted


@pytest.mark.parametrize("text", ["forever", "latest", "-1", "1.5"])
def test_until_refused(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError, match="--until head"):
        parse_until(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ingest", "share a journal in memory"),
        ("ingest,index,serve", "'serve' comes in a later release"),
        ("ingest,indx", "perhaps you mean 'index'"),
    ],
)
def test_roles_refused(text: str, said: str) -> None:
    """Roles that cannot run by themselves, or not yet, are refused."""
    with pytest.raises(UsageError, match=said):
        _check_roles(text)


def test_roles() -> None:
    """Both roles of this release, in any order, are what runs anyway."""
    _check_roles(None)
    _check_roles("index, ingest")
