"""How a fake node can fail to deliver an answer. Each names the kind of incident it is modelled on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from gapless.testing.behaviour import (
    AnswerBehaviour,
    Envelope,
    EnvelopeBehaviour,
    Response,
    ResponseBehaviour,
    Scene,
)
from gapless.testing.calls import Call, RpcFault

HTML = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center></body>"
)


def _of_type(kind: str) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", kind),)


@dataclass(frozen=True, slots=True)
class Refusal(AnswerBehaviour):
    """A JSON-RPC error in the place of the result. Models the treadmill of provider messages (ponder 1940): any code,
    any text."""

    code: int = -32000
    message: str = "header not found"

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:  # noqa: ARG002 - whatever it is
        raise RpcFault(self.code, self.message)


@dataclass(frozen=True, slots=True)
class Html(ResponseBehaviour):
    """A gateway's error page in the place of JSON, with its status, or with 200. Models proxies in front of nodes."""

    status: int = 502

    def respond(self, response: Response) -> Response:
        return dataclasses.replace(response, status=self.status, body=HTML, headers=_of_type("text/html"))


@dataclass(frozen=True, slots=True)
class TooManyRequests(ResponseBehaviour):
    """HTTP 429, with or without Retry-After (seconds, or text as it is: an HTTP date). Models provider rate limits."""

    retry_after: float | str | None = None

    def respond(self, response: Response) -> Response:
        headers = _of_type("text/plain")
        if self.retry_after is not None:
            value = self.retry_after if isinstance(self.retry_after, str) else f"{self.retry_after:g}"
            headers += (("Retry-After", value),)
        return dataclasses.replace(response, status=429, body=b"Too Many Requests", headers=headers)


@dataclass(frozen=True, slots=True)
class ServerError(ResponseBehaviour):
    """HTTP 500 or another status with a short text. Models a node that crashed behind its proxy."""

    status: int = 500
    body: bytes = b"Internal Server Error"

    def respond(self, response: Response) -> Response:
        return dataclasses.replace(response, status=self.status, body=self.body, headers=_of_type("text/plain"))


@dataclass(frozen=True, slots=True)
class CutBody(ResponseBehaviour):
    """The connection ends after this share of the body; with `honest_length` the header announces just what is sent,
    as a proxy with a size limit does, so that only the JSON shows it. Models answers cut in the middle."""

    share: float = 0.5
    honest_length: bool = False

    def respond(self, response: Response) -> Response:
        size = int(len(response.body) * self.share)
        if self.honest_length:
            return dataclasses.replace(response, body=response.body[:size])
        return dataclasses.replace(response, sent_bytes=size)


@dataclass(frozen=True, slots=True)
class InvalidJson(ResponseBehaviour):
    """A 200 whose body is not JSON, or JSON of another shape. Models nodes killed while answering, and caches."""

    body: bytes = b'{"jsonrpc":"2.0","id":1,"result":[{"address":nan}'

    def respond(self, response: Response) -> Response:
        return dataclasses.replace(response, body=self.body)


@dataclass(frozen=True, slots=True)
class Stall(ResponseBehaviour):
    """The request is taken and never answered. Models hung nodes and dropped packets (rindexer 268: looks frozen)."""

    def respond(self, response: Response) -> Response:
        return dataclasses.replace(response, silent=True)


@dataclass(frozen=True, slots=True)
class SlowDrip(ResponseBehaviour):
    """The body comes at this pace: always progress, never an end. Models starved connections."""

    bytes_per_second: float = 1.0

    def respond(self, response: Response) -> Response:
        return dataclasses.replace(response, bytes_per_second=self.bytes_per_second)


@dataclass(frozen=True, slots=True)
class Late(ResponseBehaviour):
    """The answer comes after a pause. Models slow endpoints, for hedged calls and scores."""

    seconds: float = 1.0

    def respond(self, response: Response) -> Response:
        return dataclasses.replace(response, delay_seconds=response.delay_seconds + self.seconds)


@dataclass(frozen=True, slots=True)
class CloseConnection(ResponseBehaviour):
    """The connection is closed in the place of an answer. Models restarts of nodes and of load balancers."""

    def respond(self, response: Response) -> Response:
        return dataclasses.replace(response, closed=True)


@dataclass(frozen=True, slots=True)
class WrongId(EnvelopeBehaviour):
    """Answers carry other ids than the requests. Models proxies that mix up their clients."""

    def rearrange(self, envelopes: list[Envelope]) -> list[Envelope]:
        return [Envelope(e.id + 1_000_000 if isinstance(e.id, int) else 1_000_000, e.member) for e in envelopes]


@dataclass(frozen=True, slots=True)
class BatchReversed(EnvelopeBehaviour):
    """The answers of a batch come in the opposite order, as JSON-RPC allows. Models servers that answer in parallel."""

    def rearrange(self, envelopes: list[Envelope]) -> list[Envelope]:
        return envelopes[::-1]


@dataclass(frozen=True, slots=True)
class BatchIncomplete(EnvelopeBehaviour):
    """So many answers of a batch are missing, from the middle on. Models gateways that drop what timed out inside."""

    missing: int = 1

    def rearrange(self, envelopes: list[Envelope]) -> list[Envelope]:
        if len(envelopes) < 2:
            return envelopes
        at = len(envelopes) // 2
        return envelopes[:at] + envelopes[at + self.missing :]
