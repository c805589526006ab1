"""How a fake node's WebSocket subscriptions can fail. Each names the kind of incident it is modelled on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gapless.testing.behaviour import Push, PushBehaviour
from gapless.testing.block import ScriptedBlock
from gapless.testing.calls import View


@dataclass(frozen=True, slots=True)
class SilentHeads(PushBehaviour):
    """Subscriptions are accepted and nothing is ever pushed. Models dipdup 953 (silent WebSocket subscription)."""

    def push(self, push: Push, blocks: Sequence[ScriptedBlock], view: View) -> Push:  # noqa: ARG002
        return Push()


@dataclass(frozen=True, slots=True)
class DroppedSocket(PushBehaviour):
    """The connection is closed in the place of a push. Models idle timeouts and restarts of load balancers."""

    def push(self, push: Push, blocks: Sequence[ScriptedBlock], view: View) -> Push:  # noqa: ARG002
        return Push(closed=True)


@dataclass(frozen=True, slots=True)
class RefusedSocket(PushBehaviour):
    """The handshake is refused with HTTP 403, or `eth_subscribe` with an error. Models plans without WebSocket."""

    at: Literal["handshake", "subscribe"] = "handshake"

    def push(self, push: Push, blocks: Sequence[ScriptedBlock], view: View) -> Push:  # noqa: ARG002
        return push

    def refuses_connection(self) -> bool:
        return self.at == "handshake"

    def refuses_subscription(self) -> bool:
        return self.at == "subscribe"


@dataclass(frozen=True, slots=True)
class GarbageHeads(PushBehaviour):
    """This text in the place of each notification. Models proxies that push their own messages."""

    text: bytes = b'{"jsonrpc":"2.0","method":"eth_subscription","params":{"result":'

    def push(self, push: Push, blocks: Sequence[ScriptedBlock], view: View) -> Push:  # noqa: ARG002
        return Push(messages=(self.text,) * len(push.messages), raw=True)


@dataclass(frozen=True, slots=True)
class DuplicatedHeads(PushBehaviour):
    """Every head comes twice. Models providers that merge several nodes' streams."""

    def push(self, push: Push, blocks: Sequence[ScriptedBlock], view: View) -> Push:  # noqa: ARG002
        return dataclasses.replace(push, messages=tuple(m for m in push.messages for _ in range(2)))


@dataclass(frozen=True, slots=True)
class OutOfOrderHeads(PushBehaviour):
    """Heads come newest first; after a single one its parent comes again. Models merged streams of several nodes."""

    def push(self, push: Push, blocks: Sequence[ScriptedBlock], view: View) -> Push:
        messages = push.messages[::-1]
        if len(blocks) == 1:
            parent = view.block(blocks[0].number - 1)
            messages += () if parent is None else (parent.header_json(),)
        return dataclasses.replace(push, messages=messages)
