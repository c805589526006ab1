"""Where synchronous work runs: the writing thread, the deriving thread, a reading thread, a heartbeat's thread.

One writing thread means one writing connection and commits in order. The simulation runs everything inline instead.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, Protocol, TypeVar

from gapless.clock import Clock

R = TypeVar("R")
P = ParamSpec("P")


class Offload(Protocol):
    """Runs synchronous calls without blocking the loop. Once started, a call runs to its end, also when the task
    that waits for it is cancelled: a transaction is never torn by cancellation."""

    async def write(self, call: Callable[[], R]) -> R: ...

    async def derive(self, call: Callable[[], R]) -> R: ...

    async def read(self, call: Callable[[], R]) -> R: ...

    async def close(self, timeout_seconds: float) -> bool:
        """Wait so long for what is running, and refuse what is not. False where something still runs after that."""
        ...


class Heartbeat(Protocol):
    """Calls something again and again beside the event loop, which may be frozen; when it ends, something else once."""

    def start(self) -> None: ...

    async def end(self, timeout_seconds: float) -> None:
        """End it, and wait so long for the last call."""
        ...


Heartbeats = Callable[[str, Callable[[], None], float, Callable[[], None]], Heartbeat]
"""Makes one: its name, what it calls, the seconds between two calls, and the last call."""


class ThreadHeartbeat:
    """In a thread of its own, which does not keep the process from ending."""

    def __init__(
        self, clock: Clock, name: str, beat: Callable[[], None], pause_seconds: float, last: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._beat = beat
        self._pause_seconds = pause_seconds
        self._last = last
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def end(self, timeout_seconds: float) -> None:
        self._ending.set()
        await asyncio.to_thread(self._thread.join, timeout_seconds)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._beat()
            self._clock.wait(self._ending, self._pause_seconds)
        self._last()


class Threads:
    """One thread for writing, some for deriving (one a source), a few for reading."""

    def __init__(self, derivers_max: int = 1, readers_max: int = 4) -> None:
        self._writer = _Workers("gapless-write", 1)
        self._deriver = _Workers("gapless-derive", derivers_max)
        self._readers = _Workers("gapless-read", readers_max)

    async def write(self, call: Callable[[], R]) -> R:
        return await _on(self._writer, call)

    async def derive(self, call: Callable[[], R]) -> R:
        return await _on(self._deriver, call)

    async def read(self, call: Callable[[], R]) -> R:
        return await _on(self._readers, call)

    async def close(self, timeout_seconds: float) -> bool:
        running = [f for workers in (self._deriver, self._writer, self._readers) for f in workers.end()]
        if not running:
            return True
        _, late = await asyncio.wait({asyncio.wrap_future(f) for f in running}, timeout=timeout_seconds)
        return not late


async def _on(workers: _Workers, call: Callable[[], R]) -> R:
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(workers, call))


class _Workers(Executor):
    """Threads that do not keep the process from ending: a database or a handler that hangs must not either. Ended in
    the middle of a transaction is what the commit protocol is for."""

    def __init__(self, name: str, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._ended = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError(f"{self._name} has ended")
            if len(self._open) >= len(self._threads) < self._threads_max:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._open.add(future)
        future.add_done_callback(self._done)
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def end(self) -> list[Future[Any]]:
        """Take no more calls and drop those that wait. Returns those that run."""
        with self._lock:
            self._ended = True
            waiting = list(self._open)
        for _ in self._threads:
            self._calls.put(None)
        return [f for f in waiting if not f.cancel() and not f.done()]

    def _done(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the call
                future.set_exception(error)
            del item, future, call  # an idle thread keeps no batch alive


class Inline:
    """Everything at once, on the caller: for tests and the simulation."""

    async def write(self, call: Callable[[], R]) -> R:
        return call()

    async def derive(self, call: Callable[[], R]) -> R:
        return call()

    async def read(self, call: Callable[[], R]) -> R:
        return call()

    async def close(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - nothing can be running
        return True
