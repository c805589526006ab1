"""The apps the simulation runs, and what their tables must hold: a fold that knows nothing of the engine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import gapless
from gapless.testing import NOBODY, TOKEN, TRANSFER_TOPIC, ScriptedBlock
from gapless.testing.simulation_checks import Produced, Row, State

BAD_REMAINDER = 11
"""A transfer whose value leaves this remainder by 13 is not taken by its (independent) handler."""


def transfers_app() -> gapless.App:
    """No handlers: the events' own table."""
    app = gapless.App("sim")
    app.evm("chain", rpc="http://simulated.example").contract("token", abi="erc20", address=TOKEN, events=["Transfer"])
    return app


def balances_app() -> gapless.App:
    """State only: balances; a row goes when nothing is left."""
    app = gapless.App("sim")
    chain = app.evm("chain", rpc="http://simulated.example")
    token = chain.contract("token", abi="erc20", address=TOKEN, events=["Transfer"])

    @app.table
    class Holding:
        holder: gapless.Address = gapless.key()
        balance: gapless.UInt256

    @app.on(token.Transfer)
    def move(transfer: Any, tables: Any) -> None:
        for holder, change in ((transfer.from_, -transfer.value), (transfer.to_, transfer.value)):
            if holder != NOBODY:
                held = tables[Holding].get(holder)
                balance = (held.balance if held else 0) + change
                if balance:
                    tables[Holding].put(Holding(holder, balance))
                else:
                    tables[Holding].delete(holder)

    return app


def totals_app() -> gapless.App:
    """State, facts that come from it, and events that a handler does not take."""
    app = gapless.App("sim")
    chain = app.evm("chain", rpc="http://simulated.example")
    token = chain.contract("token", abi="erc20", address=TOKEN, events=["Transfer"])

    @app.table
    class Total:
        name: str = gapless.key()
        value: gapless.UInt256

    @app.table
    class Seen:
        total: gapless.UInt256

    @app.on(token.Transfer, independent=True)
    def add(transfer: Any, tables: Any) -> None:
        name = f"r{transfer.value % 5}"
        before = tables[Total].get(name)
        total = (before.value if before else 0) + transfer.value % 1000
        if total % 3 == 0:
            tables[Total].delete(name)
        else:
            tables[Total].put(Total(name, total))
        tables[Seen].insert(Seen(total))
        if transfer.value % 13 == BAD_REMAINDER:
            raise ValueError("bad")

    return app


# --- what must come of them ----------------------------------------------------------------------------------------


class TransfersFold:
    """`token_transfer`, from logs read as text."""

    def fold(self, state: State, block: ScriptedBlock) -> tuple[State, Produced]:
        return state, Produced({"token_transfer": tuple(row for row, _ in _transfers(block))})


class BalancesFold:
    """Transfers, and balances in `holding`."""

    def fold(self, state: State, block: ScriptedBlock) -> tuple[State, Produced]:
        holdings = dict(state.get("holding", {}))
        rows = []
        for row, (giver, taker, value) in _transfers(block):
            rows.append(row)
            for holder, change in ((giver, -value), (taker, value)):
                if holder != NOBODY:
                    key = (holder,)
                    balance = int(holdings[key][1] or 0) + change if key in holdings else change
                    holdings.pop(key, None)
                    if balance != 0:
                        holdings[key] = (holder, str(balance))
        return {"holding": holdings}, Produced({"token_transfer": tuple(rows)})


class TotalsFold:
    """Transfers, running totals in `total` and `seen`, and what waits in quarantine."""

    def fold(self, state: State, block: ScriptedBlock) -> tuple[State, Produced]:
        totals = {name: int(row[1] or 0) for (name,), row in state.get("total", {}).items()}
        rows: list[Row] = []
        seen: list[Row] = []
        waiting: list[tuple[str, str]] = []
        for row, (_, _, value) in _transfers(block):
            rows.append(row)
            if value % 13 == BAD_REMAINDER:
                waiting.append((f"log:{row[5]}", "add"))
                continue
            name = f"r{value % 5}"
            total = totals.get(name, 0) + value % 1000
            totals[name] = total
            if total % 3 == 0:
                del totals[name]
            seen.append((row[0], row[5], "0", str(total)))
        after = {(name,): (name, str(total)) for name, total in totals.items()}
        return {"total": after}, Produced({"token_transfer": tuple(rows), "seen": tuple(seen)}, tuple(waiting))


def _transfers(block: ScriptedBlock) -> list[tuple[Row, tuple[str, str, int]]]:
    """Each transfer of a block as the row of its event's table, with giver, taker and value."""
    found = []
    time = datetime.fromtimestamp(block.timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for log in block.logs:
        if log.address != TOKEN or log.topics[0] != TRANSFER_TOPIC:
            continue
        giver, taker, value = "0x" + log.topics[1][-40:], "0x" + log.topics[2][-40:], int(log.data, 16)
        place = (str(block.number), time, block.hash, log.transaction_hash)
        indices = (str(int(log.transaction_index, 16)), str(int(log.log_index, 16)))
        found.append(((*place, *indices, log.address, giver, taker, str(value)), (giver, taker, value)))
    return found
