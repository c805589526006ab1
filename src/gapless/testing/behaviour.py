"""How a fake node misbehaves: the kinds of behaviour, and the switch that says when one applies.

A behaviour is a small frozen value. There are five kinds, by the place where they act: on what the node shows of its
chain (`ViewBehaviour`), on what one call answers (`AnswerBehaviour`), on the envelopes of a response
(`EnvelopeBehaviour`), on the response as bytes on a connection (`ResponseBehaviour`), and on what is pushed to
subscribers (`PushBehaviour`). The concrete ones are in `log_lies` and `block_lies` (what is said), `faults` (how it is
delivered) and `pushes` (WebSocket). Write your own by subclassing a kind.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gapless.errors import UsageError
from gapless.testing.block import ScriptedBlock
from gapless.testing.calls import Call, View

Json = dict[str, Any]


def as_json(value: Any) -> Any:
    """What a client would decode from this value."""
    return msgspec.json.decode(msgspec.json.encode(value))


def other_text(text: str) -> str:
    """Hex text of the same length that says something else: the last digit is changed."""
    return text[:-1] + ("1" if text[-1] == "0" else "0") if len(text) > 2 else "0x01"


def tampered(item: Json, name: str, value: Any) -> Json:
    """A copy with one field changed, in its last digit where no value is given."""
    return item | {name: other_text(item[name]) if value is None else value}


@dataclass(frozen=True, slots=True)
class Scene:
    """Where an answer is altered: the node's view, and the heights the behaviour is switched on for."""

    view: View
    first: int | None
    last: int | None

    def inside(self, number: int) -> bool:
        """Whether the behaviour is switched on for this height."""
        return (self.first is None or number >= self.first) and (self.last is None or number <= self.last)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One JSON-RPC answer: its id, and `"result":…` or `"error":…` as JSON."""

    id: Any
    member: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response and how it goes out."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    delay_seconds: float = 0.0
    """Nothing is sent before."""
    bytes_per_second: float | None = None
    """Pace of the body; None: all at once."""
    sent_bytes: int | None = None
    """So many bytes of the body are sent under the full length, then the connection is closed. None: all."""
    silent: bool = False
    """Nothing is ever sent; the connection stays open."""
    closed: bool = False
    """The connection is closed instead of an answer."""


class ViewBehaviour(ABC):
    """Changes what the node shows of its chain; applied call by call."""

    @abstractmethod
    def view(self, view: View) -> View: ...


class AnswerBehaviour(ABC):
    """Changes the result of a call."""

    @abstractmethod
    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        """A new result; or `result` itself, the very object, where there is nothing to alter (such a call does not
        count). May raise RpcFault. `result` is decoded JSON that nobody else holds."""
        ...


class EnvelopeBehaviour(ABC):
    """Changes the envelopes of a response."""

    @abstractmethod
    def rearrange(self, envelopes: list[Envelope]) -> list[Envelope]: ...


class ResponseBehaviour(ABC):
    """Changes a whole HTTP response."""

    @abstractmethod
    def respond(self, response: Response) -> Response: ...


@dataclass(frozen=True, slots=True)
class Push:
    """What goes out to subscribers after a change of the chain."""

    messages: tuple[bytes, ...] = ()
    """Whole notifications where `raw`, results to be wrapped in one otherwise."""
    raw: bool = False
    closed: bool = False
    """The connection is closed afterwards."""


class PushBehaviour(ABC):
    """Changes what subscribers get."""

    @abstractmethod
    def push(self, push: Push, blocks: Sequence[ScriptedBlock], view: View) -> Push:
        """`push` has the headers of `blocks`, the ones the change appended."""
        ...

    def refuses_connection(self) -> bool:
        """Whether WebSocket handshakes are refused."""
        return False

    def refuses_subscription(self) -> bool:
        """Whether `eth_subscribe` is refused."""
        return False


Behaviour = ViewBehaviour | AnswerBehaviour | EnvelopeBehaviour | ResponseBehaviour | PushBehaviour


@dataclass(slots=True)
class Switch:
    """A behaviour switched on for a node, until `off()` is called or its times are used up.

    It applies to calls of `methods` (none named: all) about heights `first..last` (none given: all calls, also those
    about no block); of the occasions that match, the first `after` are spared, then every `every`-th one is taken,
    `times` in all."""

    behaviour: Behaviour
    first: int | None = None
    last: int | None = None
    times: int | None = None
    after: int = 0
    every: int = 1
    methods: frozenset[str] = frozenset()
    used: int = 0
    """How often it has applied."""
    _seen: int = 0
    _off: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.behaviour, Behaviour):
            raise UsageError(f"{self.behaviour!r} is no behaviour")
        if self.every < 1:
            raise UsageError("every must be at least 1")

    @property
    def name(self) -> str:
        return type(self.behaviour).__name__

    def off(self) -> None:
        """End it."""
        self._off = True

    @property
    def is_on(self) -> bool:
        return not self._off and (self.times is None or self.used < self.times)

    def matches(self, call: Call) -> bool:
        """Whether it is on and meant for this call."""
        if not self.is_on or (self.methods and call.method not in self.methods):
            return False
        if self.first is None and self.last is None:
            return True
        heights = call.heights
        return heights is not None and (
            (self.first is None or heights.stop > self.first) and (self.last is None or heights.start <= self.last)
        )

    def take(self) -> bool:
        """Count one occasion; whether the behaviour applies to it."""
        with self._lock:
            if not self.is_on:
                return False
            self._seen += 1
            taken = self._seen > self.after and (self._seen - self.after - 1) % self.every == 0
            self.used += taken
            return taken
