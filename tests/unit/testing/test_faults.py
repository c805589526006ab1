"""Every fault delivers the answer in just the way it says, over a real connection."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from gapless.testing.chain import ScriptedChain
from gapless.testing.faults import (
    BatchIncomplete,
    BatchReversed,
    CloseConnection,
    CutBody,
    Html,
    InvalidJson,
    Late,
    Refusal,
    ServerError,
    SlowDrip,
    Stall,
    TooManyRequests,
    WrongId,
)
from gapless.testing.node import FakeNode

BATCH = [{"jsonrpc": "2.0", "id": i, "method": "eth_chainId", "params": []} for i in range(5)]


@pytest.fixture
def node() -> Iterator[FakeNode]:
    chain = ScriptedChain()
    chain.mine(3, logs=5)
    with FakeNode(chain) as node:
        yield node


def post(node: FakeNode, asked: Any = BATCH[0], timeout_seconds: float = 5.0) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=timeout_seconds)
    try:
        connection.request("POST", "/", json.dumps(asked).encode(), {"Connection": "close"})
        return connection.getresponse()
    except BaseException:
        connection.close()
        raise


def works(node: FakeNode) -> bool:
    with post(node) as response:
        return bool(json.loads(response.read())["result"] == "0x7a69")


def test_refusal(node: FakeNode) -> None:
    """Any JSON-RPC error, in a batch for the calls meant only."""
    node.behave(Refusal(-32005, "slow down"), methods=["eth_blockNumber"])
    asked = [BATCH[0], {"jsonrpc": "2.0", "id": 9, "method": "eth_blockNumber", "params": []}]
    with post(node, asked) as response:
        one, two = json.loads(response.read())

    assert "result" in one
    assert two == {"jsonrpc": "2.0", "id": 9, "error": {"code": -32005, "message": "slow down"}}


@pytest.mark.parametrize("status", [200, 502])
def test_html(node: FakeNode, status: int) -> None:
    """A web page, whatever the status says."""
    node.behave(Html(status), times=1)
    with post(node) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "text/html"
        assert response.read().startswith(b"<html>")
    assert works(node)


@pytest.mark.parametrize(
    ("given", "header"), [(None, None), (3, "3"), (0.5, "0.5"), ("Fri, 31 Dec 2100 23:59:59 GMT",) * 2]
)
def test_too_many_requests(node: FakeNode, given: Any, header: str | None) -> None:
    """429 with the header, or without."""
    node.behave(TooManyRequests(given), times=1)
    with post(node) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == header
    assert works(node)


def test_server_error(node: FakeNode) -> None:
    """500 or any other status, with a text."""
    node.behave(ServerError(503, b"starting"), times=1)
    with post(node) as response:
        assert (response.status, response.read()) == (503, b"starting")
    assert works(node)


def test_cut_body(node: FakeNode) -> None:
    """The full length is announced, half of it comes, then the connection ends."""
    node.behave(CutBody(0.5), times=1)
    with pytest.raises(http.client.IncompleteRead) as cut, post(node) as response:
        response.read()
    assert 0 < len(cut.value.partial) <= 21
    assert works(node)


def test_cut_body_with_an_honest_length(node: FakeNode) -> None:
    """The transfer is whole, the JSON is not."""
    node.behave(CutBody(0.5, honest_length=True), times=1)
    with post(node) as response:
        body = response.read()
    assert int(response.headers["Content-Length"]) == len(body)
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


def test_invalid_json(node: FakeNode) -> None:
    """A 200 that does not parse; or whatever body a test wants."""
    node.behave(InvalidJson(), times=1)
    with post(node) as response, pytest.raises(json.JSONDecodeError):
        json.loads(response.read())
    node.behave(InvalidJson(b"[]"), times=1)
    with post(node) as response:
        assert response.read() == b"[]"


def test_stall(node: FakeNode) -> None:
    """Nothing comes at all; other requests are served meanwhile."""
    node.behave(Stall(), times=1)
    with pytest.raises(TimeoutError):
        post(node, timeout_seconds=0.2)
    assert works(node)


def test_stalled_requests_end_with_their_client(node: FakeNode) -> None:
    """A client that gives up does not leave its request behind, or a long test would gather thousands."""
    node.behave(Stall())

    async def main() -> None:
        timeout = aiohttp.ClientTimeout(total=0.05)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    await session.post(node.url, json=BATCH[0])

    asyncio.run(main())
    node.calm()
    assert works(node)
    server = node._server
    assert server is not None
    deadline = time.monotonic() + 5
    while len(asyncio.all_tasks(server.loop)) > 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(asyncio.all_tasks(server.loop)) <= 5


def test_slow_drip(node: FakeNode) -> None:
    """The status comes at once, the body byte by byte."""
    node.behave(SlowDrip(100), times=1)
    started = time.monotonic()
    with post(node) as response:
        headers = time.monotonic() - started
        body = response.read()

    assert headers < 0.2
    assert len(body) / 100 * 0.8 <= time.monotonic() - started
    assert json.loads(body)["result"] == "0x7a69"


def test_late(node: FakeNode) -> None:
    """Right, after a pause."""
    node.behave(Late(0.15), times=1)
    started = time.monotonic()
    assert works(node)
    assert time.monotonic() - started >= 0.15


def test_close_connection(node: FakeNode) -> None:
    """The connection ends without a byte."""
    node.behave(CloseConnection(), times=1)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        post(node)
    assert works(node)


def test_wrong_id(node: FakeNode) -> None:
    """The right result under an id nobody used."""
    node.behave(WrongId(), times=1)
    with post(node) as response:
        answer = json.loads(response.read())
    assert answer["id"] not in (0, None)
    assert answer["result"] == "0x7a69"


def test_batch_order_and_gaps(node: FakeNode) -> None:
    """Answers in the opposite order; or some missing; a single call is neither."""
    reverse = node.behave(BatchReversed())
    with post(node, BATCH) as response:
        assert [answer["id"] for answer in json.loads(response.read())] == [4, 3, 2, 1, 0]
    assert works(node)
    assert reverse.used == 1
    reverse.off()
    node.behave(BatchIncomplete(2), times=1)
    with post(node, BATCH) as response:
        assert [answer["id"] for answer in json.loads(response.read())] == [0, 1, 4]


def test_faults_for_some_methods_only(node: FakeNode) -> None:
    """A behaviour can be kept to the calls it is meant for."""
    node.behave(ServerError(), methods=["eth_getLogs"])
    assert works(node)
    with post(node, {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [{}]}) as response:
        assert response.status == 500
