"""The fake node as a JSON-RPC server: methods, limits, batches, subscriptions, life cycle."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from gapless.errors import PortTaken
from gapless.testing.block import TOKEN, TRANSFER_TOPIC, ScriptedLog, holder, transfer, word
from gapless.testing.block_lies import OtherChainId
from gapless.testing.chain import ScriptedChain
from gapless.testing.faults import Late
from gapless.testing.fold import fold
from gapless.testing.methods import Limits
from gapless.testing.node import FakeNode
from gapless.testing.pushes import (
    DroppedSocket,
    DuplicatedHeads,
    GarbageHeads,
    OutOfOrderHeads,
    RefusedSocket,
    SilentHeads,
)

OTHER = "0x" + "ab" * 20


def post(node: FakeNode, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """One raw request: status, headers in lower case, body."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    try:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def call(node: FakeNode, method: str, *params: Any) -> Any:
    """The whole answer to one call."""
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}
    status, _, answer = post(node, json.dumps(body).encode())
    assert status == 200
    decoded = json.loads(answer)
    assert decoded["id"] == 7
    return decoded


def result(node: FakeNode, method: str, *params: Any) -> Any:
    answer = call(node, method, *params)
    assert "error" not in answer, answer
    return answer["result"]


def error(node: FakeNode, method: str, *params: Any) -> tuple[int, str]:
    answer = call(node, method, *params)["error"]
    return answer["code"], answer["message"]


@pytest.fixture
def chain() -> ScriptedChain:
    chain = ScriptedChain(seed=2, chain_id=10, safe_distance=2, finalized_distance=4)
    chain.mine(10, logs=3)
    return chain


@pytest.fixture
def node(chain: ScriptedChain) -> Iterator[FakeNode]:
    with FakeNode(chain) as node:
        yield node


def test_identity(node: FakeNode, chain: ScriptedChain) -> None:
    """Chain id, network id, client, height, syncing."""
    assert result(node, "eth_chainId") == "0xa"
    assert result(node, "net_version") == "10"
    assert result(node, "web3_clientVersion").startswith("GaplessFakeNode/")
    assert result(node, "eth_blockNumber") == "0xa"
    assert result(node, "eth_syncing") is False


def test_blocks(node: FakeNode, chain: ScriptedChain) -> None:
    """By number, tag and hash; whole transactions or their hashes; null for what there is not."""
    block = chain.blocks()[3]
    full = result(node, "eth_getBlockByNumber", "0x3", True)
    light = result(node, "eth_getBlockByHash", block.hash, False)

    assert full["hash"] == light["hash"] == block.hash
    assert full["transactions"][0]["hash"] == light["transactions"][0] == block.transactions[0]["hash"]
    heights = {tag: result(node, "eth_getBlockByNumber", tag, False)["number"] for tag in ("earliest", "latest")}
    assert heights == {"earliest": "0x0", "latest": "0xa"}
    assert result(node, "eth_getBlockByNumber", "safe", False)["number"] == "0x8"
    assert result(node, "eth_getBlockByNumber", "finalized", False)["number"] == "0x6"
    pending = result(node, "eth_getBlockByNumber", "pending", False)
    assert (pending["number"], pending["parentHash"]) == ("0xb", chain.head.hash)
    assert result(node, "eth_getBlockByNumber", "0xb", False) is None
    assert result(node, "eth_getBlockByHash", word(1), False) is None


def test_unknown_tags() -> None:
    """A chain without finality refuses the tag instead of guessing."""
    with FakeNode(ScriptedChain(finalized_distance=None)) as endless:
        assert error(endless, "eth_getBlockByNumber", "finalized", False)[0] == -39001


def test_receipts(node: FakeNode, chain: ScriptedChain) -> None:
    """Of a block by number, tag, hash or object; of a transaction; null for what there is not."""
    block = chain.blocks()[5]
    by_number = result(node, "eth_getBlockReceipts", "0x5")

    assert by_number == result(node, "eth_getBlockReceipts", block.hash)
    assert by_number == result(node, "eth_getBlockReceipts", {"blockHash": block.hash})
    assert by_number == [result(node, "eth_getTransactionReceipt", t["hash"]) for t in block.transactions]
    assert result(node, "eth_getBlockReceipts", "latest")[0]["blockNumber"] == "0xa"
    assert result(node, "eth_getBlockReceipts", "0x99") is None
    assert result(node, "eth_getTransactionReceipt", word(1)) is None
    hash_ = block.transactions[0]["hash"]
    assert result(node, "eth_getTransactionByHash", hash_)["blockHash"] == block.hash
    assert result(node, "eth_getTransactionByHash", word(1)) is None


