"""Random histories: whatever happened in whatever order, the tables are those of the model."""

from __future__ import annotations

from dataclasses import replace
from random import Random  # noqa: TID251 - drawn from a seed, so that a failure can be repeated

import pytest

from gapless.errors import CursorMoved, LeaseLost, NothingToUndo
from gapless.model import Cursor, Fence
from gapless.store import Store
from gapless.testing.store_contract.case import StoreCase, assert_holds, lead, wrong_id
from gapless.testing.store_contract.sample import SOURCE, Chain

STEPS = 25
SEEDS = 6


class HistoryContract(StoreCase):
    """Everything together."""

    def test_random_histories_equal_a_naive_model(self) -> None:
        """Commits, forks, rewinds, replacements, stale batches, lost leases, reopening: after each, all is compared."""
        for seed in range(SEEDS):
            chain = Chain(seed=seed, start=7)
            with self.opened() as store:
                fence = lead(store, chain, f"run {seed}")
                known = store.cursor(SOURCE)
                if known is not None:
                    store.rewind(SOURCE, Cursor(6, ""), known, fence)
                walk = _Walk(store, chain, fence, Random(seed))
                for step in range(STEPS):
                    try:
                        walk.step()
                        assert_holds(store, chain)
                    except (Exception, AssertionError) as error:
                        error.add_note(f"history {seed}, step {step}: {walk.done}")
                        raise
                store.release(walk.fence)


class _Walk:
    """One history. `floor`: the lowest position that can be gone back to."""

    def __init__(self, store: Store, chain: Chain, fence: Fence, random: Random) -> None:
        self.store = store
        self.chain = chain
        self.fence = fence
        self.random = random
        self.floor = chain.start - 1
        self.done: list[str] = []

    @property
    def cursor(self) -> Cursor | None:
        return self.chain.cursor() if self.chain.blocks else None

    def step(self) -> None:
        steps = [self.grow, self.grow, self.grow, self.fork, self.fork, self.rewind, self.replace]
        steps += [self.too_deep, self.stale, self.deposed, self.prune]
        step = self.random.choice(steps if self.chain.blocks else [self.grow])
        self.done.append(step.__name__)
        step()

    def grow(self) -> None:
        first, expected = self.chain.last + 1, self.cursor
        self.chain.extend(self.random.randrange(1, 6))
        final = self.random.choice([None, None, self.chain.last - 4, self.chain.last + 50])
        if final is not None:
            self.floor = max(self.floor, min(final, self.chain.last))
        self.store.commit(self.chain.batch(first, final=final), expected, self.fence)

    def fork(self) -> None:
        depth = self.random.randrange(self.chain.last - self.floor + 1)
        if depth == 0:
            return
        expected = self.cursor
        ancestor = self.chain.fork(depth)
        self.chain.extend(self.random.randrange(1, depth + 3))
        self.store.commit(self.chain.batch(ancestor.position + 1, rewind_to=ancestor), expected, self.fence)

    def rewind(self) -> None:
        depth = self.random.randrange(self.chain.last - self.floor + 1)
        everything = self.random.random() < 0.1
        expected = self.chain.cursor()
        if everything:
            depth = len(self.chain.blocks)
            self.floor = self.chain.start - 1
        ancestor = self.chain.fork(depth)
        assert self.store.rewind(SOURCE, ancestor, expected, self.fence) == depth

    def too_deep(self) -> None:
        if self.floor - 1 >= self.chain.start:
            with pytest.raises(NothingToUndo):
                self.store.rewind(SOURCE, self.chain.cursor(self.floor - 1), self.chain.cursor(), self.fence)

    def prune(self) -> None:
        upto = self.random.randrange(self.chain.start - 1, self.chain.last + 10)
        self.floor = max(self.floor, min(upto, self.chain.last))
        self.store.prune_undo(SOURCE, upto)

    def replace(self) -> None:
        first = self.random.randrange(self.chain.start, self.chain.last + 1)
        self.store.replace(self.chain.batch(first, self.random.randrange(first, self.chain.last + 1)), self.fence)

    def stale(self) -> None:
        batch = self.chain.batch(self.chain.last)
        with pytest.raises(CursorMoved):
            self.store.commit(batch, wrong_id(self.chain.cursor()), self.fence)

    def deposed(self) -> None:
        old, new_holder = self.fence, f"{self.fence.holder}'"[-20:]
        self.store.release(old)
        fence = self.store.acquire(old.name, new_holder, 60)
        assert fence is not None
        self.fence = fence
        with pytest.raises(LeaseLost):
            self.store.commit(self.chain.batch(self.chain.last), self.cursor, old)
        with pytest.raises(LeaseLost):
            self.store.commit(self.chain.batch(self.chain.last), self.cursor, replace(fence, holder="nobody"))
