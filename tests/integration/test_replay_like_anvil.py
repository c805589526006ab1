"""A replayed recording answers what the node it was taken from answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gapless.sources.replay import ReplayTransport, open_recording
from servers.anvil import Anvil, artifacts, build_transfers, call

pytestmark = pytest.mark.anvil
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
APPROVAL = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925"


def record(node: Anvil, path: Path) -> ReplayTransport:
    """What a node has now, as a recording with one step."""
    blocks = [node.block(number, full=True) for number in range(node.head() + 1)]
    numbers = {tag: int(node.block(tag)["number"], 16) for tag in ("safe", "finalized")}
    steps = [{"head": blocks[-1]["hash"], **numbers}]
    lines: list[Any] = [{"recording": 1, "kind": "evm", "chain_id": 31337, "steps": steps}]
    lines += [{"block": b, "receipts": node.rpc("eth_getBlockReceipts", b["number"])} for b in blocks]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return open_recording(path)


def questions(token: str, block: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    """Every kind of question an indexer asks, with answers and without."""
    block_hash, transaction, unknown = block["hash"], block["transactions"][0]["hash"], "0x" + "ab" * 32
    named = ["0x0", "0x3", "0x63", "latest", "safe", "finalized", "earliest"]
    asked: list[tuple[str, list[Any]]] = [("eth_chainId", []), ("eth_blockNumber", []), ("eth_getNothing", [])]
    asked += [("eth_getBlockByNumber", [name, full]) for name in named for full in (True, False)]
    asked += [("eth_getBlockByHash", [name, full]) for name in (block_hash, unknown) for full in (True, False)]
    asked += [("eth_getBlockReceipts", [name]) for name in (*named, block_hash, unknown, {"blockHash": block_hash})]
    asked += [("eth_getTransactionReceipt", [name]) for name in (transaction, unknown)]
    asked += [("eth_getTransactionByHash", [name]) for name in (transaction, unknown)]
    filters: list[dict[str, Any]] = [{}, {"address": token}, {"address": [token, "0x" + "12" * 20]}]
    filters += [{"topics": [TRANSFER]}, {"topics": [[TRANSFER, APPROVAL]]}, {"topics": [None, "0x" + "00" * 32]}]
    filters += [{"address": token, "topics": [APPROVAL, "0x" + "00" * 32]}, {"address": "0x" + "12" * 20}]
    ranges = [("0x0", "latest"), ("0x2", "0x4"), ("0x4", "0x4"), ("0x63", "0x70"), ("earliest", "finalized")]
    asked += [("eth_getLogs", [{"fromBlock": a, "toBlock": b, **f}]) for a, b in ranges for f in filters]
    asked += [("eth_getLogs", [{"blockHash": name, **f}]) for name in (block_hash, unknown) for f in filters]
    return asked


def test_it_answers_as_the_node_it_was_taken_from(anvil: Anvil, tmp_path: Path) -> None:
    """Results are equal to the last field and refusals have the same code, for every kind of question."""
    token = build_transfers(anvil, blocks=4, per_block=10).token
    anvil.send(None, artifacts()["Oddities"]["bytecode"])
    anvil.send(token, call("approve(address,uint256)", anvil.accounts[1], 5))
    anvil.mine()
    node = record(anvil, tmp_path / "chain.jsonl")
    for method, params in questions(token, anvil.block(6, full=True)):
        document = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        theirs = anvil.post(document)
        ours = json.loads(asyncio.run(node.post(json.dumps(document).encode(), 1.0)).body)
        if "error" in theirs:
            theirs["error"] = {"code": theirs["error"]["code"]}
            ours["error"] = {"code": ours["error"]["code"]}
        assert ours == theirs, (method, params)
