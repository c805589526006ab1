#!/usr/bin/env python3
"""Record the example chain that `make demo` replays: src/gapless/examples/erc20/chain.jsonl.gz.

    .venv/bin/python tools/record_example.py [OUT]

Starts Anvil, mines about 400 blocks of an ERC-20 in use (with reverted transactions, contract creations, access lists,
a set-code transaction, empty blocks, a second token that is not ours), replaces the newest six of them by another
branch that holds the same transactions one block later, and writes down every block and receipt of both branches as the
node gave them, with the contract's own `balanceOf` of every holder at the end. `gapless.sources.evm.recording` says
what the file looks like.

Everything is fixed (times, nonces, prices, draws), so building twice gives the same bytes. There is no blob
transaction: Anvil 1.7.1 computes the transactions root of its block over the form with the blobs in it, which no
other node does, and the recording must hold at `verify = "proved"`.
"""

from __future__ import annotations

import gzip
import json
import random  # noqa: TID251 seeded: every run draws the same
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from servers.anvil import BLOCK_SECONDS, GENESIS_TIME, Anvil, artifacts, call, start_anvil  # noqa: E402

OUT = ROOT / "src" / "gapless" / "examples" / "erc20" / "chain.jsonl.gz"
FORK = 395
"""The last block both branches share."""
TIP_A = 401
FIRST_B = 404
"""Where the head stands right after it moved to the other branch …"""
TIP_B = 408
"""… and where it ends, block by block."""
EPOCH_SLOTS = 4
"""Anvil calls a block final two epochs below the head: at 401 that is 393, below the fork."""
HOLDERS = 300
GWEI = 10**9
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
ZERO = "0x" + "00" * 20


@dataclass
class Pen:
    """Writes transactions with fixed nonces and prices into Anvil's pool, in order."""

    anvil: Anvil
    token: str = ""
    decoy: str = ""
    oddities: str = ""
    nonces: dict[str, int] = field(default_factory=dict)

    def send(self, account: int, to: str | None, data: str, *, kind: int = 2, gas: int = 200_000, **more: Any) -> None:
        """One transaction of type `kind`: 0 legacy, 1 access list, 2 priority fee, 4 set code."""
        sender = self.anvil.accounts[account]
        nonce = self.nonces.get(sender, 0)
        self.nonces[sender] = nonce + 1
        fields: dict[str, Any] = {"from": sender, "nonce": hex(nonce), "data": data, "gas": hex(gas), "type": hex(kind)}
        if to is not None:
            fields["to"] = to
        if kind < 2:
            fields["gasPrice"] = hex(3 * GWEI)
        else:
            fields |= {"maxFeePerGas": hex(3 * GWEI), "maxPriorityFeePerGas": hex(GWEI)}
        if kind == 1:
            fields["accessList"] = [{"address": self.token, "storageKeys": ["0x" + "00" * 32]}]
        self.anvil.rpc("eth_sendTransaction", fields | more)

    def transfer(self, account: int, to: str, value: int, **more: Any) -> None:
        self.send(account, self.token, call("transfer(address,uint256)", to, value), **more)

    def many(self, seed: int, count: int) -> None:
        data = call("transferMany(uint256,uint256,uint256)", seed, count, HOLDERS)
        self.send(0, self.token, data, gas=100_000 + 70_000 * count)


# --- what happens in which block -----------------------------------------------------------------------------------


def write_block(pen: Pen, number: int) -> None:
    """The transactions of one block. Account 9 is kept for the other branch."""
    accounts = pen.anvil.accounts
    draw = random.Random(f"gapless example {number}")
    if number <= 3:
        write_opening(pen, number)
        return
    if number % 9 == 4:
        return  # an empty block
    if number % 50 == 17:  # a block without a single log
        for kind in (0, 1, 2):
            pen.send(5 + kind, accounts[kind], "0x", kind=kind, gas=60_000, value=hex(number * 10**9))
        return
    for k in range(draw.choice((1, 1, 2))):
        pen.many(number * 8 + k, draw.randint(5, 12))
    for _ in range(draw.randint(0, 4)):
        pen.transfer(draw.randint(1, 7), accounts[draw.randint(1, 8)], draw.randrange(10**18), kind=draw.randint(0, 2))
    write_rare(pen, number)


def write_opening(pen: Pen, number: int) -> None:
    """Three contracts, then tokens for everybody."""
    accounts = pen.anvil.accounts
    if number == 1:
        for contract in ("Token", "Token", "Oddities"):
            pen.send(0, None, artifacts()[contract]["bytecode"], gas=5_000_000)
    else:
        for account in range(1, 10):
            pen.transfer(0, accounts[account], 10**20 * account + number)


