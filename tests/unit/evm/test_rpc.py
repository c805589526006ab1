"""JSON-RPC: requests out, typed values or typed errors back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gapless.errors import BadAnswer, ConfigError, MethodMissing, RateLimited, RequestRefused, SourceUnavailable
from gapless.sources.evm.rpc import HEADER, LOGS, TEXT, Call, Rpc
from gapless.sources.evm.transport import Answer, HttpTransport, label_of

NOW_US = 1_700_000_000_000_000
LOG = {
    "address": "0xaa",
    "topics": ["0x01"],
    "data": "0x",
    "blockNumber": "0x1",
    "blockHash": "0xbb",
    "transactionHash": "0xcc",
    "transactionIndex": "0x0",
    "logIndex": "0x0",
    "removed": False,
    "blockTimestamp": "0x5",
}


class Scripted:
    """A transport that answers what a function says."""

    label = "node:8545"

    def __init__(self, answer: Callable[[Any], Any], status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer = answer
        self._status = status
        self._headers = headers or {}

    async def post(self, body: bytes, timeout_seconds: float) -> Answer:
        answer = self._answer(msgspec.json.decode(body))
        body = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        return Answer(self._status, self._headers, body)

    async def close(self) -> None:
        pass


def rpc(answer: Callable[[Any], Any], status: int = 200, headers: dict[str, str] | None = None) -> Rpc:
    return Rpc(Scripted(answer, status, headers), "node:8545", lambda: NOW_US)


def result(value: Any) -> Callable[[Any], Any]:
    return lambda request: {"jsonrpc": "2.0", "id": request["id"], "result": value}


def refusal(code: Any, message: str = "no") -> Callable[[Any], Any]:
    return lambda request: {"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message}}


def ask(client: Rpc, shape: Any = TEXT) -> Any:
    return asyncio.run(client.call(Call("eth_chainId"), shape, 1.0)).value


def test_a_result_is_decoded_into_its_shape() -> None:
    """Unknown fields are left aside, the known ones are typed, and the size is that of the body."""
    reply = asyncio.run(rpc(result([LOG])).call(Call("eth_getLogs", ({},)), LOGS, 1.0))
    assert reply.value[0].block_hash == "0xbb"
    assert reply.size_bytes > len(str(LOG)) / 2


def test_null_is_a_result_where_it_may_be_one() -> None:
    """A missing block is null; null in the place of logs is a bad answer."""
    assert ask(rpc(result(None)), HEADER) is None
    with pytest.raises(BadAnswer, match="another shape"):
        ask(rpc(result(None)), LOGS)


def test_html_instead_of_json_names_its_first_bytes_on_one_line() -> None:
    """A proxy's error page with status 200 is a bad answer that can be recognised in the log."""
    page = b"<html>\n<body>" + b"x" * 500
    with pytest.raises(BadAnswer) as caught:
        ask(rpc(lambda _: page))
    assert "node:8545" in caught.value.what
    assert "'<html> <body>x" in caught.value.what
    assert "\n" not in caught.value.what
    assert len(caught.value.what) < 200


@pytest.mark.parametrize("body", [b"", b'{"jsonrpc":"2.0","id":1,"resu', b"\xff\xfe", b"null", b"[]", b"7"])
def test_what_is_no_json_rpc_is_a_bad_answer(body: bytes) -> None:
    """Nothing, half a document, no text, or JSON of another form."""
    with pytest.raises(BadAnswer):
        ask(rpc(lambda _: body))


def test_an_answer_to_another_request_is_refused() -> None:
    """A cached or misrouted answer carries another id."""
    with pytest.raises(BadAnswer, match="instead of"):
        ask(rpc(lambda request: {"jsonrpc": "2.0", "id": request["id"] + 7, "result": "0x1"}))


def test_neither_result_nor_error_is_a_bad_answer() -> None:
    """An envelope with nothing in it is not null."""
    with pytest.raises(BadAnswer, match="neither"):
        ask(rpc(lambda request: {"jsonrpc": "2.0", "id": request["id"]}), HEADER)


def test_a_log_of_a_pending_block_is_not_a_log() -> None:
    """Null in a field that must be there names the field."""
    with pytest.raises(BadAnswer, match=r"blockHash|block_hash"):
        ask(rpc(result([{**LOG, "blockHash": None}])), LOGS)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (-32601, MethodMissing),
        (-32004, MethodMissing),
        (-32005, RateLimited),
        (429, RateLimited),
        (-32000, RequestRefused),
    ],
)
def test_codes_decide_the_kind_of_error(code: int, error: type[Exception]) -> None:
    """The text is quoted, and decides nothing."""
    with pytest.raises(error, match="whatever it says") as caught:
        ask(rpc(refusal(code, "whatever\nit says")))
    assert caught.value.code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", ["too many requests", {"message": "x"}, {"code": "E17", "message": "x"}, ["?"]])
