"""What the parts of the contract share: stores on one database, leadership, and the comparison with the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gapless.clock import SystemClock
from gapless.digest import entry_digests
from gapless.model import Cursor, Fence
from gapless.schema import Rows, Schema
from gapless.store import Store
from gapless.testing.store_contract.sample import HOLDINGS, IDENTITY, MEMOS, SCHEMA, SOURCE, TRANSFERS, VISITS, Chain

TTL_SECONDS = 60.0


class StoreCase:
    """One test's database."""

    def make_store(self) -> Store:
        """A new, not yet opened handle on this test's database, which is empty when the test begins."""
        pytest.fail("a subclass of StoreContract says how its stores are made")

    def let_pass(self, seconds: float) -> None:
        """Let so much time pass on the store's clock."""
        SystemClock().wait(threading.Event(), seconds)

    @contextmanager
    def opened(self, schema: Schema = SCHEMA, *, create: bool = True) -> Iterator[Store]:
        store = self.make_store()
        store.open(schema, create=create)
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def filled(self, chain: Chain, *, final: int | None = None) -> Iterator[tuple[Store, Fence]]:
        """A store that leads, with the whole chain committed, and the fence it leads under."""
        with self.opened() as store:
            fence = lead(store, chain)
            if chain.blocks:
                store.commit(chain.batch(chain.start, final=final), None, fence)
            yield store, fence


def lead(store: Store, chain: Chain, holder: str = "first") -> Fence:
    """Bind the chain's source and take its lease."""
    store.bind_source(chain.source, IDENTITY, chain.start)
    fence = store.acquire(chain.source, holder, TTL_SECONDS)
    assert fence is not None, "the lease is free"
    return fence


def assert_holds(store: Store, chain: Chain) -> None:
    """The store holds exactly what the chain says: nothing missing, nothing left over, everything recomputable."""
    everything = (chain.start - 10, chain.last + 1000)
    assert store.cursor(SOURCE) == (chain.cursor() if chain.blocks else None)
    stored = store.entries(SOURCE, *everything)
    assert [s.entry for s in stored] == [b.entry for b in chain.blocks]
    assert store.missing(SOURCE, chain.start, chain.last) == []
    assert store.damaged(SOURCE, *everything) == []
    assert store.coverage(SOURCE).missing == 0
    facts = []
    for table in (TRANSFERS, MEMOS):
        columns, positions = store.facts(table, *everything)
        rows = list(zip(*columns, strict=True))
        assert rows == chain.rows(table), f"rows of {table.name}"
        assert positions == [int(row[0] or 0) for row in rows]
        assert store.row_count(table) == len(rows)
        counts = tuple(positions.count(s.entry.position) for s in stored)
        facts.append(Rows(table, tuple(columns), counts))
    digests, totals = entry_digests([s.entry for s in stored], facts)
    assert [s.digest for s in stored] == digests, "digests recomputed from what is stored"
    assert [s.rows for s in stored] == totals
    for table in (HOLDINGS, VISITS):
        expected = chain.state(table)
        assert list(store.state_rows(table)) == list(expected.values()), f"rows of {table.name}"
        assert store.state(table, list(expected)) == expected
        assert store.row_count(table) == len(expected)
    assert sorted((q.item.position, q.item.item) for q in store.quarantine(SOURCE)) == chain.quarantined()


@contextmanager
def nothing_written(store: Store, chain: Chain) -> Iterator[None]:
    """The block leaves the store exactly as the chain says, books included."""

    def books() -> object:
        return store.gaps(SOURCE), store.reported(SOURCE), store.state_before(SOURCE, chain.start - 1)

    before = books()
    yield
    assert_holds(store, chain)
    assert books() == before


def wrong_id(cursor: Cursor) -> Cursor:
    """The same number, another id."""
    return Cursor(cursor.position, "0x" + "ee" * 32)
