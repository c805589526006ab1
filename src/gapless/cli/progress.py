"""How far a run is: a bar on a terminal, else a log line every ten seconds while catching up."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import structlog

from gapless.clock import Clock
from gapless.model import Mode
from gapless.telemetry.watch import SourceState, Watch

if TYPE_CHECKING:
    from rich.progress import TaskID

_BAR_SECONDS = 0.25
_LINE_SECONDS = 10.0
_QUIET_SECONDS = 300.0
"""Between lines of a source that only waits for its chain."""
_WINDOW_SECONDS = 15.0

log = structlog.get_logger("gapless.progress")


class Rate:
    """Positions a second over the last moments."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, position: int) -> None:
        if self._seen and position < self._seen[-1][1]:
            self._seen.clear()  # a fork was undone
        self._seen.append((now, position))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0

    def eta_seconds(self, position: int, target: int) -> float | None:
        """None while nothing moves."""
        return max(0, target - position) / self.per_second if self.per_second > 0 else None


class Meter:
    """One source's rate and state as text."""

    def __init__(self, state: SourceState) -> None:
        self.state = state
        self.rate = Rate()

    def note(self, now: float) -> None:
        if self.state.position is not None:
            self.rate.note(now, self.state.position)

    @property
    def total(self) -> int | None:
        s = self.state
        return None if s.start is None or s.target is None else max(0, s.target - s.start + 1)

    @property
    def done(self) -> int:
        s = self.state
        return 0 if s.start is None or s.position is None else max(0, s.position - s.start + 1)

    def eta_seconds(self) -> float | None:
        s = self.state
        return None if s.position is None or s.target is None else self.rate.eta_seconds(s.position, s.target)

    def fields(self) -> dict[str, Any]:
        """For a log line."""
        s, eta = self.state, self.eta_seconds()
        return {
            "mode": s.mode.value,
            "position": s.position,
            "target": s.target,
            "percent": round(100 * self.done / self.total, 1) if self.total else None,
            "positions_per_s": round(self.rate.per_second, 1),
            "eta_s": None if eta is None else round(eta),
            "lag_positions": s.lag_positions,
            "lag_s": s.lag_seconds,
            "rows": s.rows,
        }


class Lines:
    """A log line every ten seconds while a source catches up."""

    def __init__(self, watch: Watch, clock: Clock) -> None:
        self._clock = clock
        self._meters = {name: Meter(state) for name, state in watch.states.items()}
        self._said = dict.fromkeys(self._meters, clock.monotonic())

    async def show(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(1.0)
            self.tick()

    def tick(self) -> None:
        now = self._clock.monotonic()
        for name, meter in self._meters.items():
            meter.note(now)
            busy = meter.state.mode in {Mode.CATCHING_UP, Mode.STARTING}
            if now - self._said[name] >= (_LINE_SECONDS if busy else _QUIET_SECONDS):
                self._said[name] = now
                log.info("progress", source=name, **meter.fields())

    def close(self) -> None:
        """Nothing is left open."""


class Bar:
    """A bar for each source, with rate, time left and lag."""

    def __init__(self, watch: Watch, clock: Clock) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock = clock
        self._progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[mode]}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True, highlight=False),
            auto_refresh=False,
            redirect_stdout=False,
        )
        self._meters: dict[TaskID, Meter] = {
            self._progress.add_task(name, total=None, mode=state.mode.value, text=""): Meter(state)
            for name, state in watch.states.items()
        }
        self._progress.start()

    async def show(self) -> None:
        """Until cancelled."""
        while True:
            self.tick()
            await self._clock.sleep(_BAR_SECONDS)

    def tick(self) -> None:
        now = self._clock.monotonic()
        for task, meter in self._meters.items():
            meter.note(now)
            mode = meter.state.mode.value
            self._progress.update(task, total=meter.total, completed=meter.done, mode=mode, text=self._text(meter))
        self._progress.refresh()

    def _text(self, meter: Meter) -> str:
        from gapless.cli.output import cell, span

        s = meter.state
        if s.position is None:
            return s.reason or ""
        parts = [f"{cell(s.position)} of {cell(s.target)}"]
        if s.mode is Mode.CATCHING_UP:
            parts += [f"{meter.rate.per_second:,.0f}/s".replace(",", " "), f"{span(meter.eta_seconds())} left"]
        parts.append(f"{cell(s.lag_positions)} behind")
        if s.mode in {Mode.DEGRADED, Mode.IDLE} and s.reason:
            parts.append(s.reason[:60])
        return " · ".join(parts)

    def close(self) -> None:
        """Show the last state and let go of the terminal."""
        self.tick()
        self._progress.stop()
