"""Handlers in trouble: a database that is away, code that swallows errors or leaves, names that are in the way."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from gapless.declare import UInt256, bind, key
from gapless.engine.derive import Deriver
from gapless.engine.handlers import Handler
from gapless.engine.state import Key
from gapless.errors import HandlerFailed, StoreUnavailable
from gapless.model import Entry, Evidence, Segment
from gapless.schema import Table
from gapless.sources import Decoded, Events
from gapless.store import StateRow
from unit.engine.scripted import ListDecoder


@dataclass(frozen=True)
class Total:
    name: str = key()
    value: UInt256 = 0


@dataclass(frozen=True)
class Seen:
    amount: UInt256


@dataclass(frozen=True)
class Facts:
    amount: UInt256


TOTAL, SEEN = bind(Total, "s"), bind(Seen, "s")


def segment(first: int, payload: list[list[int]]) -> Segment[list[list[int]]]:
    entries = tuple(
        Entry(first + i, f"id{first + i}", f"id{first + i - 1}", 0, Evidence.CHECKED) for i in range(len(payload))
    )
    return Segment("s", entries, payload, 0)


class Database:
    def __init__(self) -> None:
        self.away = False

    def read(self, _table: Table, _keys: Sequence[Key]) -> dict[Key, StateRow]:
        if self.away:
            raise StoreUnavailable("away")
        return {}


def deriver(
    function: Any, read: Any, *, bindings: Any = (TOTAL, SEEN), decoder: Any = None, **options: bool
) -> Deriver:
    handler = Handler("add", "token.Transfer", function, **options)
    return Deriver("s", decoder or ListDecoder(), [handler], bindings, read, 1000)


def add(transfer: Any, tables: Any) -> None:
    total = tables[Total].get("all")
    tables[Total].put(Total("all", (total.value if total else 0) + transfer.value))
    tables[Seen].insert(Seen(transfer.value))


def careless(transfer: Any, tables: Any) -> None:
    """Takes whatever goes wrong for nothing being there."""
    try:
        total = tables[Total].get("all")
    except Exception:  # noqa: BLE001 - that is the point
        total = None
    tables[Seen].insert(Seen(total.value if total else 0))


@pytest.mark.parametrize("function", [add, careless])
@pytest.mark.parametrize("independent", [False, True])
def test_a_database_that_is_away_is_not_the_handlers_failure(function: Any, independent: bool) -> None:
    """Neither a halt nor an event in quarantine: it is waited for, and nothing of the attempt remains. Also where the
    handler swallows the error: what it did then must not count."""
    database = Database()
    made = deriver(function, database.read, independent=independent)
    database.away = True
    with pytest.raises(StoreUnavailable):
        made.derive(segment(0, [[1], [2]]), finalized=-1)
    database.away = False
    made.reset()
    batch = made.derive(segment(0, [[1], [2]]), finalized=-1).batch
    assert batch is not None
    assert batch.quarantined == ()
    assert len(next(r for r in batch.rows if r.table.name == "seen")) == 2


def test_a_careless_handler_is_skipped_in_a_repair() -> None:
    """Without state it must not write what it would without an error, either."""
    derived = deriver(careless, None).derive(segment(3, [[1, 2]]), finalized=-1)
    assert derived.batch is not None
    assert [r.table.name for r in derived.batch.rows] == ["token_transfer"]
    assert derived.skipped == {"seen"}
    assert derived.skipped_handlers == {"add"}


@pytest.mark.parametrize("batch", [False, True])
def test_a_handler_that_leaves_has_failed(batch: bool) -> None:
    """`sys.exit()` in a handler stops its block with its name, not the process without one."""

    def leave(_event: Any, _tables: Any) -> None:
        sys.exit(3)

    derived = deriver(leave, Database().read, batch=batch).derive(segment(5, [[], [1]]), finalized=-1)
    assert isinstance(derived.failure, HandlerFailed)
    assert "'add' raised SystemExit: 3 at block 6" in str(derived.failure)
    assert derived.batch is not None
    assert [e.position for e in derived.batch.entries] == [5]


def test_a_batch_that_cannot_be_handled_waits_with_its_events() -> None:
    """Nothing is dropped: the entry's rows are in quarantine, exactly."""

    def fail(_events: Any, _tables: Any) -> None:
        raise ValueError("no")

    derived = deriver(fail, Database().read, batch=True, independent=True).derive(
        segment(5, [[10**30, 2], []]), finalized=-1
    )
    assert derived.batch is not None
    [item] = derived.batch.quarantined
    assert (item.position, item.item, item.consumer) == (5, "block", "add")
    assert [row["value"] for row in json.loads(item.payload)] == [str(10**30), "2"]


@pytest.mark.parametrize("name", ["None", "class", "Foo$Bar", "2nd"])
def test_events_with_names_python_does_not_take(name: str) -> None:
    """A contract may name an event as it likes."""

    class Renaming(ListDecoder):
        def decode(self, segment: Segment[list[list[int]]]) -> Decoded:
            decoded = super().decode(segment)
            [events] = decoded.events
            return Decoded(decoded.rows, (Events(f"token.{name}", events.rows, events.order),), ())

    handler = Handler("add", f"token.{name}", add)
    made = Deriver("s", Renaming(), [handler], (TOTAL, SEEN), Database().read, 1000)
    batch = made.derive(segment(0, [[7]]), finalized=-1).batch
    assert batch is not None
    assert [c.values for c in batch.changes] == [("all", "7")]


def test_a_table_may_have_any_name() -> None:
    """Nothing the view has of its own stands in the way."""
    binding = bind(Facts, "s")

    def insert(transfer: Any, tables: Any) -> None:
        tables.facts.insert(Facts(transfer.value))

    derived = deriver(insert, Database().read, bindings=(binding,)).derive(segment(0, [[7]]), finalized=-1)
    assert derived.failure is None
    assert derived.batch is not None
    assert "facts" in {r.table.name for r in derived.batch.rows}
