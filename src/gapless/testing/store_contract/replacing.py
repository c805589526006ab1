"""Repair: entries below the cursor are written again, in place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gapless.errors import CursorMoved, StoreError
from gapless.model import Evidence, Gap
from gapless.schema import Rows
from gapless.testing.store_contract.case import StoreCase, assert_holds, nothing_written
from gapless.testing.store_contract.sample import SOURCE, TRANSFERS, Chain, address


class ReplaceContract(StoreCase):
    """What `replace` promises."""

    def test_replacing_with_the_same_changes_nothing(self) -> None:
        """Any range, as often as you like: state, undo and cursor are left alone."""
        chain = Chain(seed=60).extend(10)
        with self.filled(chain) as (store, fence):
            for first, last in ((0, 0), (3, 6), (3, 6), (9, 9), (0, 9)):
                store.replace(chain.batch(first, last), fence)
                assert_holds(store, chain)
            expected = chain.cursor()
            store.rewind(SOURCE, chain.fork(4), expected, fence)
            assert_holds(store, chain)

    def test_replacing_can_change_rows_and_evidence(self) -> None:
        """New rows and digests take the place of the old ones; an audit result is noted."""
        chain = Chain(seed=61).extend(6)
        with self.filled(chain) as (store, fence):
            batch = chain.batch(2, 3)
            entries = tuple(replace(e, evidence=Evidence.PROVED, audited=True, served_by="new") for e in batch.entries)
            none = tuple(Rows(r.table, tuple(() for _ in r.columns), (0, 0)) for r in batch.rows)
            store.replace(replace(batch, entries=entries, rows=none, counts=(0, 0), digests=("aa", "bb")), fence)
            found = store.entries(SOURCE, 2, 3)
            assert [(s.entry, s.rows, s.digest) for s in found] == [(entries[0], 0, "aa"), (entries[1], 0, "bb")]
            assert store.facts(TRANSFERS, 2, 3)[1] == []
            store.replace(batch, fence)
            assert_holds(store, chain)

    def test_gaps_that_are_replaced_are_cleared(self) -> None:
        """The part of a recorded gap that was filled is forgotten, the rest stays."""
        chain = Chain(seed=62).extend(9)
        with self.filled(chain) as (store, fence):
            store.record_gap(Gap(SOURCE, 2, 7, "rows differ", 5, 3))
            store.replace(chain.batch(4, 5), fence)
            assert [(g.first, g.last, g.attempts) for g in store.gaps(SOURCE)] == [(2, 3, 3), (6, 7, 3)]

    def test_what_does_not_link_is_refused(self) -> None:
        """Entries of another branch, above the cursor, or another last entry than the cursor's: nothing is written."""
        chain = Chain(seed=63).extend(9)
        with self.filled(chain) as (store, fence):
            branch = Chain(seed=63).extend(9)
            branch.fork(5)
            branch.extend(7)
            with nothing_written(store, chain):
                for first, last in ((4, 5), (6, 7), (8, 8), (9, 9), (8, 9)):
                    with pytest.raises(CursorMoved):
                        store.replace(branch.batch(first, last), fence)

    def test_each_neighbour_is_looked_at(self) -> None:
        """One thing wrong is enough: the link to the entry before, or to the one after, or the cursor it ends at."""
        chain = Chain(seed=66).extend(9)
        with self.filled(chain) as (store, fence):
            other = "0x" + "12" * 32
            middle, last = chain.batch(4, 5), chain.batch(8, 8)
            bad = (
                replace(middle, entries=(replace(middle.entries[0], parent_id=other), *middle.entries[1:])),
                replace(middle, entries=(*middle.entries[:-1], replace(middle.entries[-1], id=other))),
                replace(last, entries=(replace(last.entries[0], id=other),)),
                Chain(seed=66).extend(10).batch(9),
            )
            for batch in bad:
                with nothing_written(store, chain), pytest.raises(CursorMoved):
                    store.replace(batch, fence)

    def test_replacing_before_anything_is_committed_is_refused(self) -> None:
        """There is nothing to replace."""
        chain = Chain(seed=64)
        with self.filled(chain) as (store, fence):
            with pytest.raises(CursorMoved):
                store.replace(Chain(seed=64).extend(2).batch(0), fence)
            assert store.coverage(SOURCE).entries == 0

    def test_a_replacement_that_fails_leaves_the_old_rows(self) -> None:
        """Deleting and writing are one transaction."""
        chain = Chain(seed=65).extend(6)
        with self.filled(chain) as (store, fence):
            batch = chain.batch(2, 4)
            row = ("4", "900", address(1), address(2), "3")
            rows = []
            for part in batch.rows:
                if part.table is TRANSFERS:
                    columns = tuple((*c, v, v) for c, v in zip(part.columns, row, strict=True))
                    part = Rows(TRANSFERS, columns, (*part.counts[:-1], part.counts[-1] + 2))
                rows.append(part)
            double = replace(batch, rows=tuple(rows), counts=(*batch.counts[:-1], batch.counts[-1] + 2))
            with nothing_written(store, chain), pytest.raises(StoreError):
                store.replace(double, fence)
