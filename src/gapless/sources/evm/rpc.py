"""JSON-RPC 2.0: calls out, typed values or typed errors back.

Answers are decoded in one pass straight from the body into the structs we use: a `getLogs` answer of 10,000 logs
costs one call of the decoder. What an endpoint says in an error's text is quoted to people and never decided upon:
texts differ by provider and change without notice. Only codes and the shape of an answer decide.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from gapless.errors import BadAnswer, MethodMissing, RateLimited, RequestRefused, SourceError, SourceUnavailable
from gapless.sources.evm.transport import Answer, Transport
from gapless.sources.evm.types import FullBlock, Header, Log, RawReceipt, Receipt

if TYPE_CHECKING:
    from gapless.sources.evm.logtable import LogTable

T = TypeVar("T")

_TOO_MANY_REQUESTS = 429
_LIMIT_EXCEEDED = (-32005, 429)
"""EIP-1474's `limit exceeded`, and the HTTP status some gateways put into the code."""
_METHOD_MISSING = (-32601, -32004)
"""JSON-RPC's `method not found`, EIP-1474's `method not supported`."""
_EXCERPT_BYTES = 80


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    params: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    value: T
    size_bytes: int


class Head(msgspec.Struct, gc=False, rename="camel"):
    """The few fields of a block that place the head."""

    number: str
    hash: str
    timestamp: str


class Link(msgspec.Struct, gc=False, rename="camel"):
    """The few fields of a block that place it on its chain."""

    number: str
    hash: str
    parent_hash: str


class ListedBlock(Header, gc=False, rename="camel"):
    """A block with the hashes of its transactions: how many receipts there must be, and of what."""

    transactions: list[str] = msgspec.field(default_factory=list)


class Shape(Generic[T]):
    """What a result must look like, with the decoders for one answer and for a batch of them; and what is made of it,
    which may refuse it with msgspec's errors."""

    def __init__(self, form: Any, finish: Callable[[Any], T] | None = None) -> None:
        self.finish = finish
        envelope = msgspec.defstruct(
            "Envelope",
            [("id", Any, None), ("error", Any, None), ("result", form | msgspec.UnsetType, msgspec.UNSET)],
            gc=False,
        )
        self.one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(envelope)
        self.many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[envelope] | envelope)  # type: ignore[valid-type]


_LOGS = msgspec.json.Decoder(list[Log])


def _columns(raws: list[msgspec.Raw]) -> LogTable | list[Log]:
    from gapless.sources.evm.regular import log_table  # with numpy, which takes its time: only where logs come

    return log_table(raws) or _LOGS.decode(b"[" + b",".join(raws) + b"]")


TEXT: Shape[str] = Shape(str)
LOGS: Shape[list[Log]] = Shape(list[Log])
LOG_COLUMNS: Shape[LogTable | list[Log]] = Shape(list[msgspec.Raw], _columns)
"""As columns where the answer is regular."""
HEADER: Shape[Header | None] = Shape(Header | None)
LISTED: Shape[ListedBlock | None] = Shape(ListedBlock | None)
HEAD: Shape[Head | None] = Shape(Head | None)
LINK: Shape[Link | None] = Shape(Link | None)
BLOCK: Shape[FullBlock | None] = Shape(FullBlock | None)
RECEIPT: Shape[Receipt | None] = Shape(Receipt | None)
RECEIPTS: Shape[list[Receipt] | None] = Shape(list[Receipt] | None)
RAW_RECEIPTS: Shape[list[RawReceipt] | None] = Shape(list[RawReceipt] | None)


