"""What each source is doing, as last heard from the engine: read by the progress bar, health checks and metrics.

Written on the event loop, read from anywhere: every field is one assignment, so a reader sees old or new, never half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gapless.clock import Clock
from gapless.model import Mode

STAGES = ("head", "fetch", "derive", "commit")
"""Where progress is made, in the order of the data."""


class Statistics(Protocol):
    """What `gapless.sources.SourceStatistics` holds, as far as it is counted here."""

    @property
    def requests(self) -> int: ...

    @property
    def bytes_received(self) -> int: ...

    @property
    def retries(self) -> int: ...

    @property
    def audits(self) -> int: ...

    @property
    def errors(self) -> Mapping[str, int]: ...

    @property
    def contradictions(self) -> Mapping[str, int]: ...


@dataclass(slots=True)
class SourceState:
    """One source."""

    mode: Mode = Mode.STARTING
    reason: str | None = None
    head: int | None = None
    head_time_us: int | None = None
    finalized: int | None = None
    start: int | None = None
    target: int | None = None
    position: int | None = None
    position_time_us: int | None = None
    leads: bool = False
    entries: int = 0
    rows: int = 0
    quarantined: int = 0
    reorgs: int = 0
    progressed: dict[str, float] = field(default_factory=dict)
    """When each stage last got on, on the monotonic clock."""

    @property
    def lag_positions(self) -> int | None:
        """Positions between the last committed one and the head; None while either is unknown."""
        if self.head is None or self.position is None:
            return None
        return max(0, self.head - self.position)

    @property
    def lag_seconds(self) -> float | None:
        """The same in the chain's own time: 0 at the head, also when the chain stands still."""
        if self.head_time_us is None or self.position_time_us is None:
            return None
        return max(0.0, (self.head_time_us - self.position_time_us) / 1e6) if self.lag_positions else 0.0


class Watch:
    """Hears what the engine says (see `gapless.engine.observer.Observer`) and remembers it."""

    def __init__(self, sources: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self.started = clock.monotonic()
        self.states = {name: SourceState() for name in sources}

    def _progress(self, source: str, stage: str) -> SourceState:
        state = self.states[source]
        state.progressed[stage] = self._clock.monotonic()
        return state

    def age_seconds(self, source: str, stage: str) -> float:
        """How long ago a stage last got on; since the start where it never did."""
        return self._clock.monotonic() - self.states[source].progressed.get(stage, self.started)

    # --- what the engine says ---------------------------------------------------------------------------------------

    def mode(self, source: str, mode: Mode, reason: str | None) -> None:
        state = self.states[source]
        state.mode, state.reason = mode, reason

    def head(self, source: str, latest: int, finalized: int, time_us: int) -> None:
        state = self._progress(source, "head")
        state.head, state.finalized, state.head_time_us = latest, finalized, time_us

    def target(self, source: str, start: int, target: int) -> None:
        state = self.states[source]
        state.start, state.target = start, target

    def position(self, source: str, position: int, time_us: int) -> None:
        state = self._progress(source, "commit")
        state.position, state.position_time_us = position, time_us

    def committed(self, source: str, entries: int, rows: int, seconds: float) -> None:  # noqa: ARG002 - told to metrics
        state = self.states[source]
        state.entries += entries
        state.rows += rows

    def derived(self, source: str, seconds: float) -> None:  # noqa: ARG002 - told to metrics
        self._progress(source, "derive")

    def fetched(self, source: str, entries: int, size_bytes: int, seconds: float) -> None:  # noqa: ARG002 - as above
        self._progress(source, "fetch")

    def reorg(self, source: str, depth: int) -> None:  # noqa: ARG002 - told to metrics
        self.states[source].reorgs += 1

    def lease(self, source: str, held: bool, token: int) -> None:  # noqa: ARG002 - told to metrics
        self.states[source].leads = held

    def queue(self, source: str, queue: str, depth: int, limit: int) -> None:
        """Told to metrics."""

    def quarantined(self, source: str, items: int) -> None:
        self.states[source].quarantined += items

    def gaps(self, source: str, gaps: int) -> None:
        """Told to metrics."""

    def failed(self, source: str, stage: str, kind: str) -> None:
        """Told to metrics."""

    def source_statistics(self, source: str, statistics: Statistics) -> None:
        """Told to metrics."""
