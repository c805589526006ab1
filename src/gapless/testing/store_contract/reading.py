"""Reading what is committed: entries, coverage, holes, state by key."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from gapless.model import Evidence
from gapless.testing.store_contract.case import StoreCase, lead
from gapless.testing.store_contract.sample import HOLDINGS, MEMOS, SOURCE, TRANSFERS, VISITS, Chain, address


class ReadContract(StoreCase):
    """What the reading methods promise."""

    def test_entries_come_in_order_and_as_they_were(self) -> None:
        """With time, evidence, endpoint, audit, rows and digest; a range may reach beyond what there is."""
        chain = Chain(seed=70, start=1000).extend(12)
        with self.filled(chain) as (store, _):
            found = store.entries(SOURCE, 1003, 1008)
            assert [s.entry for s in found] == [b.entry for b in chain.blocks[3:9]]
            batch = chain.batch(1000)
            assert [(s.rows, s.digest) for s in found] == list(zip(batch.counts, batch.digests, strict=True))[3:9]
            assert [s.entry.position for s in store.entries(SOURCE, 0, 10**9)] == list(range(1000, 1012))
            assert store.entries(SOURCE, 2000, 3000) == []
            assert store.entries("nobody", 0, 10**9) == []

    def test_coverage_counts_entries_by_evidence(self) -> None:
        """First, last, how many, and how far each was checked; kinds that do not occur count zero."""
        chain = Chain(seed=71, start=5).extend(20)
        with self.filled(chain) as (store, _):
            coverage = store.coverage(SOURCE)
            assert (coverage.first, coverage.last, coverage.entries, coverage.missing) == (5, 24, 20, 0)
            kinds = [b.entry.evidence for b in chain.blocks]
            assert coverage.evidence == {e.value: kinds.count(e) for e in Evidence}

    def test_missing_names_what_is_not_there(self) -> None:
        """Everything outside the committed range, and nothing inside."""
        chain = Chain(seed=72, start=10).extend(5)
        with self.filled(chain) as (store, _):
            assert store.missing(SOURCE, 10, 14) == []
            assert store.missing(SOURCE, 8, 20) == [(8, 9), (15, 20)]
            assert store.missing(SOURCE, 30, 40) == [(30, 40)]
            assert store.missing(SOURCE, 12, 11) == []
            assert store.missing("nobody", 1, 3) == [(1, 3)]
            assert store.damaged(SOURCE, 0, 100) == []

    def test_what_one_endpoint_served_unaudited(self) -> None:
        """Ranges of entries that rest on its word alone: neither proved nor compared with another endpoint."""
        chain = Chain(seed=73).extend(40)
        with self.filled(chain) as (store, _):
            for label in ("one.example", "two.example"):
                expected = {
                    b.entry.position
                    for b in chain.blocks
                    if b.entry.served_by == label and not b.entry.audited and b.entry.evidence is not Evidence.PROVED
                }
                ranges = store.served_unaudited(SOURCE, label)
                assert {p for first, last in ranges for p in range(first, last + 1)} == expected
                assert all(b[0] > a[1] + 1 for a, b in pairwise(ranges))
            assert store.served_unaudited(SOURCE, "nobody") == []

    def test_facts_come_by_range_in_key_order(self) -> None:
        """Numbers are ordered as numbers: log 10 after log 9."""
        chain = Chain(seed=74, start=95).extend(20)
        with self.filled(chain) as (store, _):
            columns, positions = store.facts(TRANSFERS, 98, 112)
            rows = list(zip(*columns, strict=True))
            assert rows == [row for b in chain.blocks[3:18] for row in b.rows[TRANSFERS.name]]
            assert positions == [int(row[0] or 0) for row in rows]
            assert max(int(row[1] or 0) for row in rows) >= 10
            columns, positions = store.facts(MEMOS, 5000, 6000)
            assert (len(columns), positions) == (len(MEMOS.columns), [])
            assert all(len(c) == 0 for c in columns)

    def test_state_is_found_by_key(self) -> None:
        """Many keys at once, also of several columns; absent ones are left out."""
        chain = Chain(seed=75).extend(30)
        with self.filled(chain) as (store, _):
            assert store.state(HOLDINGS, []) == {}
            holdings = chain.state(HOLDINGS)
            absent = [(address(1000 + i),) for i in range(250)]
            assert store.state(HOLDINGS, [*absent, *holdings]) == holdings
            visits = chain.state(VISITS)
            assert store.state(VISITS, [*visits, ("nobody", "1")]) == visits

    def test_state_rows_come_in_the_order_of_their_text(self) -> None:
        """Bytewise, number columns too: the order is the same in every database."""
        chain = Chain(seed=76).extend(60)
        with self.filled(chain) as (store, _):
            keys = [row.values[:2] for row in store.state_rows(VISITS)]
            assert keys == sorted(keys, key=lambda k: [str(part).encode() for part in k])
            assert len(keys) > 20

    def test_reading_can_stop_in_the_middle(self) -> None:
        """A reader that turns away keeps nothing locked."""
        chain = Chain(seed=77).extend(10)
        with self.filled(chain) as (store, fence):
            for _ in range(30):
                next(iter(store.state_rows(HOLDINGS)))
            expected = chain.cursor()
            store.commit(chain.extend().batch(10), expected, fence)
            assert store.cursor(SOURCE) == chain.cursor()

    def test_rows_are_counted(self) -> None:
        """For facts and state."""
        chain = Chain(seed=78)
        with self.opened() as store:
            fence = lead(store, chain)
            assert (store.row_count(TRANSFERS), store.row_count(HOLDINGS)) == (0, 0)
            store.commit(replace(chain.extend(5).batch(0)), None, fence)
            assert store.row_count(TRANSFERS) == len(chain.rows(TRANSFERS))
            assert store.row_count(HOLDINGS) == len(chain.state(HOLDINGS))
