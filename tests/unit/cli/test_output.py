"""Words and numbers for people."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from gapless.cli import output, query
from gapless.cli.config import _toml
from gapless.cli.query import QueryFormat


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (1.25, "1.2 s"),
        (59.4, "59 s"),
        (185, "3 min 5 s"),
        (7805, "2 h 10 min"),
        (41 * 86400, "41 days"),
    ],
)
def test_span(seconds: float | None, text: str) -> None:
    """A duration is said in the two largest units that matter."""
    assert output.span(seconds) == text


def test_counted() -> None:
    """One thing is singular, and thousands are set apart."""
    assert output.counted(1, "row") == "1 row"
    assert output.counted(4711, "row") == "4 711 rows"
    assert output.counted(2, "entry", "entries") == "2 entries"
    assert output.cell(None) == "–"
    assert output.cell(value=True) == "True"


def test_document(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe a document is one line, with its schema number first."""
    output.document({"b": 2**256, "a": "ü"})
    assert capsys.readouterr().out == '{"schema": 1, "b": ' + str(2**256) + ', "a": "ü"}\n'


ROW: tuple[Any, ...] = (
    *(7, 2.5, True, None, "a,b"),
    *(Decimal(2**255), b"\x01\xff", datetime(2026, 11, 22, tzinfo=UTC), {"k": [1]}),
)
COLUMNS = list("abcdefghi")


def written(form: QueryFormat) -> str:
    stream = io.StringIO()
    query._write(form, COLUMNS, [ROW], False, stream)
    return stream.getvalue()


def test_query_json() -> None:
    """Big decimals stay exact as text, bytes are hex, times ISO, JSON stays JSON."""
    found = json.loads(written(QueryFormat.JSON))
    assert found["schema"] == 1
    assert found["columns"] == COLUMNS
    assert found["rows"] == [
        [7, 2.5, True, None, "a,b", str(2**255), "0x01ff", "2026-11-22T00:00:00Z", {"k": [1]}],
    ]
    assert json.loads(written(QueryFormat.JSONL))["f"] == str(2**255)


def test_query_wide_numbers() -> None:
    """A column with one number that a float cannot hold is text as a whole; the others stay numbers."""
    assert query.exact([(1, 2), (3, 2**60)]) == [(1, "2"), (3, str(2**60))]
    assert query.exact([(1, None), (2**53, True)]) == [(1, None), (2**53, True)]


def test_query_csv() -> None:
    """CSV quotes what needs it; NULL is empty."""
    head, row = written(QueryFormat.CSV).splitlines()
    assert head == "a,b,c,d,e,f,g,h,i"
    assert row == f'7,2.5,True,,"a,b",{2**255},0x01ff,2026-11-22T00:00:00Z,"{{""k"": [1]}}"'


def test_config_as_toml() -> None:
    """What `config show` prints is TOML that says the same."""
    import tomllib

    values = {"app": {"name": "a"}, "sources": {"m": {"rpc": ["x"], "end": 7, "hashing": {"bloom": False}}}}
    lines = _toml(values, {"app.name": "file"})
    assert 'name = "a"  # file' in lines
    assert tomllib.loads("\n".join(lines)) == values
