"""The commit protocol: all of a batch or nothing, exactly once, by the leader, on the cursor it was built on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gapless.errors import CursorMoved, InvariantViolation, LeaseLost, StoreError
from gapless.model import Cursor, Entry, Fence, Gap, Quarantined, StateChange, Undo
from gapless.schema import Rows
from gapless.store import Batch
from gapless.testing.store_contract.case import StoreCase, assert_holds, lead, nothing_written, wrong_id
from gapless.testing.store_contract.sample import HOLDINGS, OTHER_SOURCE, OTHERS, SOURCE, TRANSFERS, Chain, address


class CommitContract(StoreCase):
    """What `commit` promises."""

    def test_a_batch_is_committed_whole(self) -> None:
        """Rows, state, quarantine, entries with digests and cursor are there together."""
        chain = Chain(seed=3).extend(20)
        with self.filled(chain) as (store, _):
            assert_holds(store, chain)

    def test_batches_follow_each_other(self) -> None:
        """Batches of any size, one after the other, end in the same tables."""
        chain = Chain(seed=4, start=100)
        with self.opened() as store:
            fence = lead(store, chain)
            for size in (1, 3, 1, 7, 2):
                expected = chain.cursor() if chain.blocks else None
                first = chain.last + 1
                store.commit(chain.extend(size).batch(first), expected, fence)
                assert_holds(store, chain)

    def test_an_entry_without_rows_counts(self) -> None:
        """An entry that produced nothing is stored all the same."""
        chain = Chain(seed=5).extend(1)
        empty = chain.batch(0)
        bare = Rows(TRANSFERS, tuple(() for _ in TRANSFERS.columns), (0,))
        with self.opened() as store:
            fence = lead(store, chain)
            batch = replace(empty, rows=(bare,), counts=(0,), changes=(), undo=(), quarantined=())
            store.commit(batch, None, fence)
            assert store.cursor(SOURCE) == chain.cursor()
            assert [s.rows for s in store.entries(SOURCE, 0, 9)] == [0]

    def test_the_cursor_is_compared_by_position_and_id(self) -> None:
        """The right number with another id is not the cursor: the batch was built on another branch."""
        chain = Chain(seed=6).extend(5)
        with self.filled(chain) as (store, fence):
            cursor = chain.cursor()
            grown = Chain(seed=6).extend(6)
            for wrong in (wrong_id(cursor), grown.cursor(3), Cursor(cursor.position, ""), None):
                batch = _rebased(grown.batch(5), wrong)
                with nothing_written(store, chain), pytest.raises(CursorMoved):
                    store.commit(batch, wrong, fence)

    def test_a_batch_is_committed_once(self) -> None:
        """The same batch again is refused, and changes nothing: neither rows nor cursor."""
        chain = Chain(seed=7).extend(4)
        with self.filled(chain) as (store, fence), nothing_written(store, chain), pytest.raises(CursorMoved):
            store.commit(chain.batch(0), None, fence)

    def test_a_batch_of_another_leader_is_refused(self) -> None:
        """A fence with another token, holder or name writes nothing."""
        chain = Chain(seed=8).extend(4)
        with self.filled(chain) as (store, fence):
            grown = Chain(seed=8).extend(6)
            strangers = (
                replace(fence, token=fence.token + 1),
                replace(fence, token=fence.token - 1),
                replace(fence, holder="stranger"),
                Fence("another lease", fence.holder, fence.token),
            )
            for stranger in strangers:
                with nothing_written(store, chain), pytest.raises(LeaseLost):
                    store.commit(grown.batch(4), chain.cursor(), stranger)

    def test_a_thawed_leader_writes_nothing(self) -> None:
        """Once another holds the lease, whoever held it before commits, replaces and rewinds nothing."""
        chain = Chain(seed=9).extend(4)
        with self.filled(chain) as (store, frozen):
            store.release(frozen)
            second = store.acquire(frozen.name, "second", 60)
            assert second is not None
            grown = Chain(seed=9).extend(5)
            with nothing_written(store, chain):
                with pytest.raises(LeaseLost):
                    store.commit(grown.batch(4), chain.cursor(), frozen)
                with pytest.raises(LeaseLost):
                    store.replace(chain.batch(2, 2), frozen)
                with pytest.raises(LeaseLost):
                    store.rewind(SOURCE, chain.cursor(1), chain.cursor(), frozen)
            store.commit(grown.batch(4), chain.cursor(), second)
            assert_holds(store, grown)

    def test_a_released_lease_writes_nothing(self) -> None:
        """A lease that was given up is not held, even while nobody else has taken it."""
        chain = Chain(seed=10).extend(2)
        with self.filled(chain) as (store, fence):
            store.release(fence)
            with nothing_written(store, chain), pytest.raises(LeaseLost):
                store.commit(Chain(seed=10).extend(3).batch(2), chain.cursor(), fence)

    def test_a_batch_that_fails_in_the_middle_leaves_nothing(self) -> None:
        """Two rows with one key: neither they nor anything else of the batch is kept, and the next batch goes in."""
        chain = Chain(seed=11).extend(5)
        with self.filled(chain) as (store, fence):
            grown = Chain(seed=11).extend(9)
            batch = grown.batch(5)
            with nothing_written(store, chain), pytest.raises(StoreError):
                store.commit(_with_a_double(batch), chain.cursor(), fence)
            store.commit(batch, chain.cursor(), fence)
            assert_holds(store, grown)

    def test_a_failing_fork_leaves_the_old_branch(self) -> None:
        """A batch that rewinds and then fails has not rewound."""
        chain = Chain(seed=12).extend(9)
        with self.filled(chain) as (store, fence):
            branch = Chain(seed=12).extend(9)
            ancestor = branch.fork(4)
            batch = branch.extend(3).batch(ancestor.position + 1, rewind_to=ancestor)
            with nothing_written(store, chain), pytest.raises(StoreError):
                store.commit(_with_a_double(batch), chain.cursor(), fence)

    def test_batches_that_contradict_themselves_are_refused(self) -> None:
        """A hole, a broken link, counts that are not the rows': built wrong, and refused before anything is written."""
        chain = Chain(seed=13).extend(3)
        with self.filled(chain) as (store, fence):
            grown = Chain(seed=13).extend(9)
            good = grown.batch(3)
            entries = good.entries
            bad = [
                replace(good, entries=()),
                replace(good, digests=good.digests[1:]),
                replace(good, counts=(good.counts[0] + 1, *good.counts[1:])),
                replace(good, entries=(*entries[:2], replace(entries[2], parent_id="0x" + "12" * 32), *entries[3:])),
                replace(good, entries=(*entries[:-1], replace(entries[-1], position=99))),
                grown.batch(4),
                replace(good, changes=(StateChange(HOLDINGS.name, (address(1),), (address(2), "1", None), 3),)),
                replace(good, rewind_to=grown.cursor(3)),
                _bare(good, entries[0], replace(entries[2], parent_id=entries[0].id)),
                _bare(good, replace(entries[1], parent_id=chain.cursor().id)),
                _bare(good, replace(entries[0], parent_id="0x" + "12" * 32)),
            ]
            for batch in bad:
                with nothing_written(store, chain), pytest.raises(InvariantViolation):
                    store.commit(batch, chain.cursor(), fence)

    def test_a_source_is_bound_before_it_is_written(self) -> None:
        """Without an identity there is nothing to compare with later."""
        chain = Chain(seed=14).extend(1)
        with self.opened() as store:
            fence = store.acquire(SOURCE, "first", 60)
            assert fence is not None
            with pytest.raises(InvariantViolation):
                store.commit(chain.batch(0), None, fence)

    def test_sources_do_not_touch_each_other(self) -> None:
        """Two sources in one database have their own cursors, entries and tables; a rewind stays within one."""
        chain, other = Chain(seed=15).extend(6), Chain(seed=16, source=OTHER_SOURCE).extend(4)
        with self.filled(chain) as (store, fence):
            second = lead(store, other)
            store.commit(other.batch(0), None, second)
            assert_holds(store, chain)
            branch = Chain(seed=15).extend(6)
            ancestor = branch.fork(6)
            store.commit(branch.extend(2).batch(0, rewind_to=ancestor), chain.cursor(), fence)
            assert_holds(store, branch)
            assert store.cursor(OTHER_SOURCE) == other.cursor()
            assert list(zip(*store.facts(OTHERS, 0, 99)[0], strict=True)) == other.rows(OTHERS)
            assert store.coverage(OTHER_SOURCE).entries == 4

    def test_a_commit_fills_a_recorded_gap(self) -> None:
        """What was known to be missing is there now."""
        chain = Chain(seed=17).extend(3)
        with self.filled(chain) as (store, fence):
            store.record_gap(Gap(SOURCE, 3, 9, "source unavailable", 5))
            store.commit(Chain(seed=17).extend(5).batch(3), chain.cursor(), fence)
            assert [(g.first, g.last) for g in store.gaps(SOURCE)] == [(5, 9)]

    def test_head_and_finality_are_noted(self) -> None:
        """What a batch says of head and finality shows in the report; what it leaves out stays."""
        chain = Chain(seed=18).extend(2)
        with self.opened() as store:
            fence = lead(store, chain)
            store.commit(chain.batch(0, head=50, finalized=20), None, fence)
            expected = chain.cursor()
            store.commit(chain.extend().batch(2), expected, fence)
            report = store.reported(SOURCE)
            assert (report.head, report.finalized, report.reorgs) == (50, 20, 0)
            assert report.updated_us > 0

    def test_free_text_may_hold_anything(self) -> None:
        """A reason with NUL or half a surrogate is kept readable instead of failing the batch."""
        chain = Chain(seed=19).extend(1)
        item = Quarantined(SOURCE, 0, "log:1", "holding", "bad \x00 \udfff text ☃", '{"x":"\x00"}')
        with self.opened() as store:
            fence = lead(store, chain)
            store.commit(chain.batch(0, quarantined=(item,)), None, fence)
            [row] = store.quarantine()
            assert row.item.reason.startswith("bad ")
            assert row.item.reason.endswith(" text ☃")

    def test_undo_of_a_row_that_was_not_there(self) -> None:
        """An undo record without previous value means that the row did not exist."""
        chain = Chain(seed=20).extend(2)
        key = (address(77),)
        batch = chain.batch(0)
        added = StateChange(HOLDINGS.name, key, (address(77), "5", None), 1)
        batch = replace(
            batch, changes=(*batch.changes, added), undo=(*batch.undo, Undo(1, HOLDINGS.name, key, None, None))
        )
        with self.opened() as store:
            fence = lead(store, chain)
            store.commit(batch, None, fence)
            assert store.state(HOLDINGS, [key])[key].values == (address(77), "5", None)
            store.rewind(SOURCE, chain.cursor(0), chain.cursor(), fence)
            assert store.state(HOLDINGS, [key]) == {}

    def test_a_state_row_that_is_deleted_is_gone(self) -> None:
        """And is there again when the entry that deleted it is undone."""
        chain = Chain(seed=21).extend(3)
        key, values = (address(77),), (address(77), "5", None)
        first, second = chain.batch(0, 1), chain.batch(2)
        first = replace(first, changes=(*first.changes, StateChange(HOLDINGS.name, key, values, 1)))
        gone = (*second.changes, StateChange(HOLDINGS.name, key, None, 2))
        second = replace(second, changes=gone, undo=(*second.undo, Undo(2, HOLDINGS.name, key, values, 1)))
        with self.opened() as store:
            fence = lead(store, chain)
            store.commit(first, None, fence)
            store.commit(second, chain.cursor(1), fence)
            assert store.state(HOLDINGS, [key]) == {}
            store.rewind(SOURCE, chain.cursor(1), chain.cursor(), fence)
            assert store.state(HOLDINGS, [key])[key].values == values


def _rebased(batch: Batch, expected: Cursor | None) -> Batch:
    """The batch as somebody would have built it who believed in another cursor."""
    if expected is None:
        return batch
    first = replace(batch.entries[0], parent_id=expected.id)
    return replace(batch, entries=(first, *batch.entries[1:]))


def _bare(batch: Batch, *entries: Entry) -> Batch:
    """Only these entries, which produced nothing: no row tells that they do not belong there."""
    bare = replace(batch, rows=(), changes=(), undo=(), quarantined=())
    return replace(bare, entries=entries, digests=batch.digests[: len(entries)], counts=(0,) * len(entries))


def _with_a_double(batch: Batch) -> Batch:
    """The same batch, its last entry ending with one row twice."""
    last = batch.entries[-1].position
    row = (str(last), "900", address(1), address(2), "3")
    rows = []
    for part in batch.rows:
        if part.table is TRANSFERS:
            columns = tuple((*column, value, value) for column, value in zip(part.columns, row, strict=True))
            part = Rows(TRANSFERS, columns, (*part.counts[:-1], part.counts[-1] + 2))
        rows.append(part)
    return replace(batch, rows=tuple(rows), counts=(*batch.counts[:-1], batch.counts[-1] + 2))
