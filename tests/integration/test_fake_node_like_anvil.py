"""The fake node answers in the shapes of a real one: the same questions to both, keys and kinds compared."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
import pytest

from gapless.sources.evm import bloom, prove
from gapless.sources.evm.types import FullBlock, Receipt
from gapless.testing import TRANSFER_TOPIC, FakeNode, ScriptedChain, fold_logs
from servers.anvil import Anvil, build_transfers

pytestmark = pytest.mark.anvil
UNKNOWN = "0x" + "ab" * 32


@pytest.fixture
def filled(anvil: Anvil) -> Anvil:
    """Blocks of transfers on a real node: the token in block 1, then four blocks of eight transfers."""
    build_transfers(anvil, blocks=4, per_block=8)
    return anvil


@pytest.fixture
def node() -> Iterator[FakeNode]:
    chain = ScriptedChain(logs_per_transaction=2)
    chain.mine(5, logs=8)
    with FakeNode(chain) as node:
        yield node


class Client:
    """Asks one of the two."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, body: Any) -> Any:
        async def send() -> Any:
            async with aiohttp.ClientSession() as session, session.post(self.url, json=body) as response:
                return await response.json(content_type=None)

        return asyncio.run(send())

    def ask(self, method: str, *params: Any) -> Any:
        return self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})


def shape(value: Any) -> Any:
    """The structure of an answer: keys, and what kind of text stands where. A list has the shape of its items."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [json.loads(text) for text in sorted({json.dumps(shape(item)) for item in value})]
    if isinstance(value, str):
        if re.fullmatch("0x([0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{512})", value):
            return f"{(len(value) - 2) // 2} bytes"
        return "0x text" if re.fullmatch("0x[0-9a-f]*", value) else "text"
    return type(value).__name__


def plain(answer: Any) -> Any:
    """Without the fields whose width varies with their value, and with one of Anvil's oddities levelled."""
    if isinstance(answer, dict):
        kept = {key: plain(item) for key, item in answer.items() if key not in ("r", "s", "input", "to")}
        if isinstance(kept.get("blockTimestamp"), int):
            kept["blockTimestamp"] = hex(kept["blockTimestamp"])  # Anvil: a number in receipts, text elsewhere
        return kept
    return [plain(item) for item in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_chainId", []),
        ("net_version", []),
        ("web3_clientVersion", []),
        ("eth_blockNumber", []),
        ("eth_syncing", []),
        ("eth_getBlockByNumber", ["0x3", True]),
        ("eth_getBlockByNumber", ["0x3", False]),
        ("eth_getBlockByNumber", ["earliest", False]),
        ("eth_getBlockByNumber", ["latest", True]),
        ("eth_getBlockByNumber", ["safe", False]),
        ("eth_getBlockByNumber", ["finalized", False]),
        ("eth_getBlockByNumber", ["pending", False]),
        ("eth_getBlockByNumber", ["0x99", False]),
        ("eth_getBlockByHash", [UNKNOWN, False]),
        ("eth_getBlockReceipts", ["0x3"]),
        ("eth_getBlockReceipts", ["0x99"]),
        ("eth_getBlockReceipts", [UNKNOWN]),
        ("eth_getTransactionReceipt", [UNKNOWN]),
        ("eth_getTransactionByHash", [UNKNOWN]),
        ("eth_getLogs", [{"fromBlock": "0x2", "toBlock": "0x4"}]),
        ("eth_getLogs", [{"fromBlock": "0x2", "toBlock": "0x4", "topics": [[TRANSFER_TOPIC, UNKNOWN], None]}]),
        ("eth_getLogs", [{"fromBlock": "0x2", "toBlock": "0x4", "topics": [UNKNOWN]}]),
    ],
)
def test_results_have_the_same_shape(filled: Anvil, node: FakeNode, method: str, params: list[Any]) -> None:
    """The same keys with values of the same kind, for every method, found or not."""
    real, fake = Client(filled.url).ask(method, *params), Client(node.url).ask(method, *params)

    assert shape(plain(fake)) == shape(plain(real))


