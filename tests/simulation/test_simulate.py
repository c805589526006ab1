"""`gapless.testing.simulate`: a user's own app, in five lines."""

from __future__ import annotations

from typing import Any

import pytest
from tests.simulation.ledger import balances_app

import gapless
from gapless.testing import TOKEN, SimulationFailed, simulate, transfer
from gapless.testing.block import NOBODY, holder


def counting_app(*, in_tables: bool) -> gapless.App:
    """Counts each holder's receipts: in a table, or in a variable of the process, which knows nothing of forks."""
    app = gapless.App("counts")
    chain = app.evm("mainnet", rpc="https://node.example", start=17_000_000)
    token = chain.contract("token", abi="erc20", address="0x" + "ab" * 20, events=["Transfer"])
    seen: dict[str, int] = {}

    @app.table
    class Receipts:
        holder: gapless.Address = gapless.key()
        count: int

    @app.on(token.Transfer)
    def count(event: Any, tables: Any) -> None:
        if in_tables:
            held = tables[Receipts].get(event.to_)
            tables[Receipts].put(Receipts(event.to_, (held.count if held else 0) + 1))
        else:
            seen[event.to_] = seen.get(event.to_, 0) + 1
            tables[Receipts].put(Receipts(event.to_, seen[event.to_]))

    return app


def test_an_app_that_keeps_to_its_tables_passes() -> None:
    """The app is put on the simulated chain by itself, whatever its own start, address and endpoints are."""
    outcomes = simulate(counting_app(in_tables=True), seeds=range(11, 19))
    assert [outcome.seed for outcome in outcomes] == list(range(11, 19))
    assert sum(outcome.forks for outcome in outcomes) > 0


def test_an_app_whose_handler_breaks_on_forks_fails() -> None:
    """State beside the tables is not undone on a fork: the tables are not those of an undisturbed run."""
    with pytest.raises(SimulationFailed, match=r"(?s)^Seed \d+: .*Again: simulate\(app, seeds=\[\d+\]\)$"):
        simulate(counting_app(in_tables=False), seeds=range(20))


def test_an_app_whose_handler_raises_fails_with_its_reason() -> None:
    """A handler that does not take what an earlier branch had taken ends the run."""
    app = gapless.App("once")
    chain = app.evm("mainnet", rpc="https://node.example")
    token = chain.contract("token", abi="erc20", address="0x" + "ab" * 20, events=["Transfer"])
    highest = [-1]

    @app.on(token.Transfer)
    def refuse_the_past(event: Any, tables: Any) -> None:
        if event.block_number < highest[0]:
            raise ValueError("time runs backwards")
        highest[0] = event.block_number

    with pytest.raises(SimulationFailed, match=r"HandlerFailed.*time runs backwards"):
        simulate(app, seeds=range(20))


def test_what_blocks_hold_can_be_scripted() -> None:
    """Logs of one's own, from a contract at any address; the app itself is not changed."""
    app = balances_app()
    other = "0x" + "cd" * 20
    minted = simulate(
        app, seeds=[3], addresses={"token": other}, logs=lambda n: [transfer(NOBODY, holder(n % 5), n, token=other)]
    )
    assert minted[0].commits > 0
    assert app.config.contracts["token"].address == (TOKEN,)
