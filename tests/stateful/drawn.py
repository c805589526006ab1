"""What the store machine draws: blocks with rows, state and faulty items, and the tables they go to."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from gapless.model import Evidence, Identity
from gapless.schema import Column, Kind, Nature, Schema, Table

SOURCE, NEIGHBOUR = "s", "t"
"""The source that everything happens to, and another one in the same database, to which nothing may."""
IDENTITY = Identity("scripted", "1", "genesis")
START = 5
TIME_US = 1_700_000_000_000_000

_KEY = (Column("block_number", Kind.INT), Column("log_index", Kind.INT))
TRANSFERS = Table(
    "transfer", SOURCE, Nature.FACT, (*_KEY, Column("value", Kind.UINT256)), ("block_number", "log_index")
)
MEMOS = Table(
    "memo",
    SOURCE,
    Nature.FACT,
    (*_KEY, Column("said", Kind.TEXT, nullable=True)),
    ("block_number", "log_index"),
)
HOLDINGS = Table(
    "holding",
    SOURCE,
    Nature.STATE,
    (Column("holder", Kind.TEXT), Column("balance", Kind.UINT256), Column("note", Kind.TEXT, nullable=True)),
    ("holder",),
)
VISITS = Table(
    "visit",
    SOURCE,
    Nature.STATE,
    (Column("holder", Kind.TEXT), Column("day", Kind.INT), Column("times", Kind.INT)),
    ("holder", "day"),
)
OTHERS = Table("other", NEIGHBOUR, Nature.FACT, _KEY, ("block_number", "log_index"))
OTHER_STATE = Table(
    "other_state", NEIGHBOUR, Nature.STATE, (Column("holder", Kind.TEXT), Column("balance", Kind.INT)), ("holder",)
)
FACTS = (MEMOS, TRANSFERS)
STATES = (HOLDINGS, VISITS)
SCHEMA = Schema("stateful", (TRANSFERS, MEMOS, HOLDINGS, VISITS, OTHERS, OTHER_STATE), (SOURCE, NEIGHBOUR))

TEXTS = ("", "a", "\\N", "a\tb", "\\", "\n", "NULL", "☃ 𝄞", "'", "%s")
HOLDERS = ("ann", "bob", "b\tob", "ünal")


@dataclass(frozen=True)
class Put:
    """A state row gets a value, or none."""

    table: Table
    key: tuple[str, ...]
    rest: tuple[str | None, ...] | None

    def __repr__(self) -> str:
        return f"Put({self.table.name}, {self.key}, {self.rest})"


@dataclass(frozen=True)
class Drawn:
    """One block's contents."""

    values: tuple[int, ...] = ()
    memos: tuple[str | None, ...] = ()
    puts: tuple[Put, ...] = ()
    faulty: bool = False
    evidence: Evidence = Evidence.CHECKED
    served_by: str = "one"
    audited: bool = False


def _holding(holder: str, balance: int | None, note: str | None) -> Put:
    return Put(HOLDINGS, (holder,), None if balance is None else (str(balance), note))


def _visit(holder: str, day: int, times: int | None) -> Put:
    return Put(VISITS, (holder, str(day)), None if times is None else (str(times),))


_texts = st.sampled_from(TEXTS)
_holders = st.sampled_from(HOLDERS)
_puts = st.one_of(
    st.builds(_holding, _holders, st.none() | st.integers(-3, 2**256 - 1), st.none() | _texts),
    st.builds(_visit, _holders, st.integers(-1, 1), st.none() | st.integers(0, 9)),
)


def _few(elements: st.SearchStrategy, size_max: int) -> st.SearchStrategy:
    return st.lists(elements, max_size=size_max).map(tuple)


BLOCKS = st.builds(
    Drawn,
    values=_few(st.integers(0, 11), 3),
    memos=_few(st.none() | _texts, 2),
    puts=_few(_puts, 3),
    faulty=st.booleans(),
    evidence=st.sampled_from(Evidence),
    served_by=st.sampled_from(["one", "two"]),
    audited=st.booleans(),
)
BRANCHES = st.lists(BLOCKS, min_size=1, max_size=4)
