"""Switches that a running process obeys without a restart. Set with `gapless flags set NAME VALUE`.

A follower reads them about once a second. A value that cannot be read counts as not set: a typing mistake made behind
the command's back must not stop an indexer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from gapless.clock import Clock
from gapless.engine.offload import Offload
from gapless.errors import UsageError
from gapless.store import Ledger

READ_EVERY_SECONDS = 1.0

_TRUE = frozenset({"true", "on", "yes", "1"})
_FALSE = frozenset({"false", "off", "no", "0"})

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "writes_enabled": "on | off. Off: nothing is committed; the source is watched and goes on when it is on again.",
        "rollback_automation": "on | off. Off: a fork halts the source with nothing undone, and waits for an operator.",
        "inflight_max": "A number: so many segments are fetched ahead at most; a lower one takes load off a node.",
    }
)
"""Every flag there is, and what it does."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags as the engine obeys them."""

    writes_enabled: bool = True
    rollback_automation: bool = True
    inflight_max: int | None = None


def _switch(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError("write on or off")
    return lowered in _TRUE


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("write a number from 1")
    return int(text)


_READERS: dict[str, Callable[[str], bool | int]] = {
    "writes_enabled": _switch,
    "rollback_automation": _switch,
    "inflight_max": _count,
}


def check_flag(name: str, value: str | None) -> None:
    """Raises UsageError for a flag that does not exist, or a value it cannot have."""
    if name not in FLAGS:
        close = difflib.get_close_matches(name, FLAGS, n=1)
        raise UsageError(
            f"There is no flag {name!r}",
            todo=f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(FLAGS)}.",
        )
    if value is None:
        return
    try:
        _READERS[name](value)
    except ValueError as error:
        raise UsageError(f"{name} cannot be {value!r}: {error}", todo=FLAGS[name]) from error


def read_flags(stored: Mapping[str, str]) -> Flags:
    """The flags to obey, from what is stored."""
    obeyed: dict[str, bool | int] = {}
    for name in (f.name for f in fields(Flags)):
        if name in stored:
            try:
                obeyed[name] = _READERS[name](stored[name])
            except ValueError:
                continue
    return Flags(**obeyed)  # type: ignore[arg-type]


class Switchboard:
    """The flags of an app as one follower last read them."""

    def __init__(self, ledger: Ledger, offload: Offload, clock: Clock) -> None:
        self._ledger = ledger
        self._offload = offload
        self._clock = clock
        self._read_at = float("-inf")
        self.flags = Flags()

    async def read(self) -> Flags:
        """The flags, not older than `READ_EVERY_SECONDS`. Raises what `Ledger.flags` raises."""
        if self._clock.monotonic() - self._read_at >= READ_EVERY_SECONDS:
            self.flags = read_flags(await self._offload.read(self._ledger.flags))
            self._read_at = self._clock.monotonic()
        return self.flags

    def segments_max(self, configured: int) -> int:
        """How many segments may be fetched ahead: a flag lowers what is configured, and never raises it."""
        return configured if self.flags.inflight_max is None else min(configured, self.flags.inflight_max)