class Rpc:
    """JSON-RPC over one transport. `label` names the endpoint in every error; `now_us` reads Retry-After dates."""

    def __init__(self, transport: Transport, label: str, now_us: Callable[[], int]) -> None:
        self._transport = transport
        self._label = label
        self._now_us = now_us
        self._ids = itertools.count(1)
        self.connections = 0
        """Connections made so far, as the transport counts them."""

    async def call(self, call: Call, shape: Shape[T], timeout_seconds: float) -> Reply[T]:
        """One call. Raises TimedOut, SourceUnavailable, RateLimited, BadAnswer, AnswerTooLarge, MethodMissing,
        RequestRefused."""
        request_id = next(self._ids)
        answer = await self._post(_request(call, request_id), timeout_seconds)
        envelope = self._decode(shape.one, answer.body)
        result = self._result(envelope, request_id, answer)
        return Reply(self._finished(shape, result, answer.body), len(answer.body))

    async def batch(self, calls: Sequence[Call], shape: Shape[T], timeout_seconds: float) -> Reply[list[T]]:
        """Several calls of one shape in one request; results in the order of the calls, whatever the order of the
        answers. One failed call fails the batch. Raises as `call` does, BadAnswer when an answer is missing too."""
        requests = [_request(call, next(self._ids)) for call in calls]
        answer = await self._post(requests, timeout_seconds)
        envelopes = self._decode(shape.many, answer.body)
        if not isinstance(envelopes, list):
            self._result(envelopes, None, answer)
            raise self._bad(answer.body, "answered a batch with a single result")
        by_id = {e.id: e for e in envelopes if isinstance(e.id, int)}
        for envelope in envelopes:
            if envelope.error is not None:
                raise self._refusal(envelope.error, answer)
        missing = [r["id"] for r in requests if r["id"] not in by_id]
        if missing or len(envelopes) != len(requests):
            raise BadAnswer(
                f"{self._label} answered a batch of {len(requests)} calls with {len(envelopes)} answers, "
                f"{len(missing)} of them missing"
            )
        results = [self._result(by_id[r["id"]], r["id"], answer) for r in requests]
        return Reply([self._finished(shape, result, answer.body) for result in results], len(answer.body))

    async def _post(self, document: Any, timeout_seconds: float) -> Answer:
        answer = await self._transport.post(msgspec.json.encode(document), timeout_seconds)
        self.connections = max(self.connections, answer.connections)
        self._check_status(answer)
        return answer

    def _decode(self, decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
        with self._shaped(body):
            return decoder.decode(body)

    def _finished(self, shape: Shape[T], result: Any, body: bytes) -> T:
        with self._shaped(body):
            finished: T = result if shape.finish is None else shape.finish(result)
            return finished

    @contextmanager
    def _shaped(self, body: bytes) -> Iterator[None]:
        """Raises BadAnswer where the body turns out to be something else."""
        try:
            yield
        except msgspec.ValidationError as error:
            raise self._bad(body, f"answered in another shape than asked for ({error})") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._bad(body, "did not answer with JSON") from error

    def _result(self, envelope: Any, request_id: int | None, answer: Answer) -> Any:
        if envelope.error is not None:
            raise self._refusal(envelope.error, answer)
        if envelope.result is msgspec.UNSET:
            raise self._bad(answer.body, "answered with neither a result nor an error")
        if request_id is not None and envelope.id != request_id:
            raise self._bad(answer.body, f"answered request {envelope.id!r} instead of {request_id}")
        return envelope.result

    def _check_status(self, answer: Answer) -> None:
        """Anything but a 2xx is an error; where its body is JSON-RPC, that says more than the status."""
        if 200 <= answer.status < 300:
            return
        excerpt = _excerpt(answer.body)
        if answer.status == _TOO_MANY_REQUESTS:
            raise RateLimited(
                f"{self._label} asks to slow down: HTTP 429 {excerpt}", retry_after_seconds=self._retry_after(answer)
            )
        if answer.status == 503 and "retry-after" in answer.headers:
            raise RateLimited(
                f"{self._label} is busy: HTTP 503 {excerpt}", retry_after_seconds=self._retry_after(answer)
            )
        error = _error_of(answer.body)
        if error is not None:
            raise self._refusal(error, answer)
        if 400 <= answer.status < 500 and answer.status != 408:
            raise RequestRefused(
                f"{self._label} refused the request: HTTP {answer.status} {excerpt}", code=answer.status
            )
        raise SourceUnavailable(f"{self._label} is out of order: HTTP {answer.status} {excerpt}")

    def _refusal(self, error: Any, answer: Answer) -> SourceError:
        """The typed error for a JSON-RPC error object, or for what some gateways put in its place."""
        code = error.get("code") if isinstance(error, dict) else None
        code = code if isinstance(code, int) else None
        message = error.get("message", error) if isinstance(error, dict) else error
        what = f"{self._label} refused the request: {_one_line(str(message))}" + ("" if code is None else f" ({code})")
        if code in _LIMIT_EXCEEDED:
            return RateLimited(what, retry_after_seconds=self._retry_after(answer), code=code)
        if code in _METHOD_MISSING:
            return MethodMissing(what, code=code)
        return RequestRefused(what, code=code)

    def _retry_after(self, answer: Answer) -> float | None:
        """Seconds to wait: the header holds a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
        text = answer.headers.get("retry-after", "").strip()
        if not text:
            return None
        try:
            return max(0.0, float(text))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._now_us() / 1e6)
        except (ValueError, TypeError, OverflowError):
            return None

    def _bad(self, body: bytes, what: str) -> BadAnswer:
        return BadAnswer(f"{self._label} {what}: {_excerpt(body)}")


def _request(call: Call, request_id: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": call.method, "params": call.params}


def _error_of(body: bytes) -> Any:
    """The `error` of a JSON-RPC answer, None when the body is anything else."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(answer, list) and answer:
        answer = answer[0]
    return answer.get("error") if isinstance(answer, dict) and "jsonrpc" in answer else None


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _excerpt(body: bytes) -> str:
    """The first bytes of an answer, on one line, for people."""
    if not body:
        return "(nothing)"
    line = " ".join(body[:_EXCERPT_BYTES].decode("utf-8", "replace").split())
    return repr(line + ("…" if len(body) > _EXCERPT_BYTES else ""))
