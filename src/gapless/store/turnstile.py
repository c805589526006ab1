"""A lock that is given in turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gapless.errors import StoreUnavailable


class Turnstile:
    """Who waits is next, however soon the last holder asks again: a lease is renewed between two commits."""

    def __init__(self) -> None:
        self._queue = threading.Lock()
        self._held = threading.Lock()

    @contextmanager
    def hold(self, timeout_seconds: float) -> Iterator[None]:
        """Raises StoreUnavailable when it is not to be had in time."""
        if not self._queue.acquire(timeout=timeout_seconds):
            raise _taken(timeout_seconds)
        try:
            held = self._held.acquire(timeout=timeout_seconds)
        finally:
            self._queue.release()
        if not held:
            raise _taken(timeout_seconds)
        try:
            yield
        finally:
            self._held.release()


def _taken(seconds: float) -> StoreUnavailable:
    return StoreUnavailable(
        f"Another thread of this process has used the connection for more than {seconds:g} s",
        todo="The database may be very slow; `gapless doctor` looks.",
    )
