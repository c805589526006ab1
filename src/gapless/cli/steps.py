"""How far a command is that works through a range: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gapless.cli import output

if TYPE_CHECKING:
    from gapless.clock import Clock

_LINE_SECONDS = 10.0
_BAR_AFTER_SECONDS = 0.5
"""What is done sooner needs no bar."""


class Steps:
    """`with Steps("verify", clock) as steps: … steps.tick(done, total)`. Shown on standard error."""

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._started = self._said = clock.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tick(self, done: int, total: int) -> None:
        """So many positions are done, of so many."""
        now = self._clock.monotonic()
        if sys.stderr.isatty():
            if now - self._started >= _BAR_AFTER_SECONDS:
                self._show(done, total)
        elif now - self._said >= _LINE_SECONDS:
            self._said = now
            rate = done / (now - self._started)
            left = output.span((total - done) / rate) if rate else "?"
            percent = 100 * done // max(1, total)
            output.talk(
                f"{self._what}: {output.cell(done)} of {output.cell(total)} ({percent} %), {rate:.0f}/s, {left} left"
            )

    def _show(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
            self._task = self._bar.add_task(self._what, total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
