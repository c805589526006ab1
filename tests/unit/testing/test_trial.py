"""A trial indexes what the chain holds, through forks and lies, and ends as a run ends."""

from __future__ import annotations

from typing import Any

import pytest

import gapless
from gapless.errors import ForkBeyondFinality
from gapless.testing import NOBODY, TOKEN, EmptyLogs, FakeNode, Late, ScriptedChain, Trial, fold

HERE = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


class Balances:
    """An app with state, a fact, and a handler that fails on one value."""

    def __init__(self, poison: int = -1) -> None:
        app = self.app = gapless.App("balances")
        chain = app.evm("mainnet", rpc=["http://127.0.0.1:1"])
        token = chain.contract("token", abi="erc20", address=HERE, events=["Transfer"])

        @app.table
        class Holding:
            holder: gapless.Address = gapless.key()
            balance: gapless.UInt256

        @app.table
        class Mint:
            value: gapless.UInt256

        @app.on(token.Transfer)
        def move(transfer: Any, tables: Any) -> None:
            if transfer.block_number == poison:
                raise RuntimeError("poison")
            for holder, change in ((transfer.from_, -transfer.value), (transfer.to_, transfer.value)):
                if holder != NOBODY:
                    held = tables[Holding].get(holder)
                    tables[Holding].put(Holding(holder, (held.balance if held else 0) + change))
            if transfer.from_ == NOBODY:
                tables[Mint].insert(Mint(transfer.value))

        self.Holding: Any = Holding
        self.Mint: Any = Mint


def wrong_about(trial: Trial, app: Balances, chain: ScriptedChain) -> bool:
    """Whether any balance or mint is not the chain's."""
    found = {row.holder: row.balance for row in trial.rows(app.Holding)}
    truth = fold(chain)
    mints = [t.value for t in truth.transfers if t.from_ == NOBODY]
    balances = {holder: balance for (_, holder), balance in truth.balances.items()}
    return found != balances or [row.value for row in trial.rows(app.Mint)] != mints


def test_a_trial_follows_the_chain_through_a_fork_and_a_lie() -> None:
    """After a lie, a fork and a restart the tables are those of the chain, and the app is as it was."""
    chain = ScriptedChain(seed=1)
    chain.mine(90, logs=4)  # the first 26 are final, and fetched by filter
    app = Balances()
    before = app.app.config
    with FakeNode(chain) as liar, FakeNode(chain) as honest:
        honest.behave(Late(0.03))
        lied = liar.behave(EmptyLogs(), first=5, last=20)
        trial = Trial(app.app, liar.url, honest.url, addresses={"token": TOKEN})
        trial.run()
        assert lied.used
        assert not wrong_about(trial, app, chain)
        chain.reorg(12)
        assert wrong_about(trial, app, chain), "the fold would show a branch that was left behind"
        trial.run()
    assert not wrong_about(trial, app, chain)
    assert len(trial.events("token_transfer")) == len(fold(chain).transfers)
    assert app.app.config is before


def test_a_trial_ends_as_a_run_ends() -> None:
    """A handler that raises stops its block, and a fork below what was final halts; both are raised."""
    chain = ScriptedChain(seed=1, finalized_distance=5)
    chain.mine(20, logs=4)
    poisoned, app = Balances(poison=7), Balances()
    with FakeNode(chain) as node:
        trial = Trial(poisoned.app, node.url, addresses={"token": TOKEN})
        with pytest.raises(gapless.HandlerFailed, match="block 7"):
            trial.run()
        assert max(row["block_number"] for row in trial.events("token_transfer")) == 6
        trial = Trial(app.app, node.url, addresses={"token": TOKEN})
        trial.run(10)
        assert max(row["block_number"] for row in trial.events("token_transfer")) == 10
        trial.run()
        chain.reorg(9)
        with pytest.raises(ForkBeyondFinality):
            trial.run()


def test_what_a_trial_cannot_be_is_said() -> None:
    """Names the app does not have, and apps without one EVM source, are refused."""
    app = Balances()
    with pytest.raises(gapless.UsageError, match="no contract 'coin'"):
        Trial(app.app, "http://127.0.0.1:1", addresses={"coin": TOKEN})
    app.app.evm("other", rpc=["http://127.0.0.1:1"])
    with pytest.raises(gapless.UsageError, match="one source"):
        Trial(app.app, "http://127.0.0.1:1")
