"""What a fake node answers to a request body: JSON-RPC in, a response and counters out. No I/O.

Order of events: limits, then for every call view behaviours, the true answer, answer behaviours; then envelope and
response behaviours for the whole. The chain is locked while a call is answered, so every answer is of one moment."""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gapless.testing.behaviour import (
    AnswerBehaviour,
    Envelope,
    EnvelopeBehaviour,
    Push,
    PushBehaviour,
    Response,
    ResponseBehaviour,
    Scene,
    Switch,
    ViewBehaviour,
)
from gapless.testing.block import ScriptedBlock
from gapless.testing.calls import INVALID_PARAMS, METHOD_NOT_FOUND, Call, RpcFault, View, read_call
from gapless.testing.chain import ScriptedChain
from gapless.testing.methods import Limits, Methods

RANGES_KEPT_MAX = 100_000
_INVALID_REQUEST = -32600
_PARSE_ERROR = -32700

_encode = msgspec.json.encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """What a node was asked, and what it did, since its start or the last reset."""

    requests: int = 0
    """HTTP requests and WebSocket messages received."""
    calls: dict[str, int] = field(default_factory=dict)
    """Method → calls, those inside batches one by one."""
    batches: tuple[int, ...] = ()
    """Sizes of the newest batches received, at most RANGES_KEPT_MAX of them."""
    ranges: tuple[tuple[int, int], ...] = ()
    """(first, last) of the newest `eth_getLogs` calls by range, as asked."""
    misbehaved: dict[str, int] = field(default_factory=dict)
    """Behaviour → how often it applied."""
    refused: int = 0
    """Requests refused by the rate limit."""
    bytes_answered: int = 0


