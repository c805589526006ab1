"""The process the engine runs in, as the engine sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gapless.clock import Clock
from gapless.engine.lease import holder_name
from gapless.engine.offload import Heartbeat, Offload, ThreadHeartbeat, Threads


class Process(Protocol):
    """Who it is, and how it works beside its event loop. The simulation has processes of its own."""

    holder: str
    """Its name as the holder of leases."""

    def offload(self, derivers_max: int) -> Offload:
        """Workers for one run."""
        ...

    def heartbeat(
        self, name: str, beat: Callable[[], None], pause_seconds: float, last: Callable[[], None]
    ) -> Heartbeat: ...


class ThisProcess:
    """The real one: with threads."""

    def __init__(self, clock: Clock) -> None:
        self.holder = holder_name()
        self._clock = clock

    def offload(self, derivers_max: int) -> Offload:
        return Threads(derivers_max)

    def heartbeat(
        self, name: str, beat: Callable[[], None], pause_seconds: float, last: Callable[[], None]
    ) -> Heartbeat:
        return ThreadHeartbeat(self._clock, name, beat, pause_seconds, last)
