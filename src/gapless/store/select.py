"""Which statements `query` may run at all. Each database confines them further, by its own means."""

from __future__ import annotations

import re

from gapless.errors import ReadOnlyStore, StoreError

_NOISE = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*", re.DOTALL)
_WORD = re.compile(r"[a-zA-Z]+")
_READING = frozenset({"select", "with", "values"})


def check_select(sql: str) -> str:
    """The statement, without what may end it. Raises ReadOnlyStore unless it starts as a SELECT does."""
    start = _NOISE.match(sql)
    word = _WORD.match(sql, start.end() if start else 0)
    if word is None:
        raise StoreError("There is no statement to run", todo="Give one SELECT.")
    if word.group().lower() not in _READING:
        raise refused(f"{word.group().upper()} is not a query")
    return sql.rstrip().rstrip(";").rstrip()


def refused(why: str) -> ReadOnlyStore:
    """The error for a statement that would do more than read."""
    return ReadOnlyStore(
        f"The statement was not run: {why}", todo="Only one SELECT (or WITH … SELECT, or VALUES) can be run here."
    )
