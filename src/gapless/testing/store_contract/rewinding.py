"""Forks and rewinds: facts, state, quarantine, undo and gaps go back together, to any depth that is not final."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gapless.errors import CursorMoved, InvariantViolation, NothingToUndo
from gapless.model import Cursor, Gap
from gapless.schema import Schema
from gapless.testing.store_contract.case import StoreCase, assert_holds, lead, nothing_written, wrong_id
from gapless.testing.store_contract.sample import SCHEMA, SOURCE, TRANSFERS, Chain


class RewindContract(StoreCase):
    """What `commit` with an ancestor, `rewind`, `prune_undo` and `state_before` promise."""

    def test_a_fork_replaces_what_lies_above_the_ancestor(self) -> None:
        """At every depth, down to the first entry, the tables are those of the new branch alone."""
        for depth in (1, 2, 7, 12):
            chain = Chain(seed=30 + depth)
            chain.extend(12)
            with self.opened() as store:
                fence = lead(store, chain)
                known = store.cursor(SOURCE)
                if known is not None:
                    store.rewind(SOURCE, Cursor(-1, ""), known, fence)
                store.commit(chain.batch(0), None, fence)
                expected = chain.cursor()
                ancestor = chain.fork(depth)
                chain.extend(depth + 1)
                store.commit(chain.batch(ancestor.position + 1, rewind_to=ancestor), expected, fence)
                assert_holds(store, chain)
                store.release(fence)

    def test_reorganisations_are_counted(self) -> None:
        """Each fork counts once, and the deepest is kept; a rewind by an operator does not count."""
        chain = Chain(seed=40).extend(9)
        with self.filled(chain) as (store, fence):
            for depth, deepest in ((2, 2), (5, 5), (1, 5)):
                expected = chain.cursor()
                ancestor = chain.fork(depth)
                chain.extend(depth)
                store.commit(chain.batch(ancestor.position + 1, rewind_to=ancestor), expected, fence)
                assert store.reported(SOURCE).reorg_deepest == deepest
            assert store.reported(SOURCE).reorgs == 3
            expected = chain.cursor()
            store.rewind(SOURCE, chain.fork(2), expected, fence)
            assert store.reported(SOURCE).reorgs == 3

    def test_a_rewind_goes_back_exactly(self) -> None:
        """State, facts, quarantine and entries are as they were when the ancestor was the newest entry."""
        chain = Chain(seed=41).extend(16)
        with self.filled(chain) as (store, fence):
            for depth in (1, 4, 6):
                expected = chain.cursor()
                assert store.rewind(SOURCE, chain.fork(depth), expected, fence) == depth
                assert_holds(store, chain)
            assert store.rewind(SOURCE, chain.cursor(), chain.cursor(), fence) == 0
            assert_holds(store, chain)

    def test_a_rewind_before_the_first_entry_leaves_nothing(self) -> None:
        """It needs no undo records, and the source can start again."""
        chain = Chain(seed=42, start=50).extend(6)
        with self.filled(chain, final=54) as (store, fence):
            expected = chain.cursor()
            assert store.rewind(SOURCE, chain.fork(6), expected, fence) == 6
            assert store.cursor(SOURCE) is None
            assert_holds(store, chain)
            chain.extend(3)
            store.commit(chain.batch(50), None, fence)
            assert_holds(store, chain)

    def test_a_rewind_needs_the_right_cursor_and_ancestor(self) -> None:
        """A stale cursor, or an ancestor that is not the entry stored there, changes nothing."""
        chain = Chain(seed=43).extend(8)
        with self.filled(chain) as (store, fence):
            branch = Chain(seed=43).extend(8)
            ancestor = branch.fork(3)
            stale = branch.extend(2).batch(ancestor.position + 1, rewind_to=wrong_id(ancestor))
            first = replace(stale.entries[0], parent_id=wrong_id(ancestor).id)
            stale = replace(stale, entries=(first, *stale.entries[1:]))
            with nothing_written(store, chain):
                with pytest.raises(CursorMoved):
                    store.rewind(SOURCE, ancestor, wrong_id(chain.cursor()), fence)
                with pytest.raises(CursorMoved):
                    store.rewind(SOURCE, wrong_id(ancestor), chain.cursor(), fence)
                with pytest.raises(CursorMoved):
                    store.commit(stale, chain.cursor(), fence)
                with pytest.raises(InvariantViolation):
                    store.rewind(SOURCE, Cursor(99, "0x"), chain.cursor(), fence)
                with pytest.raises(InvariantViolation):
                    store.rewind(SOURCE, Cursor(-2, ""), chain.cursor(), fence)

    def test_final_state_cannot_be_taken_back(self) -> None:
        """Below the position whose undo records are gone, a rewind and a fork are refused, and change nothing."""
        chain = Chain(seed=44).extend(10)
        with self.filled(chain, final=5) as (store, fence):
            branch = Chain(seed=44).extend(10)
            ancestor = branch.fork(6)
            batch = branch.extend(3).batch(ancestor.position + 1, rewind_to=ancestor)
            with nothing_written(store, chain):
                with pytest.raises(NothingToUndo):
                    store.rewind(SOURCE, chain.cursor(4), chain.cursor(), fence)
                with pytest.raises(NothingToUndo):
                    store.commit(batch, chain.cursor(), fence)
            expected = chain.cursor()
            store.rewind(SOURCE, chain.fork(4), expected, fence)
            assert_holds(store, chain)

    def test_pruned_undo_cannot_be_used(self) -> None:
        """`prune_undo` forgets records at or below a position, and only those."""
        chain = Chain(seed=52).extend(10)
        with self.filled(chain) as (store, fence):
            store.prune_undo(SOURCE, 6)
            store.prune_undo(SOURCE, 3)
            assert {u.position for p in (-1, 6, 7, 8) for u in store.state_before(SOURCE, p)} == {7, 8, 9}
            with nothing_written(store, chain), pytest.raises(NothingToUndo):
                store.rewind(SOURCE, chain.cursor(5), chain.cursor(), fence)
            expected = chain.cursor()
            store.rewind(SOURCE, chain.fork(3), expected, fence)
            assert_holds(store, chain)

    def test_undo_ahead_of_the_cursor_is_not_pruned(self) -> None:
        """Finality may be noted above the newest entry: entries committed later can be taken back all the same."""
        chain = Chain(seed=46).extend(3)
        with self.filled(chain) as (store, fence):
            store.prune_undo(SOURCE, 100)
            expected = chain.cursor()
            store.commit(chain.extend(4).batch(3), expected, fence)
            expected = chain.cursor()
            store.rewind(SOURCE, chain.fork(4), expected, fence)
            assert_holds(store, chain)

    def test_commits_prune_what_became_final(self) -> None:
        """A batch that says what is final lets go of the undo records up to there."""
        chain = Chain(seed=47).extend(6)
        with self.filled(chain) as (store, fence):
            expected = chain.cursor()
            chain.extend()
            store.commit(replace(chain.batch(6), finalized=4), expected, fence)
            assert {u.position for u in store.state_before(SOURCE, -1)} <= {5, 6}
            with pytest.raises(NothingToUndo):
                store.rewind(SOURCE, chain.cursor(2), chain.cursor(), fence)

    def test_without_state_tables_any_depth_can_be_undone(self) -> None:
        """Facts vanish with their entries; no records are needed for that."""
        facts_only = Schema(SCHEMA.app, (TRANSFERS,), SCHEMA.sources)
        chain = Chain(seed=48).extend(9)
        batch = chain.batch(0, finalized=8, changes=(), undo=())
        transfers, memos = batch.rows
        batch = replace(batch, rows=(transfers,), counts=transfers.counts)
        with self.opened(facts_only) as store:
            fence = lead(store, chain)
            store.commit(batch, None, fence)
            assert store.row_count(TRANSFERS) == sum(batch.counts)
            assert len(memos) > 0
            assert store.rewind(SOURCE, chain.cursor(2), chain.cursor(), fence) == 6
            assert store.cursor(SOURCE) == chain.cursor(2)
            assert store.damaged(SOURCE, 0, 99) == []

    def test_state_before_is_the_oldest_record_above(self) -> None:
        """For each row changed above a position: what it was there, and which entry had written it."""
        chain = Chain(seed=49).extend(12)
        with self.filled(chain) as (store, _):
            for ancestor in (0, 3, 8, 11):
                then = chain.block(ancestor).state
                touched = {slot for b in chain.blocks[ancestor + 1 :] for slot in b.touched}
                found = store.state_before(SOURCE, ancestor)
                assert len(found) == len(touched)
                for u in found:
                    row = then.get((u.table, u.key))
                    assert (u.previous, u.previous_position) == ((row.values, row.position) if row else (None, None))

    def test_gaps_above_the_ancestor_are_forgotten(self) -> None:
        """What lies above the cursor is not missing: it is still to come."""
        chain = Chain(seed=50).extend(8)
        with self.filled(chain) as (store, fence):
            store.record_gap(Gap(SOURCE, 1, 1, "below", 5))
            store.record_gap(Gap(SOURCE, 3, 6, "across", 5))
            store.record_gap(Gap(SOURCE, 6, 7, "above", 5))
            expected = chain.cursor()
            store.rewind(SOURCE, chain.fork(3), expected, fence)
            assert [(g.first, g.last, g.reason) for g in store.gaps(SOURCE)] == [(1, 1, "below"), (3, 4, "across")]