def test_found_by_hash_alike(filled: Anvil, node: FakeNode) -> None:
    """Blocks, receipts and transactions by the hashes the nodes gave."""
    answers = []
    for client in (Client(filled.url), Client(node.url)):
        block = client.ask("eth_getBlockByNumber", "0x3", True)["result"]
        transaction = block["transactions"][0]["hash"]
        assert client.ask("eth_getBlockByHash", block["hash"], True)["result"] == block
        logs = client.ask("eth_getLogs", {"blockHash": block["hash"]})["result"]
        assert len(logs) == 8
        receipt = client.ask("eth_getTransactionReceipt", transaction)["result"]
        assert receipt == client.ask("eth_getBlockReceipts", {"blockHash": block["hash"]})["result"][0]
        answers.append(shape(plain([client.ask("eth_getTransactionByHash", transaction)["result"], receipt, logs])))

    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("eth_nope", []),
        ("eth_getBlockByNumber", ["0x1"]),
        ("eth_getBlockByNumber", ["0x1z", False]),
        ("eth_getBlockByHash", ["0x11", False]),
        ("eth_getLogs", []),
        ("eth_getLogs", [{"blockHash": UNKNOWN}]),
        ("eth_getLogs", [{"fromBlock": "zz"}]),
        ("eth_getLogs", [{"address": "0x12"}]),
        ("eth_getLogs", [{"fromBlock": "0x0", "toBlock": "0x2", "blockHash": UNKNOWN}]),
        ("eth_subscribe", ["newHeads"]),
    ],
)
def test_errors_have_the_same_code(filled: Anvil, node: FakeNode, method: str, params: list[Any]) -> None:
    """What the real node refuses, the fake one refuses under the same code."""
    real, fake = Client(filled.url).ask(method, *params), Client(node.url).ask(method, *params)

    assert shape(fake) == shape(real)
    assert fake["error"]["code"] == real["error"]["code"]


def test_batches_alike(filled: Anvil, node: FakeNode) -> None:
    """Order kept, errors inside; an empty batch is refused."""
    calls = [("eth_chainId", []), ("nope", []), ("eth_getBlockByNumber", ["0x2", False])]
    body = [{"jsonrpc": "2.0", "id": 5 - i, "method": m, "params": p} for i, (m, p) in enumerate(calls)]
    real, fake = Client(filled.url).post(body), Client(node.url).post(body)

    assert [answer["id"] for answer in fake] == [answer["id"] for answer in real] == [5, 4, 3]
    assert shape(plain(fake)) == shape(plain(real))
    assert Client(node.url).post([])["error"]["code"] == Client(filled.url).post([])["error"]["code"]


def test_pushed_heads_alike(filled: Anvil, node: FakeNode) -> None:
    """A new head has the header's keys, inside the same notification. (Anvil pushes more: the whole block.)"""

    async def listen(url: str, mine: Any) -> Any:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]})
            assert json.loads((await socket.receive(10)).data)["result"].startswith("0x")
            await asyncio.to_thread(mine)
            return json.loads((await socket.receive(10)).data)

    real = asyncio.run(listen(filled.ws_url, filled.mine))
    fake = asyncio.run(listen(node.ws_url, node.chain.mine))
    assert set(fake) == set(real)
    assert set(fake["params"]) == set(real["params"])
    body = {"transactions", "uncles", "withdrawals"}
    assert set(fake["params"]["result"]) == set(real["params"]["result"]) - body


def test_the_same_checks_hold_for_both(filled: Anvil, node: FakeNode) -> None:
    """Hashes, roots and blooms of the real node and of the fake one are recomputed by the same functions."""
    for client in (Client(filled.url), Client(node.url)):
        for number in range(6):
            answer = client.ask("eth_getBlockByNumber", hex(number), True)["result"]
            block = msgspec.convert(answer, FullBlock)
            receipts = msgspec.convert(client.ask("eth_getBlockReceipts", hex(number))["result"], list[Receipt])
            logs = [log for receipt in receipts for log in receipt.logs]
            assert prove.header_hash(block) == block.hash
            assert prove.transactions_root(block.transactions) == block.transactions_root
            assert prove.receipts_root(receipts) == block.receipts_root
            assert bloom.of_logs(logs) == int(block.logs_bloom, 16)


def test_the_oracle_agrees_with_the_contract(filled: Anvil) -> None:
    """The fold over a real node's logs gives each holder what the token contract itself says."""
    logs = filled.rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"})
    result = fold_logs(logs)
    [token] = {token for token, _ in result.balances}
    holders = sorted(holder for _, holder in result.balances)

    assert len(result.transfers) == 33
    assert {holder: result.balance(token, holder) for holder in holders} == filled.balances(token, holders)