def test_logs_by_filter() -> None:
    """Range, block hash, addresses, topics with alternatives and gaps, each as the specification says."""
    a, b, c = holder(1), holder(2), holder(3)
    chain = ScriptedChain()
    chain.mine(logs=[transfer(a, b, 1), transfer(b, c, 2), transfer(a, c, 3, token=OTHER)])
    chain.mine(logs=[ScriptedLog(OTHER, (), "0x01"), ScriptedLog(OTHER, (word(5),))])
    to_c, from_a = "0x" + c[2:].rjust(64, "0"), "0x" + a[2:].rjust(64, "0")

    def found(**asked: Any) -> list[tuple[int, int]]:
        asked = {"fromBlock": "0x0", **asked} if "blockHash" not in asked else asked
        logs = result(served, "eth_getLogs", asked)
        return [(int(log["blockNumber"], 16), int(log["logIndex"], 16)) for log in logs]

    with FakeNode(chain) as served:
        assert found() == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
        assert found(fromBlock="0x2", toBlock="latest") == [(2, 0), (2, 1)]
        assert found(blockHash=chain.blocks()[1].hash, address=OTHER) == [(1, 2)]
        assert found(address=[OTHER.upper().replace("0X", "0x")]) == [(1, 2), (2, 0), (2, 1)]
        assert found(address=[OTHER, TOKEN], topics=[TRANSFER_TOPIC]) == [(1, 0), (1, 1), (1, 2)]
        assert found(topics=[[TRANSFER_TOPIC, word(5)]]) == [(1, 0), (1, 1), (1, 2), (2, 1)]
        assert found(topics=[None, None, to_c]) == [(1, 1), (1, 2)]
        assert found(topics=[TRANSFER_TOPIC, from_a, [to_c]]) == [(1, 2)]
        assert found(topics=[None, None, None, word(1)]) == []
        assert found(fromBlock="0x9", toBlock="0x20") == [], "a range beyond the head is simply empty"
        assert result(served, "eth_getLogs", {"topics": [word(5)]})[0]["blockNumber"] == "0x2", "latest by default"


@pytest.mark.parametrize(
    ("method", "params", "code", "text"),
    [
        ("eth_nope", [], -32601, "does not exist"),
        ("eth_getBlockByNumber", ["0x1"], -32602, "missing value"),
        ("eth_getBlockByNumber", ["1", False], -32602, "without 0x prefix"),
        ("eth_getBlockByNumber", ["0xzz", False], -32602, "invalid hex"),
        ("eth_getBlockByHash", ["0x11", False], -32602, "want 64"),
        ("eth_getLogs", [], -32602, "missing value"),
        ("eth_getLogs", [{"fromBlock": "0x5", "toBlock": "0x2"}], -32000, "invalid block range"),
        ("eth_getLogs", [{"blockHash": "0x" + "11" * 32}], -32000, "unknown block"),
        ("eth_getLogs", [{"blockHash": "0x" + "11" * 32, "fromBlock": "0x1"}], -32602, "cannot specify both"),
        ("eth_getLogs", [{"address": "0x12"}], -32602, "want 40"),
        ("eth_getLogs", [{"topics": [None] * 5}], -32602, "max topics"),
        ("eth_subscribe", ["newHeads"], -32601, "notifications not supported"),
    ],
)
def test_errors_are_those_of_nodes(node: FakeNode, method: str, params: list[Any], code: int, text: str) -> None:
    """Wrong calls get the code and about the words of go-ethereum."""
    found_code, message = error(node, method, *params)

    assert found_code == code
    assert text in message


def test_balances_are_the_fold(node: FakeNode, chain: ScriptedChain) -> None:
    """eth_call answers balanceOf at any height; other contracts have no code."""

    def balance(token: str, owner: str, at: str) -> int:
        return int(result(node, "eth_call", {"to": token, "data": "0x70a08231" + owner[2:].rjust(64, "0")}, at), 16)

    for (token, owner), expected in fold(chain).balances.items():
        assert balance(token, owner, "latest") == expected
    for (token, owner), expected in fold(chain, last=4).balances.items():
        assert balance(token, owner, "0x4") == expected
    assert result(node, "eth_call", {"to": OTHER, "data": "0x70a08231" + "00" * 32}, "latest") == "0x"