def test_errors_in_any_form_are_refusals(error: Any) -> None:
    """Gateways put texts, objects without a code, or codes of their own in the place of the error."""
    with pytest.raises(RequestRefused):
        ask(rpc(lambda request: {"jsonrpc": "2.0", "id": request["id"], "error": error}))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0), ("soon", None), ("-3", 0.0), ("", None)],
)
def test_429_carries_how_long_to_wait(header: str, seconds: float | None) -> None:
    """Retry-After is a number of seconds or an HTTP date."""
    with pytest.raises(RateLimited) as caught:
        ask(rpc(lambda _: b"slow down", status=429, headers={"retry-after": header}))
    assert caught.value.retry_after_seconds == seconds
    assert caught.value.code is None


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (502, b"<html>Bad Gateway</html>", SourceUnavailable),
        (503, b"", SourceUnavailable),
        (403, b"forbidden", RequestRefused),
        (413, b"too large", RequestRefused),
        (301, b"", SourceUnavailable),
        (400, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"no such method"}}', MethodMissing),
        (500, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"range"}}', RequestRefused),
    ],
)
def test_an_http_error_is_typed_by_its_status_or_better_by_its_body(
    status: int, body: bytes, error: type[Exception]
) -> None:
    """Many nodes send JSON-RPC errors with an HTTP error's status."""
    with pytest.raises(error) as caught:
        ask(rpc(lambda _: body, status=status))
    assert type(caught.value) is error


CALLS = [Call("eth_getBlockByNumber", (hex(n), False)) for n in range(3)]


def block(number: int) -> dict[str, Any]:
    fields = ("hash", "parentHash", "timestamp", "logsBloom")
    return {"number": hex(number), **dict.fromkeys(fields, "0x0")}


def answers(requests: list[Any]) -> list[Any]:
    return [{"jsonrpc": "2.0", "id": r["id"], "result": block(int(r["params"][0], 16))} for r in requests]


def test_a_batch_is_put_into_the_order_of_its_calls() -> None:
    """The specification lets a server answer in any order."""
    reply = asyncio.run(rpc(lambda r: answers(r)[::-1]).batch(CALLS, HEADER, 1.0))
    assert [h.number for h in reply.value if h is not None] == ["0x0", "0x1", "0x2"]


@pytest.mark.parametrize(
    "broken",
    [
        lambda r: answers(r)[:2],
        lambda r: answers(r) + answers(r)[:1],
        lambda r: [*answers(r)[:2], {"jsonrpc": "2.0", "id": 999, "result": None}],
        lambda r: [*answers(r)[:2], {"jsonrpc": "2.0", "id": None, "result": None}],
        lambda r: answers(r)[0],
        lambda r: [],
    ],
)
def test_a_batch_with_missing_or_foreign_answers_is_bad(broken: Callable[[Any], Any]) -> None:
    """Fewer, more, other ids, or a single answer: no result is taken from it."""
    with pytest.raises(BadAnswer):
        asyncio.run(rpc(broken).batch(CALLS, HEADER, 1.0))


def test_one_error_fails_the_batch_as_that_error() -> None:
    """A rate limit inside a batch slows us down, it does not lose a block."""
    limited = {"code": -32005, "message": "slow down"}
    with pytest.raises(RateLimited):
        asyncio.run(rpc(lambda r: [*answers(r)[:2], {"id": r[2]["id"], "error": limited}]).batch(CALLS, HEADER, 1.0))


def test_a_refused_batch_is_the_error_it_was_refused_with() -> None:
    """Nodes answer a batch that is too large with one error for all of it."""
    client = rpc(lambda _: {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batch too large"}})
    with pytest.raises(RequestRefused, match="batch too large"):
        asyncio.run(client.batch(CALLS, HEADER, 1.0))


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("http://127.0.0.1:8545", "127.0.0.1:8545"),
        ("https://user:secret@node.example/v3/0123456789abcdef0123456789abcdef", "node.example/v3/…"),
        ("https://eth-mainnet.node.example/v2/AbC_1234567890?apikey=hidden", "eth-mainnet.node.example/v2/…"),
        ("https://node.example/ext/bc/C/rpc", "node.example/ext/bc/C/rpc"),
        ("http://[::1]:8545/", "[::1]:8545"),
    ],
)
def test_labels_hold_no_credentials(url: str, label: str) -> None:
    """Users, passwords, queries and path segments that look like keys stay out of errors and tables."""
    assert label_of(url) == label


@pytest.mark.parametrize("url", ["127.0.0.1:8545", "ftp://node/", "http://", "http://node:99999", "http://[::1"])
def test_an_unusable_address_is_a_configuration_error(url: str) -> None:
    """Found when the transport is made, not at the first request."""
    with pytest.raises(ConfigError):
        HttpTransport(url)
