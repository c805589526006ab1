"""What the engine tells the outside: metrics, progress bars, tests. Calls must return at once and never raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gapless.model import Mode
from gapless.sources import SourceStatistics


class Observer:
    """Hears of everything and does nothing; subclass what you need."""

    def mode(self, source: str, mode: Mode, reason: str | None) -> None: ...

    def head(self, source: str, latest: int, finalized: int, time_us: int) -> None: ...

    def target(self, source: str, start: int, target: int) -> None: ...

    def position(self, source: str, position: int, time_us: int) -> None: ...

    def committed(self, source: str, entries: int, rows: int, seconds: float) -> None: ...

    def derived(self, source: str, seconds: float) -> None: ...

    def fetched(self, source: str, entries: int, size_bytes: int, seconds: float) -> None: ...

    def reorg(self, source: str, depth: int) -> None: ...

    def lease(self, source: str, held: bool, token: int) -> None: ...

    def queue(self, source: str, queue: str, depth: int, limit: int) -> None: ...

    def quarantined(self, source: str, items: int) -> None: ...

    def gaps(self, source: str, gaps: int) -> None: ...

    def failed(self, source: str, stage: str, kind: str) -> None: ...

    def source_statistics(self, source: str, statistics: SourceStatistics) -> None: ...


class Observers(Observer):
    """Tells several observers."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Observer, name):
            return object.__getattribute__(self, name)

        def tell(*args: Any) -> None:
            for observer in object.__getattribute__(self, "_observers"):
                getattr(observer, name)(*args)

        return tell
