"""Canonical text: one form a value, the same after every way through a database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.schema import Column, Kind, Nature, Rows, Table, canonical_json, from_text, timestamp_text, to_text

VALUE = {kind: Column("value", kind) for kind in Kind}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def as_decimals(text: str) -> str:
    """What a database that reads JSON numbers as decimals gives back, keys in another order."""

    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ",".join(f"{json.dumps(k)}: {shown(v)}" for k, v in reversed(value.items())) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(shown, value)) + "]"
        return format(value, "f") if isinstance(value, Decimal) else json.dumps(value)

    return shown(json.loads(text, parse_float=Decimal, parse_int=Decimal))


@given(json_values.filter(lambda v: v is not None))
def test_json_comes_back_from_a_database_of_decimals(value: Any) -> None:
    """However the database writes numbers and orders keys, the canonical text is the one that went in."""
    try:
        text = to_text(VALUE[Kind.JSON], value)
    except ValueError:
        assert "\\u0000" in json.dumps(value) or not _encodes(value)
        return
    assert text is not None
    assert canonical_json(json.loads(as_decimals(text))) == text
    assert to_text(VALUE[Kind.JSON], from_text(VALUE[Kind.JSON], text)) == text


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("value", ["\\u0000", "a\\u0000b", ["\\\\u0000"], {"\\u0000": 1}, "\\\\\\u0000"])
def test_text_about_nul_is_no_nul(value: Any) -> None:
    r"""A backslash followed by `u0000` is six harmless characters, and is kept."""
    text = to_text(VALUE[Kind.JSON], value)
    assert text is not None
    assert json.loads(text) == value


@pytest.mark.parametrize("value", ["\0", "a\0", "\\\0", "\\\\\0", ["\0"], {"\0": 1}, {"a": {"b": "c\\\\\0"}}])
def test_nul_itself_is_refused(value: Any) -> None:
    """Postgres cannot hold it, however many backslashes stand before it."""
    with pytest.raises(ValueError, match="NUL"):
        to_text(VALUE[Kind.JSON], value)


@pytest.mark.parametrize("value", [{1: 2}, [{"a": {None: 1}}], {True: 1}, {"a": [({1.5: 2},)]}])
def test_json_keys_are_text(value: Any) -> None:
    """Other keys would become text and then stand in another order than they were sorted in."""
    with pytest.raises(ValueError, match="is not text"):
        to_text(VALUE[Kind.JSON], value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_json_has_no_infinities(value: Any) -> None:
    """JSON has no word for them."""
    with pytest.raises(ValueError, match="JSON compliant"):
        to_text(VALUE[Kind.JSON], value)


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_time_python_has_comes_back(moment: datetime) -> None:
    """From the year 1 to 9999, microseconds included, with four digits of the year."""
    text = to_text(VALUE[Kind.TIMESTAMP], moment)
    assert text is not None
    assert len(text) in (20, 27)
    assert from_text(VALUE[Kind.TIMESTAMP], text) == moment
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert timestamp_text(microseconds) == text


def test_text_orders_times_before_and_after_1970() -> None:
    """Times of one precision are ordered as their texts are, also before the year 1000."""
    seconds = [-62_135_596_800, -30_000_000_000, -1, 0, 1, 253_402_300_799]
    texts = [timestamp_text(s * 1_000_000) for s in seconds]
    assert texts == sorted(texts)
    assert texts[0] == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize("microseconds", [253_402_300_800_000_000, 2**80, -(2**80)])
def test_a_time_no_calendar_has_is_refused(microseconds: int) -> None:
    """It must not become another time."""
    with pytest.raises(OverflowError):
        timestamp_text(microseconds)


def test_a_time_that_leaves_the_calendar_in_utc_is_refused() -> None:
    """As a value that does not fit, like any other."""
    with pytest.raises(ValueError, match="year"):
        to_text(VALUE[Kind.TIMESTAMP], datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))))


@pytest.mark.parametrize("value", [10**78 - 1, -(10**78) + 1, 2**256 - 1, 0, Decimal(10) ** 70])
def test_large_integers_are_exact(value: Any) -> None:
    """Every digit of 78 comes back."""
    assert from_text(VALUE[Kind.UINT256], to_text(VALUE[Kind.UINT256], value)) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((kind, value) for kind in (Kind.INT, Kind.UINT256) for value in (1.5, float("inf"), float("nan"), True)),
        (Kind.INT, 2**63),
        (Kind.INT, -(2**63) - 1),
        (Kind.UINT256, 10**78),
        (Kind.ADDRESS, "0x12"),
        (Kind.HASH, "12" * 32),
        (Kind.BYTES, "0x1"),
        (Kind.BYTES, "0xzz"),
        (Kind.TEXT, "a\0b"),
        (Kind.TEXT, "\ud800"),
        (Kind.JSON, "\ud800"),
        (Kind.TIMESTAMP, datetime(2020, 1, 1)),  # noqa: DTZ001 - without a zone on purpose
    ],
)
def test_what_does_not_fit_is_a_value_error(kind: Kind, value: Any) -> None:
    """Never a silent conversion, and never an error of another kind."""
    with pytest.raises(ValueError, match=r"."):
        to_text(VALUE[kind], value)


def test_null_is_for_columns_that_may_be_null() -> None:
    """Anywhere else it is a value that is missing."""
    assert to_text(Column("value", Kind.INT, nullable=True), None) is None
    for kind in Kind:
        with pytest.raises(ValueError, match="value may not be NULL"):
            to_text(VALUE[kind], None)


@given(st.lists(st.one_of(st.none(), st.text(alphabet="\\N\t\n\rab\x0b\u2028")), min_size=1, max_size=5))
def test_lines_of_different_rows_differ(values: list[str | None]) -> None:
    """A line can be split into the very values it was made of, so no two rows share one."""
    table = Table("t", "s", Nature.FACT, (Column("p", Kind.INT), Column("v", Kind.TEXT, nullable=True)), ("p",))
    lines = Rows(table, (["1"] * len(values), values), (len(values),)).lines
    unescaped = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}

    def read(text: str) -> str | None:
        if text == "\\N":
            return None
        out, at = "", 0
        while at < len(text):
            if text[at] == "\\":
                at += 1
                out += unescaped[text[at]]
            else:
                out += text[at]
            at += 1
        return out

    assert [read(line.split("\t")[1]) for line in lines] == values
