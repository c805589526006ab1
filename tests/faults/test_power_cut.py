"""A disk below SQLite that forgets what was not synced: whatever moment the power goes, what was committed is there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from faults.scale import draws, figures, tiers
from gapless.errors import DiskFull, StoreError
from gapless.store import sqlite
from gapless.store.sqlite import SqliteOptions, SqliteStore
from gapless.testing.faulty_disk import FaultyDisk, Operation
from gapless.testing.store_contract.case import assert_holds, lead
from gapless.testing.store_contract.sample import SCHEMA, SOURCE, Chain

OFTEN = SqliteOptions(checkpoint_pages=8)
"""Checkpoints all the time: the moments at which most can go wrong."""


def cut_while_committing(path: Path, seed: int, batches: int = 12) -> tuple[Chain, int, int]:
    """Commit until the power goes at some operation; the chain as acknowledged, its length with the one under way, and
    how many writes the disk lost."""
    chain = Chain(seed)
    draw = draws("power", seed)
    with FaultyDisk(seed) as disk:
        store = SqliteStore(path, options=OFTEN)
        store.open(SCHEMA, create=True)
        fence = lead(store, chain)
        acknowledged = -1
        disk.die_after(draw.randrange(20, 150))
        with suppress(StoreError):
            for _ in range(batches):
                expected = chain.cursor() if chain.blocks else None
                first = acknowledged + 1
                chain.extend(draw.randint(1, 3))
                store.commit(chain.batch(first), expected, fence)
                acknowledged = chain.last
        lost = disk.power_cut()
        with suppress(StoreError, apsw.Error):
            store.close()
    return chain, acknowledged, lost


def recovered(path: Path) -> SqliteStore:
    store = SqliteStore(path, options=SqliteOptions(check_pages=True))
    store.open(SCHEMA, create=True)
    return store


def assert_nothing_lost(path: Path, chain: Chain, acknowledged: int) -> None:
    store = recovered(path)
    try:
        cursor = store.cursor(SOURCE)
        last = -1 if cursor is None else cursor.position
        assert last in {acknowledged, chain.last}, f"acknowledged up to {acknowledged}, found {last}"
        if last < chain.last:
            chain.fork(chain.last - last)
        assert_holds(store, chain)
    finally:
        store.close()


@pytest.mark.parametrize("seeds", tiers("POWER_CUTS", 25, 2_000))
def test_what_was_committed_survives_the_power(tmp_path: Path, seeds: int) -> None:
    """Writes not followed by a sync are lost or torn at random: every acknowledged batch is there, whole, or the next
    one too."""
    lost = 0
    for seed in range(seeds):
        path = tmp_path / f"{seed}.db"
        chain, acknowledged, forgotten = cut_while_committing(path, seed)
        assert_nothing_lost(path, chain, acknowledged)
        lost += forgotten
        for left in tmp_path.glob(f"{seed}.db*"):
            left.unlink()
    figures("T1 power cuts, SQLite", cuts=seeds, writes_lost_or_torn=lost, acknowledged_lost=0)
    assert lost > 0


def test_a_store_that_does_not_sync_loses_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with synchronous=OFF, as it must not be: the disk forgets, and the test above would say so."""
    made = SqliteStore._make_durable

    def careless(self: SqliteStore, connection: apsw.Connection) -> None:
        made(self, connection)
        connection.pragma("synchronous", "OFF")

    monkeypatch.setattr(sqlite.SqliteStore, "_make_durable", careless)
    losses = 0
    for seed in range(6):
        path = tmp_path / f"{seed}.db"
        chain, acknowledged, _ = cut_while_committing(path, seed)
        try:
            assert_nothing_lost(path, chain, acknowledged)
        except (AssertionError, StoreError):
            losses += 1
    assert losses > 0


@pytest.mark.parametrize("operation", [Operation.WRITE, Operation.SYNC])
@pytest.mark.parametrize("skip", range(4))
def test_an_input_output_error_leaves_nothing_half(tmp_path: Path, operation: Operation, skip: int) -> None:
    """EIO at a write or a sync of a commit: the store says so, and opened again it holds all of the batch or nothing.

    After a failed sync nobody knows what is on the disk; so the error cannot be tried again in the same process."""
    path, chain = tmp_path / "some.db", Chain(seed=skip).extend(3)
    with FaultyDisk(skip) as disk:
        store = SqliteStore(path, options=OFTEN)
        store.open(SCHEMA, create=True)
        fence = lead(store, chain)
        store.commit(chain.batch(0), None, fence)
        acknowledged = chain.last
        disk.fail(operation, skip=skip)
        with suppress(StoreError):
            for _ in range(4):
                expected, first = chain.cursor(), chain.last + 1
                chain.extend(2)
                store.commit(chain.batch(first), expected, fence)
                acknowledged = chain.last
        failed = acknowledged < chain.last
        disk.power_cut()
        with suppress(StoreError, apsw.Error):
            store.close()
    assert_nothing_lost(path, chain, acknowledged)
    assert failed, "no commit met the error"


def test_a_disk_error_is_not_tried_again(tmp_path: Path) -> None:
    """A failed sync is no retryable error: the run ends, and the next start recovers from the log."""
    path, chain = tmp_path / "some.db", Chain(seed=9).extend(2)
    with FaultyDisk() as disk:
        store = SqliteStore(path)
        store.open(SCHEMA, create=True)
        fence = lead(store, chain)
        disk.fail(Operation.SYNC, times=1)
        with pytest.raises(StoreError, match="disk") as told:
            store.commit(chain.batch(0), None, fence)
        assert not told.value.retryable
        assert told.value.todo
        store.close()


def test_a_full_disk_below_sqlite_is_waited_out(tmp_path: Path) -> None:
    """ENOSPC in the middle of a commit undoes it; with room again the same batch goes in, and nothing is lost."""
    path, chain = tmp_path / "some.db", Chain(seed=4).extend(3)
    with FaultyDisk() as disk:
        store = SqliteStore(path)
        store.open(SCHEMA, create=True)
        fence = lead(store, chain)
        for room in (0, 5_000, 20_000, 60_000):
            first = 0 if store.cursor(SOURCE) is None else chain.last + 1
            expected = store.cursor(SOURCE)
            if first:
                chain.extend(60)
            disk.fill(room)
            with pytest.raises(DiskFull) as told:
                store.commit(chain.batch(first), expected, fence)
            assert told.value.todo
            disk.free()
            store.commit(chain.batch(first), expected, fence)
            assert_holds(store, chain)
        store.close()
