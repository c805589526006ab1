"""Rows that somebody removed or added behind the store's back are found, and repaired by replacing."""

from __future__ import annotations

from random import Random  # noqa: TID251 - drawn from a seed

import pytest

from gapless.errors import CursorMoved, StoreError
from gapless.testing.store_contract.case import StoreCase, assert_holds
from gapless.testing.store_contract.sample import SCHEMA, SOURCE, TRANSFERS, Chain


class ByHandContract(StoreCase):
    """For databases that can be written past the store. Tables are addressed by the names of the views."""

    cascade = ""
    """What DROP TABLE needs where a view depends on the table."""

    def by_hand(self, sql: str) -> None:
        """Run a statement as an operator would, with the live version's views in scope."""
        pytest.fail(f"a subclass says how {sql!r} is run by hand")

    def versioned(self, table: str) -> str:
        """The name of a table behind its view."""
        return f"v1_{table}"

    def test_removed_rows_are_found_and_repaired(self) -> None:
        """Entries whose rows are gone are damaged: named one by one, with what was recorded and what is there."""
        chain = Chain(seed=110).extend(60)
        with self.filled(chain) as (store, fence):
            chosen = sorted(Random(5).sample(range(60), 20))
            self.by_hand(f"DELETE FROM token_transfer WHERE block_number IN ({', '.join(map(str, chosen))})")
            expected = []
            for position in chosen:
                rows, memos = (len(chain.block(position).rows[n]) for n in ("token_transfer", "memo"))
                if rows:
                    expected.append((position, rows + memos, memos))
            assert len(expected) > 5
            assert store.damaged(SOURCE, 0, 59) == expected
            assert store.damaged(SOURCE, 20, 30) == [d for d in expected if 20 <= d[0] <= 30]
            assert store.missing(SOURCE, 0, 59) == []
            for position, _, _ in expected:
                store.replace(chain.batch(position, position), fence)
            assert_holds(store, chain)

    def test_added_rows_are_found_and_repaired(self) -> None:
        """A row too many is damage as well."""
        chain = Chain(seed=111).extend(5)
        with self.filled(chain) as (store, fence):
            recorded = sum(len(rows) for rows in chain.block(2).rows.values())
            table = self.versioned(TRANSFERS.name)
            self.by_hand(
                f"INSERT INTO {table} (block_number, log_index, from_, to_, value) VALUES (2, 77, '', '', '1')"
            )
            assert store.damaged(SOURCE, 0, 4) == [(2, recorded, recorded + 1)]
            store.replace(chain.batch(2, 2), fence)
            assert_holds(store, chain)

    def test_removed_entries_are_missing_and_repaired(self) -> None:
        """Holes of any width, at the start, in the middle and at the cursor, are filled again."""
        chain = Chain(seed=112).extend(20)
        with self.filled(chain) as (store, fence):
            for table, position in (("gapless_entries", "position"), ("token_transfer", "block_number")):
                self.by_hand(f"DELETE FROM {table} WHERE {position} IN (0, 1, 5, 6, 7, 11, 19)")
            holes = [(0, 1), (5, 7), (11, 11), (19, 19)]
            assert store.missing(SOURCE, 0, 19) == holes
            assert store.missing(SOURCE, 1, 6) == [(1, 1), (5, 6)]
            assert store.coverage(SOURCE).entries == 13
            for first, last in holes:
                store.replace(chain.batch(first, last), fence)
            assert_holds(store, chain)

    def test_a_hole_is_not_filled_with_another_branch(self) -> None:
        """What is stored around it, and the cursor, decide what fits."""
        chain = Chain(seed=113).extend(10)
        with self.filled(chain) as (store, fence):
            branch = Chain(seed=113).extend(10)
            branch.fork(6)
            branch.extend(6)
            for hole in ((4, 4), (5, 7), (9, 9)):
                self.by_hand(f"DELETE FROM gapless_entries WHERE position BETWEEN {hole[0]} AND {hole[1]}")
                with pytest.raises(CursorMoved):
                    store.replace(branch.batch(*hole), fence)
                store.replace(chain.batch(*hole), fence)
                assert_holds(store, chain)

    def test_a_rewind_over_a_hole_takes_all_with_it(self) -> None:
        """Missing entries do not keep their rows or state from being undone."""
        chain = Chain(seed=114).extend(12)
        with self.filled(chain) as (store, fence):
            self.by_hand("DELETE FROM gapless_entries WHERE position BETWEEN 8 AND 9")
            expected = chain.cursor()
            assert store.rewind(SOURCE, chain.fork(6), expected, fence) == 4
            assert_holds(store, chain)

    def test_removed_tables_are_noticed_when_opening(self) -> None:
        """They are not silently made again, empty."""
        chain = Chain(seed=115).extend(3)
        with self.filled(chain):
            pass
        self.by_hand(f"DROP TABLE {self.versioned(TRANSFERS.name)} {self.cascade}")
        for create in (True, False):
            store = self.make_store()
            with pytest.raises(StoreError, match="removed") as caught:
                store.open(SCHEMA, create=create)
            assert TRANSFERS.name in str(caught.value)