def write_rare(pen: Pen, number: int) -> None:
    """What does not happen in every block: allowances, mint and burn, failures, another token, odd events."""
    accounts = pen.anvil.accounts
    if number % 5 == 0:
        pen.send(1, pen.token, call("approve(address,uint256)", accounts[2], 10**9 + number))
        pen.send(2, pen.token, call("transferFrom(address,address,uint256)", accounts[1], accounts[3], number), kind=1)
    if number % 11 == 0:
        pen.send(3, pen.token, call("mint(address,uint256)", accounts[4], 2**200 + number))
        pen.send(4, pen.token, call("burn(uint256)", 10**15 + number))
    if number % 13 == 0:  # fails, and its receipt says so
        pen.transfer(8, accounts[1], 2**255)
        pen.send(8, pen.oddities, call("emitThenRevert()", contract="Oddities"))
    if number % 17 == 0:  # to oneself, and nothing at all
        pen.transfer(5, accounts[5], number)
        pen.transfer(6, accounts[7], 0)
    if number % 19 == 0:  # a token that is not ours
        pen.send(0, pen.decoy, call("emitMany(uint256,uint256,uint256)", number, 3, HOLDERS))
    if number % 29 == 0:  # Transfer with four arguments, and an event without a topic
        pen.send(0, pen.oddities, call("emitFourArguments(address,uint256)", accounts[1], number, contract="Oddities"))
        pen.send(0, pen.oddities, call("emitAnonymous(uint256)", number, contract="Oddities"))
    if number == 100:  # any r and s recover to some account: its code becomes the second token's
        code = {"chainId": "0x7a69", "address": pen.decoy, "nonce": "0x0", "yParity": "0x0"}
        code |= {"r": "0x" + "11" * 32, "s": "0x" + "22" * 32}
        pen.send(7, accounts[6], "0x", kind=4, authorizationList=[code])
    if number == 200:
        pen.send(7, None, artifacts()["Token"]["bytecode"], gas=5_000_000, kind=0)


def write_branch(pen: Pen, number: int) -> None:
    """The other branch: one transfer that was not on the first, then the same transactions one block later each."""
    if number == FORK + 1:
        pen.transfer(9, pen.anvil.accounts[1], 7 * 10**18)
    else:
        write_block(pen, number - 1)


# --- recording -----------------------------------------------------------------------------------------------------


def mine(anvil: Anvil, number: int) -> dict[str, Any]:
    """Mine block `number` and return it with its receipts."""
    anvil.rpc("evm_mine", hex(GENESIS_TIME + BLOCK_SECONDS * number + (number > FORK) * (number % 3)))
    return taken(anvil, number)


def taken(anvil: Anvil, number: int) -> dict[str, Any]:
    block, receipts = anvil.batch(
        [("eth_getBlockByNumber", [hex(number), True]), ("eth_getBlockReceipts", [hex(number)])]
    )
    return {"block": block, "receipts": receipts}


def step(anvil: Anvil) -> dict[str, Any]:
    """Where the chain stands now: a step of the script."""
    blocks = {tag: anvil.block(tag) for tag in ("latest", "safe", "finalized")}
    numbers = {tag: int(block["number"], 16) for tag, block in blocks.items()}
    return {"head": blocks["latest"]["hash"], "safe": numbers["safe"], "finalized": numbers["finalized"]}


def record(anvil: Anvil) -> Iterator[dict[str, Any]]:
    """Every line of the file: what it is and its script, the blocks of both branches, the truth at the end."""
    pen = Pen(anvil)
    lines, steps = [taken(anvil, 0)], []
    for number in range(1, FORK + 1):
        write_block(pen, number)
        lines.append(mine(anvil, number))
        if number == 1:
            pen.token, pen.decoy, pen.oddities = (r["contractAddress"].lower() for r in lines[1]["receipts"])
    shared, nonces = anvil.snapshot(), dict(pen.nonces)
    final = list(lines)
    for number in range(FORK + 1, TIP_A + 1):
        write_block(pen, number)
        lines.append(mine(anvil, number))
    steps.append(step(anvil))
    anvil.revert(shared)
    pen.nonces = nonces
    for number in range(FORK + 1, TIP_B + 1):
        write_branch(pen, number)
        final.append(mine(anvil, number))
        lines.append(final[-1])
        if number >= FIRST_B:
            steps.append(step(anvil))
    contracts = {"token": pen.token, "decoy": pen.decoy, "oddities": pen.oddities}
    client = anvil.rpc("web3_clientVersion")
    yield {"recording": 1, "kind": "evm", "chain_id": 31337, "client": client, "contracts": contracts, "steps": steps}
    yield from lines
    yield {"truth": truth(anvil, pen.token, final)}


def truth(anvil: Anvil, token: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What an indexer of the final chain must find, and what the contract itself answers."""
    logs = [log for line in lines for receipt in line["receipts"] for log in receipt["logs"]]
    transfers = [log for log in logs if log["address"].lower() == token and log["topics"][0] == TRANSFER]
    holders = sorted({"0x" + topic[-40:] for log in transfers for topic in log["topics"][1:]} - {ZERO})
    balances = {holder: str(balance) for holder, balance in anvil.balances(token, holders).items()}
    supply = int(anvil.rpc("eth_call", {"to": token, "data": call("totalSupply()")}, "latest"), 16)
    return {
        "blocks": len(lines),
        "transactions": sum(len(line["receipts"]) for line in lines),
        "logs": len(logs),
        "transfers": len(transfers),
        "total_supply": str(supply),
        "balances": balances,
    }


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    with start_anvil("--order", "fifo", "--slots-in-an-epoch", str(EPOCH_SLOTS)) as anvil:
        lines = [json.dumps(line, separators=(",", ":")) for line in record(anvil)]
    body = ("\n".join(lines) + "\n").encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(gzip.compress(body, compresslevel=9, mtime=0))
    found = {k: v for k, v in json.loads(lines[-1])["truth"].items() if k != "balances"}
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB ({len(body) / 1e6:.1f} MB of JSON)")
    print(json.dumps(found | {"holders": len(json.loads(lines[-1])["truth"]["balances"])}))


if __name__ == "__main__":
    main()
