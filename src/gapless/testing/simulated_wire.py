"""The way from a simulated process to a scripted node: JSON-RPC bytes handed over in virtual time, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random  # noqa: TID251 - the type; the draws are the simulation's

from gapless.errors import BadAnswer, SourceUnavailable, TimedOut
from gapless.sources.evm.transport import Answer
from gapless.testing.behaviour import Behaviour, Response, Switch
from gapless.testing.chain import ScriptedChain
from gapless.testing.dispatch import Dispatcher
from gapless.testing.methods import Limits
from gapless.testing.simulated_time import SimulatedClock, SimulatedLoop


class SimulatedNode:
    """One endpoint as all processes share it."""

    def __init__(self, label: str, chain: ScriptedChain, limits: Limits, monotonic: Callable[[], float]) -> None:
        self.label = label
        self.dispatcher = Dispatcher(chain, limits, monotonic)
        self.away = False
        """Nobody reaches it."""
        self.slow_seconds = 0.0
        """Added to each answer."""

    def behave(
        self,
        behaviour: Behaviour,
        *,
        first: int | None = None,
        last: int | None = None,
        every: int = 1,
        after: int = 0,
        methods: frozenset[str] = frozenset(),
    ) -> Switch:
        switch = Switch(behaviour, first, last, None, after, every, methods)
        self.dispatcher.switches += (switch,)
        return switch

    def ease(self, switch: Switch) -> None:
        """Switch one behaviour off."""
        switch.off()
        self.dispatcher.switches = tuple(s for s in self.dispatcher.switches if s is not switch)

    def calm(self) -> None:
        """Switch everything off."""
        for switch in self.dispatcher.switches:
            self.ease(switch)
        self.away, self.slow_seconds = False, 0.0


@dataclass(slots=True)
class Line:
    """What one process has between itself and a node."""

    latency_seconds: float = 0.0
    """Mean, there and back."""
    cut: bool = False
    """Nothing arrives from this process."""


class SimulatedTransport:
    """`gapless.sources.evm.transport.Transport` of one process to one node. `heard` is told of each answer."""

    def __init__(
        self,
        node: SimulatedNode,
        line: Line,
        loop: SimulatedLoop,
        clock: SimulatedClock,
        draw: Random,
        heard: Callable[[str, bytes, Response], None],
    ) -> None:
        self.label = node.label
        self._node = node
        self._line = line
        self._loop = loop
        self._clock = clock
        self._draw = draw
        self._heard = heard
        self._connections = 1
        self.severed = False
        """The process is gone: nothing it does has an effect any more."""

    async def post(self, body: bytes, timeout_seconds: float) -> Answer:
        """One request and its answer; errors as the port says."""
        there, back = (self._line.latency_seconds * self._draw.expovariate(2.0) for _ in range(2))
        await self._pass(there, timeout_seconds, timeout_seconds)
        if self.severed or self._line.cut or self._node.away:
            self._connections += 1
            raise SourceUnavailable(f"{self.label} cannot be reached")
        response = self._node.dispatcher.answer(body)
        self._heard(self.label, body, response)
        back += response.delay_seconds + self._node.slow_seconds
        if response.bytes_per_second is not None:
            back += len(response.body) / response.bytes_per_second
        await self._pass(timeout_seconds if response.silent else back, timeout_seconds - there, timeout_seconds)
        if response.closed:
            self._connections += 1
            raise SourceUnavailable(f"{self.label} closed the connection")
        if response.sent_bytes is not None and response.sent_bytes < len(response.body):
            self._connections += 1
            raise BadAnswer(f"{self.label} cut its answer short")
        headers = {name.lower(): value for name, value in response.headers}
        return Answer(response.status, headers, response.body, self._connections)

    async def _pass(self, seconds: float, left_seconds: float, timeout_seconds: float) -> None:
        if seconds >= left_seconds:
            await self._clock.sleep(left_seconds)
            raise TimedOut(f"{self.label} did not answer within {timeout_seconds:g} s")
        await self._clock.sleep(seconds)

    async def close(self) -> None:
        return


class SimulatedBell:
    """A push channel of one process: rings when told to, which may be late, for nothing, or never."""

    def __init__(self) -> None:
        self.ring = asyncio.Event()

    def start(self) -> None:
        return

    async def close(self) -> None:
        return
