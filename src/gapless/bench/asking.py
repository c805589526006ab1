"""Requests to an endpoint with nothing behind them: sent as they are, timed, and the answers only counted.

The requests are those an indexer makes for a range: headers in batches beside the filtered logs, or whole blocks with
their receipts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from gapless.clock import Clock
from gapless.errors import SourceUnavailable
from gapless.sources.evm.reader import EVERY_LOG, plan_requests
from gapless.sources.evm.transport import is_loopback, label_of
from gapless.sources.evm.types import Verify, Wants

_BATCH_CALLS = 100
_TOO_MANY_REQUESTS = 429
_LIMIT_EXCEEDED = -32005
_HEADERS = {"Content-Type": "application/json"}
_LOG_MARK = b'"logIndex"'


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Envelope(msgspec.Struct):
    error: _Error | None = None


_ANSWER = msgspec.json.Decoder(_Envelope | list[_Envelope])


@dataclass(frozen=True, slots=True)
class Timing:
    """One request: until the first byte of the answer, and until the last."""

    first_seconds: float
    all_seconds: float
    size_bytes: int
    logs: int
    refusal: str | None = None
    """In the endpoint's words; None where it answered."""
    limited: bool = False


class Asking:
    """One endpoint, asked over kept-alive connections. Used inside `async with`."""

    def __init__(self, url: str, clock: Clock, connections_max: int) -> None:
        self.label = label_of(url)
        self._url = url
        self._clock = clock
        self._connections_max = connections_max
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Asking:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections_max),
            trust_env=not is_loopback(urlsplit(self._url).hostname),
            read_bufsize=1 << 20,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, calls: Sequence[tuple[str, Sequence[Any]]], timeout_seconds: float) -> Timing:
        """One request with one call or a batch. Raises SourceUnavailable when there is no answer at all."""
        documents = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(calls)
        ]
        body = msgspec.json.encode(documents if len(documents) > 1 else documents[0])
        if self._session is None:
            raise SourceUnavailable(f"{self.label} is asked before it was opened")
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        started = self._clock.monotonic()
        try:
            async with self._session.post(self._url, data=body, headers=_HEADERS, timeout=timeout) as response:
                first = self._clock.monotonic()
                answer = await response.read()
                ended = self._clock.monotonic()
                return _timing(first - started, ended - started, response.status, answer)
        except TimeoutError:
            seconds = self._clock.monotonic() - started
            return Timing(seconds, seconds, 0, 0, f"no answer within {timeout_seconds:.1f} s")
        except (aiohttp.ClientError, OSError) as error:
            raise SourceUnavailable(
                f"{self.label} cannot be reached ({type(error).__name__})",
                todo="Check the address, and that the node is running and may be reached from here.",
            ) from error


def _timing(first_seconds: float, all_seconds: float, status: int, answer: bytes) -> Timing:
    refusal, limited = None, status == _TOO_MANY_REQUESTS
    if status != 200:
        refusal = f"HTTP {status}"
    else:
        error = _error(answer)
        if error is not None:
            refusal = f"{error.code} {error.message[:120]}"
            limited = error.code == _TOO_MANY_REQUESTS
    return Timing(first_seconds, all_seconds, len(answer), answer.count(_LOG_MARK), refusal, limited)


def _error(answer: bytes) -> _Error | None:
    """The JSON-RPC error of an answer; looked for only where the text may hold one, since answers are large."""
    if b'"error"' not in answer[:200] and b'"error"' not in answer[-400:]:
        return None
    try:
        found = _ANSWER.decode(answer)
    except msgspec.MsgspecError:
        return _Error(0, "an answer that is not JSON-RPC")
    envelopes = found if isinstance(found, list) else [found]
    return next((envelope.error for envelope in envelopes if envelope.error is not None), None)


def requests_for(wants: Wants, level: Verify, addresses_max: int, first: int, last: int) -> list[list[tuple[str, Any]]]:
    """The requests for blocks `first..last`, each a list of calls."""
    numbers = range(first, last + 1)
    filters = plan_requests(wants.logs, addresses_max)
    if wants.whole_blocks or (level is Verify.PROVED and filters):
        blocks = [("eth_getBlockByNumber", [hex(n), True]) for n in numbers]
        receipts = [("eth_getBlockReceipts", [hex(n)]) for n in numbers]
        return _batches(blocks) + _batches(receipts)
    made = _batches([("eth_getBlockByNumber", [hex(n), False]) for n in numbers])
    bounds = {"fromBlock": hex(first), "toBlock": hex(last)}
    for request in (EVERY_LOG,) if wants.all_logs else filters:
        made.append([("eth_getLogs", [{**bounds, **request.fields}])])
    return made


def _batches(calls: Sequence[tuple[str, Any]]) -> list[list[tuple[str, Any]]]:
    return [list(calls[at : at + _BATCH_CALLS]) for at in range(0, len(calls), _BATCH_CALLS)]
