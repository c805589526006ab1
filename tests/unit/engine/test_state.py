"""The state cache against a naive model: a dict and a list of copies."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.engine.state import Key, StateCache
from gapless.model import StateChange, Undo
from gapless.schema import Column, Kind, Nature, Table
from gapless.store import StateRow

TABLE = Table("t", "s", Nature.STATE, (Column("k", Kind.TEXT), Column("v", Kind.INT)), ("k",))
Rows = dict[Key, StateRow]


class Database:
    """Applies what the cache hands over, as a store would."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.undo: list[Undo] = []

    def read(self, _table: Table, keys: Sequence[Key]) -> Rows:
        return {k: self.rows[k] for k in keys if k in self.rows}

    def apply(self, changes: Sequence[StateChange], undo: Sequence[Undo]) -> None:
        for change in changes:
            if change.values is None:
                self.rows.pop(change.key, None)
            else:
                self.rows[change.key] = StateRow(change.values, change.position)
        self.undo += undo
        assert len({(u.position, u.table, u.key) for u in self.undo}) == len(self.undo), "one record a row and entry"

    def before(self, ancestor: int) -> list[Undo]:
        first: dict[Key, Undo] = {}
        for record in sorted((u for u in self.undo if u.position > ancestor), key=lambda u: u.position):
            first.setdefault(record.key, record)
        return list(first.values())


# An entry is a list of events; an event is a list of (key, value or None for delete) and whether it fails.
operation = st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 9)))
event = st.tuples(st.lists(operation, max_size=3), st.booleans())
entries = st.lists(st.lists(event, max_size=3), min_size=1, max_size=12)


def put(cache: StateCache, key: str, value: int | None) -> None:
    cache.put(TABLE, (key,), None if value is None else (key, str(value)))


def run_entry(
    cache: StateCache, model: dict[str, int], position: int, events: list[tuple[list[tuple[str, int | None]], bool]]
) -> None:
    cache.begin_entry(position, final=False)
    for operations, fails in events:
        cache.savepoint()
        tried = dict(model)
        for key, value in operations:
            put(cache, key, value)
            if value is None:
                tried.pop(key, None)
            else:
                tried[key] = value
        if fails:
            cache.rollback()
        else:
            cache.release()
            model.clear()
            model.update(tried)


def as_dict(rows: Rows) -> dict[str, int]:
    return {str(k[0]): int(str(r.values[1])) for k, r in rows.items()}


@settings(max_examples=300, deadline=None)
@given(entries, st.lists(st.integers(1, 4), min_size=12, max_size=12), st.integers(0, 2))
def test_batches_and_undo_equal_the_model(
    chain: list[list[tuple[list[tuple[str, int | None]], bool]]], sizes: list[int], rows_max: int
) -> None:
    """However entries are batched, the database ends as the model does, and the undo records give every earlier state
    back exactly, failed events leaving no trace."""
    database = Database()
    cache = StateCache(database.read, rows_max)
    model: dict[str, int] = {}
    snapshots = [dict(model)]
    position = 0
    remaining = list(chain)
    for size in sizes:
        if not remaining:
            break
        cache.begin_batch()
        for events in remaining[:size]:
            run_entry(cache, model, position, events)
            snapshots.append(dict(model))
            position += 1
        del remaining[:size]
        number, changes, undo = cache.take_batch()
        database.apply(changes, undo)
        cache.committed(number)
        assert as_dict(database.rows) == snapshots[position]
    for ancestor in range(-1, position):
        restored = as_dict(database.rows)
        for record in database.before(ancestor):
            if record.previous is None:
                restored.pop(str(record.key[0]), None)
            else:
                restored[str(record.key[0])] = int(str(record.previous[1]))
        assert restored == snapshots[ancestor + 1]


def test_after_a_reset_reads_see_the_ancestor() -> None:
    """On a fork, handlers see rows as they were at the common ancestor though the database shows the old branch."""
    database = Database()
    cache = StateCache(database.read, 100)
    for position, value in enumerate([1, 2, 3]):
        cache.begin_batch()
        cache.begin_entry(position, final=False)
        put(cache, "a", value)
        _, changes, undo = cache.take_batch()
        database.apply(changes, undo)
    cache.reset(database.before(0))
    row = cache.get(TABLE, ("a",))
    assert row is not None
    assert row.values == ("a", "1")


def test_uncommitted_rows_survive_eviction() -> None:
    """A bounded cache never drops a row that the database cannot give back yet."""
    database = Database()
    cache = StateCache(database.read, 0)
    cache.begin_batch()
    cache.begin_entry(1, final=False)
    put(cache, "a", 7)
    cache.take_batch()
    cache.begin_batch()
    row = cache.get(TABLE, ("a",))
    assert row is not None
    assert row.values == ("a", "7")
