"""Who holds how much of a token: state kept by a handler, right after any reorg.

python app.py run --until 408         (408 is the recording's last block)
RPC_URL=http://127.0.0.1:8545 TOKEN=0x… python app.py run
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gapless
from gapless import examples

RECORDED_CONTRACT = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
ZERO = "0x" + "0" * 40

app = gapless.App("balances", base=Path(__file__).parent)

if "RPC_URL" in os.environ:
    chain = app.evm("mainnet", rpc=[os.environ["RPC_URL"]])
else:
    chain = app.replay("mainnet", file=examples.path(), verify="proved", poll="50 ms")

token = chain.contract("token", abi="erc20", address=os.environ.get("TOKEN", RECORDED_CONTRACT), events=["Transfer"])


@app.table
class Holding:
    """What one address holds. Keyed, so that it is state: a fork brings the old balance back."""

    holder: gapless.Address = gapless.key()
    balance: gapless.UInt256


@app.on(token.Transfer)
def move(transfer: Any, tables: Any) -> None:
    """Take from one, give to the other. Mints come from the zero address and burns go there; it holds nothing."""
    for holder, change in ((transfer.from_, -transfer.value), (transfer.to_, transfer.value)):
        if holder != ZERO:
            held = tables[Holding].get(holder)
            tables[Holding].put(Holding(holder, (held.balance if held else 0) + change))


if __name__ == "__main__":
    app.cli()
