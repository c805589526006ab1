"""`query`: one statement that can only read."""

from __future__ import annotations

import pytest

from gapless.errors import ReadOnlyStore, StoreError
from gapless.testing.store_contract.case import StoreCase, assert_holds
from gapless.testing.store_contract.sample import MEMOS, TRANSFERS, Chain

WRITES = (
    "INSERT INTO token_transfer VALUES (1, 1, 'a', 'b', 1)",
    "UPDATE holding SET balance = '0'",
    "DELETE FROM token_transfer",
    "DROP TABLE holding",
    "DROP VIEW token_transfer",
    "CREATE TABLE mine (a int)",
    "ALTER TABLE holding ADD COLUMN a int",
    "VACUUM",
    "BEGIN",
    "COMMIT",
    "ATTACH 'x.db' AS x",
    "PRAGMA journal_mode = delete",
    "pragma user_version",
    "SET search_path = public",
    "COPY holding TO STDOUT",
    "/* hidden */ -- here\n DELETE FROM holding",
    "SELECT 1; DELETE FROM holding",
    "SELECT 1; COMMIT; DROP TABLE holding",
)
HIDDEN_WRITES = (
    "WITH gone AS (DELETE FROM holding RETURNING *) SELECT * FROM gone",
    "SELECT * FROM holding FOR UPDATE",
    "SELECT * INTO mine FROM holding",
)
"""No query in any of the databases, for one reason or another."""


class QueryContract(StoreCase):
    """What `query` promises."""

    def test_the_app_s_tables_are_in_scope(self) -> None:
        """By their plain names, without the store's own columns; at most `limit` rows."""
        chain = Chain(seed=90).extend(9)
        with self.filled(chain) as (store, _):
            names, rows = store.query("SELECT * FROM token_transfer ORDER BY block_number, log_index", 1000)
            assert names == [c.name for c in TRANSFERS.columns]
            assert [tuple(map(str, row)) for row in rows] == chain.rows(TRANSFERS)
            assert len(store.query("SELECT * FROM token_transfer;", 2)[1]) == 2
            names, rows = store.query("\n SELECT holder AS who, balance FROM holding WHERE 1 = 0 ; ", 5)
            assert (names, rows) == (["who", "balance"], [])
            names, rows = store.query("WITH n AS (SELECT count(*) AS n FROM memo) SELECT n FROM n -- done", 5)
            assert (names, rows) == (["n"], [(len(chain.rows(MEMOS)),)])
            assert store.query("SELECT * FROM holding WHERE note LIKE '%debt%' AND '?' = '?'", 1)[0][0] == "holder"

    def test_nothing_but_reading_is_possible(self) -> None:
        """Statements that write, change settings, or hide behind a first one are refused, and do nothing."""
        chain = Chain(seed=91).extend(6)
        with self.filled(chain) as (store, _):
            for sql in WRITES:
                with pytest.raises(ReadOnlyStore):
                    store.query(sql, 10)
            for sql in HIDDEN_WRITES:
                with pytest.raises(StoreError):
                    store.query(sql, 10)
            assert_holds(store, chain)

    def test_a_mistake_is_explained(self) -> None:
        """An unknown table is named."""
        with self.opened() as store:
            with pytest.raises(StoreError, match="no_such_table"):
                store.query("SELECT * FROM no_such_table", 10)
            with pytest.raises(StoreError):
                store.query("   ", 10)
