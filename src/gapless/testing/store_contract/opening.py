"""Opening and reopening."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gapless.errors import ConfigError, SchemaChanged, StoreError, WrongChain
from gapless.model import Identity
from gapless.schema import Column, Kind, Schema, Table
from gapless.testing.store_contract.case import StoreCase, assert_holds
from gapless.testing.store_contract.sample import IDENTITY, SCHEMA, SOURCE, TRANSFERS, Chain


class OpeningContract(StoreCase):
    """What `open` and `bind_source` promise."""

    def test_a_missing_database_is_not_created_unless_asked(self) -> None:
        """Without `create`, a database that is not there is an error, and is still not there afterwards."""
        for _ in range(2):
            store = self.make_store()
            with pytest.raises(StoreError, match="no database"):
                store.open(SCHEMA, create=False)
            store.close()

    def test_a_new_database_is_empty(self) -> None:
        """After the first open there is nothing in it, and everything can be asked."""
        with self.opened() as store:
            assert_holds(store, Chain())
            assert store.source(SOURCE) is None
            assert store.cursor(SOURCE) is None
            assert store.coverage(SOURCE).first is None
            assert store.leases() == []
            assert store.flags() == {}

    def test_what_was_committed_is_there_after_reopening(self) -> None:
        """Another handle, opened with or without `create`, sees all of it."""
        chain = Chain(seed=1).extend(8)
        with self.filled(chain):
            pass
        for create in (True, False):
            with self.opened(create=create) as store:
                assert_holds(store, chain)
                bound = store.source(SOURCE)
                assert bound is not None
                assert (bound.identity, bound.start) == (IDENTITY, 0)

    def test_two_handles_see_each_other_s_commits(self) -> None:
        """Reads show the last commit, whoever made it."""
        chain = Chain(seed=2).extend(3)
        with self.opened() as reader, self.filled(chain) as (writer, fence):
            assert_holds(reader, chain)
            before = chain.cursor()
            chain.extend(2)
            writer.commit(chain.batch(3), before, fence)
            assert_holds(reader, chain)

    def test_other_tables_are_refused_in_words(self) -> None:
        """A schema that differs is refused, and the message names table and column."""
        with self.opened():
            pass
        value = next(c for c in TRANSFERS.columns if c.name == "value")
        other = replace(
            TRANSFERS,
            columns=(
                *(c for c in TRANSFERS.columns if c is not value),
                replace(value, kind=Kind.TEXT),
                Column("x", Kind.INT),
            ),
        )
        tables = tuple(other if t is TRANSFERS else t for t in SCHEMA.tables if t.name != "memo")
        new = Table("fresh", SOURCE, TRANSFERS.nature, TRANSFERS.columns, TRANSFERS.key)
        store = self.make_store()
        with pytest.raises(SchemaChanged) as caught:
            store.open(Schema(SCHEMA.app, (*tables, new), SCHEMA.sources), create=True)
        store.close()
        for words in ("token_transfer.value", "token_transfer.x", "table memo", "table fresh", "uint256", "text"):
            assert words in str(caught.value)
        with self.opened() as store:
            assert_holds(store, Chain())

    def test_a_source_is_what_it_was_when_bound(self) -> None:
        """The recorded start wins over a later one; another chain or genesis is refused."""
        with self.opened() as store:
            assert store.bind_source(SOURCE, IDENTITY, 7).start == 7
            assert store.bind_source(SOURCE, IDENTITY, 9).start == 7
            for other in (replace(IDENTITY, chain="5"), replace(IDENTITY, genesis="0x00"), Identity("x", "1", "0x")):
                with pytest.raises(WrongChain, match=other.chain):
                    store.bind_source(SOURCE, other, 7)
            bound = store.source(SOURCE)
            assert bound is not None
            assert bound.identity == IDENTITY

    def test_names_that_cannot_be_are_refused(self) -> None:
        """A table that would hide one of the product's own is a configuration error, before anything is made."""
        for name in ("gapless_entries", "sqlite_x"):
            store = self.make_store()
            table = Table(name, SOURCE, TRANSFERS.nature, TRANSFERS.columns, TRANSFERS.key)
            with pytest.raises(ConfigError, match="reserved"):
                store.open(Schema(SCHEMA.app, (table,), SCHEMA.sources), create=True)
            store.close()