class Dispatcher:
    """Answers requests over a chain. Safe to use from several threads."""

    def __init__(self, chain: ScriptedChain, limits: Limits, monotonic: Callable[[], float]) -> None:
        self.chain = chain
        self.limits = limits
        self.switches: tuple[Switch, ...] = ()
        """Replaced as a whole, never changed: may be read without a lock."""
        self._methods = Methods()
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._ids = itertools.count(1)
        self._allowance, self._allowance_at = 0.0, -math.inf
        self.reset_statistics()

    def reset_statistics(self) -> None:
        with self._lock:
            self._calls: Counter[str] = Counter()
            self._misbehaved: Counter[str] = Counter()
            self._batches: deque[int] = deque(maxlen=RANGES_KEPT_MAX)
            self._ranges: deque[tuple[int, int]] = deque(maxlen=RANGES_KEPT_MAX)
            self._requests = self._refused = self._bytes = 0

    def statistics(self) -> NodeStatistics:
        with self._lock:
            return NodeStatistics(
                requests=self._requests,
                calls=dict(self._calls),
                batches=tuple(self._batches),
                ranges=tuple(self._ranges),
                misbehaved=dict(self._misbehaved),
                refused=self._refused,
                bytes_answered=self._bytes,
            )

    # --- requests ---

    def too_large(self) -> Response:
        """The answer to a body beyond `request_bytes_max`."""
        return Response(413, b"content length too large", (("Content-Type", "text/plain"),))

    def answer(self, body: bytes, subscriptions: set[str] | None = None) -> Response:
        """Answer one request body. `subscriptions` are those of the WebSocket it came over; None for HTTP."""
        with self._lock:
            self._requests += 1
        wait_seconds = self._wait_seconds()
        if wait_seconds > 0:
            with self._lock:
                self._refused += 1
            headers = (("Content-Type", "text/plain"), ("Retry-After", str(math.ceil(wait_seconds))))
            return Response(429, b"Too Many Requests", headers)
        calls: list[Call] = []
        response = Response(body=self._body(body, calls, subscriptions))
        if not response.body:
            response = Response(204)
        for switch in self.switches:
            behaviour = switch.behaviour
            if isinstance(behaviour, ResponseBehaviour) and any(map(switch.matches, calls)) and self._take(switch):
                response = behaviour.respond(response)
        with self._lock:
            self._bytes += len(response.body)
        return response

    def _body(self, body: bytes, calls: list[Call], subscriptions: set[str] | None) -> bytes:
        try:
            asked = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _joined(_error(None, _PARSE_ERROR, "parse error"))
        if not isinstance(asked, list):
            envelopes = self._envelopes([asked], calls, subscriptions)
            return b"".join(map(_joined, envelopes))
        with self._lock:
            self._batches.append(len(asked))
        if not asked:
            return _joined(_error(None, _INVALID_REQUEST, "empty batch"))
        if self.limits.batch_max is not None and len(asked) > self.limits.batch_max:
            return _joined(_error(None, _INVALID_REQUEST, "batch too large"))
        envelopes = self._envelopes(asked, calls, subscriptions)
        return b"[" + b",".join(map(_joined, envelopes)) + b"]" if envelopes else b""

    def _envelopes(self, asked: Sequence[Any], calls: list[Call], subscriptions: set[str] | None) -> list[Envelope]:
        found = [self._envelope(item, calls, subscriptions) for item in asked]
        envelopes = [envelope for envelope in found if envelope is not None]
        for switch in self.switches:
            behaviour = switch.behaviour
            if isinstance(behaviour, EnvelopeBehaviour) and any(map(switch.matches, calls)):
                changed = behaviour.rearrange(envelopes)
                if changed != envelopes and self._take(switch):
                    envelopes = changed
        return envelopes

    def _envelope(self, item: Any, calls: list[Call], subscriptions: set[str] | None) -> Envelope | None:
        """The answer to one call; None for a notification."""
        if not isinstance(item, dict) or item.get("jsonrpc") != "2.0" or not isinstance(item.get("method"), str):
            return _error(item.get("id") if isinstance(item, dict) else None, _INVALID_REQUEST, "invalid request")
        method, params = item["method"], item.get("params", [])
        with self._lock:
            self._calls[method] += 1
        try:
            if method in ("eth_subscribe", "eth_unsubscribe"):
                result = self._subscription(method, params, subscriptions)
            else:
                with self.chain.lock:
                    result = self._result(method, params, calls)
        except RpcFault as fault:
            return _error(item["id"], fault.code, fault.message) if "id" in item else None
        return Envelope(item["id"], b'"result":' + result) if "id" in item else None

    def _result(self, method: str, params: Any, calls: list[Call]) -> bytes:
        view = self._view(method)
        calls.append(Call(method, params if isinstance(params, list) else []))
        call = calls[-1] = read_call(method, params, view)
        if call.filter is not None and call.heights is not None and call.filter.block_hash is None:
            with self._lock:
                self._ranges.append((call.heights.start, call.heights.stop - 1))
        true = self._methods.answer(call, view, self.limits)
        liars = [s for s in self.switches if isinstance(s.behaviour, AnswerBehaviour) and s.matches(call)]
        if not liars:
            return true
        told = value = _decode(true)
        for switch in liars:
            told = self._told(switch, call, told, view)
        return true if told is value else _encode(told)

    def _told(self, switch: Switch, call: Call, value: Any, view: View) -> Any:
        behaviour = switch.behaviour
        if not isinstance(behaviour, AnswerBehaviour):
            return value
        try:
            altered = behaviour.alter(call, value, Scene(view, switch.first, switch.last))
        except RpcFault:
            if self._take(switch):
                raise
            return value
        return altered if altered is not value and self._take(switch) else value

    def _view(self, method: str) -> View:
        view = View(self.chain, self.chain.height, self.chain.chain_id)
        for switch in self.switches:
            behaviour = switch.behaviour
            if isinstance(behaviour, ViewBehaviour) and (not switch.methods or method in switch.methods):
                changed = behaviour.view(view)
                if changed != view and self._take(switch):
                    view = changed
        return view

    def _take(self, switch: Switch) -> bool:
        taken = switch.take()
        if taken:
            with self._lock:
                self._misbehaved[switch.name] += 1
        return taken

    def _wait_seconds(self) -> float:
        """How long until the rate limit admits a request; 0 when it does now (and then it is counted)."""
        rate = self.limits.requests_per_second
        if rate is None:
            return 0.0
        with self._lock:
            now = self._monotonic()
            burst = max(1.0, rate)
            self._allowance = min(burst, self._allowance + (now - self._allowance_at) * rate)
            self._allowance_at = now
            if self._allowance < 1.0:
                return (1.0 - self._allowance) / rate
            self._allowance -= 1.0
            return 0.0

    # --- subscriptions ---

    def _subscription(self, method: str, params: Any, subscriptions: set[str] | None) -> bytes:
        if subscriptions is None:
            raise RpcFault(METHOD_NOT_FOUND, "notifications not supported")
        if not isinstance(params, list) or not params or not isinstance(params[0], str):
            raise RpcFault(INVALID_PARAMS, "missing value for required argument 0")
        if method == "eth_unsubscribe":
            known = params[0] in subscriptions
            subscriptions.discard(params[0])
            return _encode(known)
        if self._refuses(lambda behaviour: behaviour.refuses_subscription()):
            raise RpcFault(-32000, "subscriptions are not available")
        if params[0] != "newHeads":
            raise RpcFault(INVALID_PARAMS, f'no "{params[0]}" subscription in eth namespace')
        name = hex(next(self._ids))
        subscriptions.add(name)
        return _encode(name)

    def refuses_connection(self) -> bool:
        """Whether a WebSocket handshake is to be refused."""
        return self._refuses(lambda behaviour: behaviour.refuses_connection())

    def _refuses(self, question: Callable[[PushBehaviour], bool]) -> bool:
        return any(
            isinstance(switch.behaviour, PushBehaviour) and question(switch.behaviour) and self._take(switch)
            for switch in self.switches
        )

    def push(self, blocks: Sequence[ScriptedBlock]) -> Push:
        """What subscribers of new heads get after a change that appended these blocks."""
        push = Push(tuple(block.header_json() for block in blocks))
        view = View(self.chain, self.chain.height, self.chain.chain_id)
        heights = range(blocks[0].number, blocks[-1].number + 1) if blocks else None
        occasion = Call("eth_subscription", [], heights)
        for switch in self.switches:
            behaviour = switch.behaviour
            if isinstance(behaviour, PushBehaviour) and switch.matches(occasion):
                changed = behaviour.push(push, blocks, view)
                if changed != push and self._take(switch):
                    push = changed
        return push


def notification(subscription: str, head: bytes) -> bytes:
    """A new head for one subscription."""
    name = _encode(subscription)
    return (
        b'{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":' + name + b',"result":' + head + b"}}"
    )


def _error(request_id: Any, code: int, message: str) -> Envelope:
    return Envelope(request_id, b'"error":' + _encode({"code": code, "message": message}))


def _joined(envelope: Envelope) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + _encode(envelope.id) + b"," + envelope.member + b"}"
