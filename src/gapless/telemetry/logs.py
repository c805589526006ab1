"""Structured logs on standard error: for people on a terminal, JSON elsewhere.

One line a decision, none a record: an event is a short constant sentence, its fields say the rest, with units in
their names (`pause_s`). Secrets are redacted on the way out. Trouble that repeats is thinned: of equal warnings within
a minute only the first, second, fourth, eighth, … pass, with their count, so that an outage of hours costs some lines
and not a full disk, and the log still says how often.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import OrderedDict
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import structlog

from gapless.clock import Clock, SystemClock
from gapless.config.secrets import redact
from gapless.schema import timestamp_text

Event = MutableMapping[str, Any]

_WINDOW_SECONDS = 60.0
_KEYS_MAX = 1_000
_THINNED = frozenset({"warning", "error", "exception"})
_IDENTITY = ("source", "lease", "endpoint", "stage", "kind")
"""Fields that make two lines of one event different ones."""


def configure(
    level: str = "info",
    form: Literal["auto", "json", "console"] = "auto",
    *,
    stream: TextIO | None = None,
    clock: Clock | None = None,
    fields: dict[str, Any] | None = None,
) -> None:
    """Set up structlog and the standard library's logging for this process. `fields` go into every line."""
    clock = clock or SystemClock()
    terminal = stream or sys.stderr
    people = form == "console" or (form == "auto" and terminal.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        Stamp(clock, fields or {}),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            Repeats(clock),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream) if stream is not None else _StandardError()
    renderer = _console(terminal) if people else structlog.processors.JSONRenderer(_ordered)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("gapless").setLevel(level.upper())


def _console(stream: TextIO) -> Any:
    import os

    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    return structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, timestamp_key="time", pad_event_to=24
    )


def _ordered(event: Event, **options: Any) -> str:
    """JSON with what people look for first in front."""
    first = {name: event[name] for name in ("time", "level", "event", "source") if name in event}
    return json.dumps({**first, **event}, ensure_ascii=False, **options)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is now: a progress bar puts itself there, to keep lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class Stamp:
    """Adds the time and the fields of the process."""

    def __init__(self, clock: Clock, fields: dict[str, Any]) -> None:
        self._clock = clock
        self._fields = fields

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        event["time"] = timestamp_text(self._clock.now_us() // 1000 * 1000)
        for name, value in self._fields.items():
            event.setdefault(name, value)
        return event


def redact_event(_logger: Any, _method: str, event: Event) -> Event:
    """Hide what must not be shown, in every field, exceptions included."""
    for name, value in event.items():
        if not name.startswith("_"):
            event[name] = redact(value, name)
    return event


@dataclass(slots=True)
class _Heard:
    until: float
    count: int = 0


class Repeats:
    """Drops repeats of a warning within a minute but for the powers of two, which carry `repeated`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: OrderedDict[tuple[Any, ...], _Heard] = OrderedDict()

    def __call__(self, logger: Any, method: str, event: Event) -> Event:
        if method not in _THINNED:
            return event
        now = self._clock.monotonic()
        key = (getattr(logger, "name", ""), method, event.get("event"), *(str(event.get(n)) for n in _IDENTITY))
        heard = self._heard.get(key)
        if heard is None or now >= heard.until:
            heard = self._heard[key] = _Heard(now + _WINDOW_SECONDS)
        self._heard.move_to_end(key)
        if len(self._heard) > _KEYS_MAX:
            self._heard.popitem(last=False)
        heard.count += 1
        if heard.count & (heard.count - 1):
            raise structlog.DropEvent
        if heard.count > 1:
            event["repeated"] = heard.count
        return event