def test_batches(node: FakeNode) -> None:
    """Answers in order, errors inside; an empty batch, no JSON and no request are refused as such."""
    calls: list[tuple[str, list[Any]]] = [("eth_chainId", []), ("nope", []), ("eth_blockNumber", [])]
    asked: list[Any] = [{"jsonrpc": "2.0", "id": i, "method": m, "params": p} for i, (m, p) in enumerate(calls)]
    answers = json.loads(post(node, json.dumps([*asked, 5]).encode())[2])

    assert [answer["id"] for answer in answers] == [0, 1, 2, None]
    assert answers[1]["error"]["code"] == -32601
    assert answers[3]["error"]["code"] == -32600
    assert json.loads(post(node, b"[]")[2])["error"]["code"] == -32600
    assert json.loads(post(node, b"{no")[2])["error"]["code"] == -32700
    assert post(node, b'{"jsonrpc":"2.0","method":"eth_chainId"}')[0] == 204, "a notification has no answer"
    assert json.loads(post(node, b'{"jsonrpc":"2.0","id":"a","method":"eth_chainId"}')[2])["id"] == "a"


def test_limits(node: FakeNode, chain: ScriptedChain) -> None:
    """Every limit refuses just what lies beyond it, and may be changed while the node runs."""
    ten = {"fromBlock": "0x1", "toBlock": "0xa"}
    node.limits = Limits(range_blocks_max=9)
    assert error(node, "eth_getLogs", ten)[0] == -32602
    assert len(result(node, "eth_getLogs", {**ten, "toBlock": "0x9"})) == 27

    node.limits = Limits(results_max=29)
    code, message = error(node, "eth_getLogs", ten)
    assert code == -32005
    assert "[0x1, 0x9]" in message
    assert len(result(node, "eth_getLogs", {**ten, "toBlock": "0x9"})) == 27

    node.limits = Limits(answer_bytes_max=10_000)
    assert error(node, "eth_getLogs", ten)[0] == -32008
    assert result(node, "eth_getLogs", {**ten, "toBlock": "0x2"})

    node.limits = Limits(missing_methods=frozenset(("eth_getBlockReceipts",)))
    assert error(node, "eth_getBlockReceipts", "0x1")[0] == -32601
    assert result(node, "eth_getTransactionReceipt", chain.head.transactions[0]["hash"])

    node.limits = Limits(batch_max=2)
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    assert json.loads(post(node, json.dumps([asked] * 3).encode())[2])["error"]["message"] == "batch too large"
    assert len(json.loads(post(node, json.dumps([asked] * 2).encode())[2])) == 2

    node.limits = Limits(request_bytes_max=100)
    assert post(node, json.dumps([asked] * 3).encode())[0] == 413
    assert post(node, json.dumps(asked).encode())[0] == 200


def test_pruned_history(node: FakeNode, chain: ScriptedChain) -> None:
    """Below the pruning height headers remain; bodies, receipts and logs are refused, or silently gone."""
    node.limits = Limits(pruned_below=5)
    assert result(node, "eth_getBlockByNumber", "0x4", False)["number"] == "0x4"
    assert error(node, "eth_getBlockByNumber", "0x4", True)[0] == 4444
    assert error(node, "eth_getBlockReceipts", "0x4")[0] == 4444
    assert error(node, "eth_getLogs", {"fromBlock": "0x4", "toBlock": "0x6"})[0] == 4444
    assert len(result(node, "eth_getLogs", {"fromBlock": "0x5", "toBlock": "0x6"})) == 6

    node.limits = Limits(pruned_below=5, pruned_is_null=True)
    assert result(node, "eth_getBlockReceipts", "0x4") is None
    assert result(node, "eth_getBlockByNumber", "0x4", True) is None
    assert len(result(node, "eth_getLogs", {"fromBlock": "0x4", "toBlock": "0x6"})) == 6


def test_rate_limit(chain: ScriptedChain) -> None:
    """Beyond the rate: HTTP 429 that says how long to wait, and a count of it."""
    with FakeNode(chain, limits=Limits(requests_per_second=2)) as node:
        answers = [post(node, b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}') for _ in range(4)]

        assert [status for status, _, _ in answers].count(429) >= 1
        assert answers[-1][1]["retry-after"] == "1"
        assert node.statistics().refused >= 1


def test_statistics(node: FakeNode) -> None:
    """Calls by method, batches by size, log ranges as asked, behaviours as applied; and back to nothing."""
    node.behave(OtherChainId(5), times=1)
    result(node, "eth_chainId")
    result(node, "eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x3"})
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    post(node, json.dumps([asked, asked]).encode())
    found = node.statistics()

    assert found.requests == 3
    assert found.calls == {"eth_chainId": 3, "eth_getLogs": 1}
    assert found.batches == (2,)
    assert found.ranges == ((1, 3),)
    assert found.misbehaved == {"OtherChainId": 1}
    assert found.bytes_answered > 1000
    node.reset_statistics()
    assert node.statistics().requests == 0


