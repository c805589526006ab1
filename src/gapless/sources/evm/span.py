"""How much to ask for at once, learned from what came back.

Nothing here reads an error's text. A size that was refused (or timed out, or came back larger than we take) is a
ceiling; below it the size grows by steps, and the steps get smaller as the ceiling comes near, so that a hard cap of
the endpoint (1,000 blocks, 10,000 results, 10 calls a batch) is approached once and not bumped into for ever. Caps on
results move with the data, so the ceiling is forgotten after a while; each time it turns out to stand where it stood,
twice as late. An answer that is larger than the target shrinks the size in proportion, before anything fails.
"""

from __future__ import annotations

_GROWTH_PARTS = 8
"""Growth after the first refusal: this part of the size a time."""
_PATIENCE_START = 32
_PATIENCE_MAX = 2048
"""Successes before a ceiling is tried again."""


class Span:
    """A learned size: blocks a range, or calls a batch."""

    def __init__(self, *, start: int, maximum: int, bytes_target: int, items_target: int | None = None) -> None:
        self._maximum = max(1, maximum)
        self._bytes_target = bytes_target
        self._items_target = items_target
        self._size = min(max(1, start), self._maximum)
        self._ceiling: int | None = None
        self._remembered: int | None = None
        self._worked = 0
        self._streak = 0
        self._patience = _PATIENCE_START

    def __repr__(self) -> str:
        return f"Span({self._size}, ceiling={self._ceiling}, maximum={self._maximum})"

    @property
    def size(self) -> int:
        """What to ask for now, at least 1."""
        return self._size

    def succeeded(self, asked: int, *, size_bytes: int, items: int = 0) -> None:
        """`asked` positions or calls were answered, with so many bytes and items."""
        fits = self._fitting(asked, size_bytes, items)
        if asked < self._size:
            # A shorter request (the end of a range) says nothing about the size, except that it is too dense.
            self._size = min(self._size, max(1, fits))
            return
        self._worked = max(self._worked, asked)
        self._streak += 1
        self._size = max(1, min(self._grown(), fits, self._maximum))

    def failed(self, asked: int) -> None:
        """`asked` was refused, timed out or was too large: less from now on."""
        if asked > self._size and self._ceiling is not None:
            return
        if self._remembered is not None and asked >= self._remembered // 2:
            self._patience = min(self._patience * 2, _PATIENCE_MAX)
        self._remembered = None
        self._ceiling = asked if self._ceiling is None else min(self._ceiling, asked)
        back_to_what_worked = 0 < self._worked < asked and self._worked > asked // 2
        self._size = max(1, self._worked if back_to_what_worked else asked // 2)
        self._worked = 0
        self._streak = 0

    def _grown(self) -> int:
        """Doubling until the first refusal; then by steps towards the ceiling, stopping short of it."""
        if self._ceiling is not None and self._streak >= self._patience:
            self._remembered, self._ceiling = self._ceiling, None
            return self._size + max(1, self._size // _GROWTH_PARTS)
        if self._ceiling is None:
            known = self._remembered is not None
            return self._size + max(1, self._size // _GROWTH_PARTS) if known else self._size * 2
        room = self._ceiling - self._size
        if room <= max(1, self._size // (2 * _GROWTH_PARTS)):
            return self._size
        return self._size + max(1, min(self._size // _GROWTH_PARTS, room // 2))

    def _fitting(self, asked: int, size_bytes: int, items: int) -> int:
        """How many would have met the targets."""
        fits = self._maximum
        if size_bytes > 0:
            fits = min(fits, asked * self._bytes_target // size_bytes)
        if items > 0 and self._items_target is not None:
            fits = min(fits, asked * self._items_target // items)
        return fits