def test_the_chain_changes_under_a_running_node(node: FakeNode, chain: ScriptedChain) -> None:
    """What another thread mines, reorganises or takes back is served at once; so is another chain put in its place."""
    old = chain.head.hash
    chain.reorg(2, 3)
    assert result(node, "eth_getBlockByNumber", "latest", False)["hash"] == chain.head.hash
    assert result(node, "eth_getBlockByHash", old, False)["hash"] == old, "stale blocks stay known by hash"
    chain.rollback(4)
    assert result(node, "eth_blockNumber") == "0x7"
    node.chain = ScriptedChain(seed=99)
    assert result(node, "eth_blockNumber") == "0x0"


def test_answers_are_of_one_moment(node: FakeNode, chain: ScriptedChain) -> None:
    """While blocks are being replaced, a logs answer never mixes two branches."""
    stop = threading.Event()

    def shake() -> None:
        while not stop.is_set():
            chain.reorg(5)
            time.sleep(0.0005)  # locks are not fair: the node must get its turns

    thread = threading.Thread(target=shake)
    thread.start()
    try:
        for _ in range(50):
            logs = result(node, "eth_getLogs", {"fromBlock": "0x6", "toBlock": "0xa"})
            assert len(logs) == 15
            with chain.lock:
                branches = {n: [*chain.stale(n), chain.blocks()[n]] for n in range(6, 11)}
            generations = {
                [block.hash for block in branches[int(log["blockNumber"], 16)]].index(log["blockHash"]) for log in logs
            }
            assert len(generations) == 1
    finally:
        stop.set()
        thread.join()


# --- life cycle ----------------------------------------------------------------------------------------------------


def test_a_node_comes_back_on_its_port(chain: ScriptedChain) -> None:
    """Stopped, connections are refused; started again, it answers under the same address, counters kept."""
    node = FakeNode(chain)
    node.start()
    port = node.port
    result(node, "eth_chainId")
    node.stop()
    with pytest.raises(ConnectionRefusedError):
        post(node, b"{}")
    node.start()
    assert node.port == port
    result(node, "eth_chainId")
    assert node.statistics().calls == {"eth_chainId": 2}
    node.stop()
    node.stop()


def test_a_taken_port_is_said_so(node: FakeNode, chain: ScriptedChain) -> None:
    """Two nodes cannot share a port; the second says why."""
    with pytest.raises(PortTaken, match=str(node.port)), FakeNode(chain, port=node.port):
        pass


def test_it_runs_inside_a_loop(chain: ScriptedChain) -> None:
    """`async with` serves from the running loop; several nodes side by side."""

    async def main() -> list[str]:
        other = ScriptedChain(chain_id=11)
        async with FakeNode(chain) as one, FakeNode(other) as two, aiohttp.ClientSession() as session:
            found = []
            for node in (one, two):
                asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
                async with session.post(node.url, json=asked) as response:
                    found.append((await response.json())["result"])
            return found

    assert asyncio.run(main()) == ["0xa", "0xb"]


def test_stopping_does_not_wait_for_slow_answers(chain: ScriptedChain) -> None:
    """A node with a request under way stops within a second."""
    with FakeNode(chain) as node:
        node.behave(Late(60))

        def ask() -> None:
            with pytest.raises((http.client.HTTPException, OSError)):
                post(node, b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}')

        thread = threading.Thread(target=ask)
        thread.start()
        while not node.statistics().requests:
            pass
    thread.join(5)
    assert not thread.is_alive()


# --- subscriptions -------------------------------------------------------------------------------------------------


class Listener:
    """A WebSocket client with one subscription to new heads."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.answers: list[Any] = []

    async def ask(self, method: str, *params: Any) -> Any:
        await self.socket.send_json({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        return json.loads((await self.socket.receive(10)).data)

    async def heads(self, count: int) -> list[int]:
        """Numbers of the next heads pushed."""
        found = []
        for _ in range(count):
            message = json.loads((await self.socket.receive(10)).data)
            assert message["method"] == "eth_subscription"
            found.append(int(message["params"]["result"]["number"], 16))
        return found

    async def silence(self) -> None:
        """Nothing comes: what is asked now is answered next."""
        assert "result" in await self.ask("eth_chainId")


def with_listener(node: FakeNode, scenario: Any) -> None:
    """Run a scenario with a subscribed listener."""

    async def main() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(node.ws_url) as socket:
            listener = Listener(socket)
            assert (await listener.ask("eth_subscribe", "newHeads"))["result"].startswith("0x")
            await scenario(listener)

    asyncio.run(main())


def test_new_heads(node: FakeNode, chain: ScriptedChain) -> None:
    """Every block appended is pushed once, in order, also those of a reorg; a rollback pushes nothing."""

    async def scenario(listener: Listener) -> None:
        chain.mine(3)
        assert await listener.heads(3) == [11, 12, 13]
        chain.reorg(2, 3)
        assert await listener.heads(3) == [12, 13, 14]
        chain.rollback(5)
        await listener.silence()
        chain.mine()
        assert await listener.heads(1) == [10]

    with_listener(node, scenario)


def test_a_head_is_a_whole_header(node: FakeNode, chain: ScriptedChain) -> None:
    """The pushed header is that of the block, without transactions."""

    async def scenario(listener: Listener) -> None:
        chain.mine(logs=1)
        pushed = json.loads((await listener.socket.receive(10)).data)["params"]["result"]
        block = result(node, "eth_getBlockByNumber", "latest", False)
        assert pushed == {k: v for k, v in block.items() if k not in ("transactions", "uncles", "withdrawals")}

    with_listener(node, scenario)


def test_unsubscribing_and_other_calls(node: FakeNode, chain: ScriptedChain) -> None:
    """A socket answers calls and batches too; after unsubscribing it is quiet; unknown kinds are refused."""

    async def main() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(node.ws_url) as socket:
            listener = Listener(socket)
            name = (await listener.ask("eth_subscribe", "newHeads"))["result"]
            assert (await listener.ask("eth_unsubscribe", name))["result"] is True
            assert (await listener.ask("eth_unsubscribe", name))["result"] is False
            assert (await listener.ask("eth_subscribe", "nonsense"))["error"]["code"] == -32602
            chain.mine()
            await listener.silence()
            await socket.send_json([{"jsonrpc": "2.0", "id": i, "method": "eth_chainId"} for i in (1, 2)])
            assert len(json.loads((await socket.receive(10)).data)) == 2

    asyncio.run(main())


def test_silent_subscription(node: FakeNode, chain: ScriptedChain) -> None:
    """Accepted, and nothing is ever pushed, until the behaviour ends."""
    switch = node.behave(SilentHeads())

    async def scenario(listener: Listener) -> None:
        chain.mine(2)
        await listener.silence()
        while not switch.used:
            await asyncio.sleep(0.001)
        switch.off()
        chain.mine()
        assert await listener.heads(1) == [13]

    with_listener(node, scenario)


def test_dropped_socket(node: FakeNode, chain: ScriptedChain) -> None:
    """The connection ends instead of the push, once so many pushes went through."""
    node.behave(DroppedSocket(), after=1, times=1)

    async def scenario(listener: Listener) -> None:
        chain.mine()
        assert await listener.heads(1) == [11]
        chain.mine()
        assert (await listener.socket.receive(10)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)

    with_listener(node, scenario)


def test_refused_socket(node: FakeNode) -> None:
    """The handshake is refused, or the subscription is; then both work again."""
    node.behave(RefusedSocket("handshake"), times=1)
    node.behave(RefusedSocket("subscribe"), times=1)

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(node.ws_url)
            assert refused.value.status == 403
            async with session.ws_connect(node.ws_url) as socket:
                listener = Listener(socket)
                assert "error" in await listener.ask("eth_subscribe", "newHeads")
                assert "result" in await listener.ask("eth_subscribe", "newHeads")

    asyncio.run(main())


def test_garbage_heads(node: FakeNode, chain: ScriptedChain) -> None:
    """Text that is not JSON in the place of a notification."""
    node.behave(GarbageHeads(), times=1)

    async def scenario(listener: Listener) -> None:
        chain.mine()
        with pytest.raises(json.JSONDecodeError):
            json.loads((await listener.socket.receive(10)).data)
        chain.mine()
        assert await listener.heads(1) == [12]

    with_listener(node, scenario)


def test_duplicated_and_disordered_heads(node: FakeNode, chain: ScriptedChain) -> None:
    """Twice each; newest first; an old head after a new one."""

    async def scenario(listener: Listener) -> None:
        twice = node.behave(DuplicatedHeads())
        chain.mine(2)
        assert await listener.heads(4) == [11, 11, 12, 12]
        twice.off()
        node.behave(OutOfOrderHeads())
        chain.mine(3)
        assert await listener.heads(3) == [15, 14, 13]
        chain.mine()
        assert await listener.heads(2) == [16, 15]

    with_listener(node, scenario)
