"""Leadership: a lease row with a fencing token, kept by a thread that does not outlive a frozen loop.

The lease only decides who tries; safety is the token, which every commit checks inside its transaction. The rules,
each paid for by somebody (research: elector of river, agno, tomcounsell/ai):

- the thread renews only while the event loop's tick is younger than a third of the lease, so a frozen loop loses
  the lease although its thread is alive, and a blocked loop's work does not starve the renewal;
- trust lasts from the moment *before* the renewal was sent, for the lease's length less a margin, on the monotonic
  clock: a slow answer never makes two leaders;
- release on shutdown has its own bound and is not cancelled with the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import structlog

from gapless.clock import Clock
from gapless.engine.offload import Heartbeat, Heartbeats, ThreadHeartbeat
from gapless.errors import InvariantViolation, LeaseLost
from gapless.model import Fence
from gapless.store import LeaseStore

_RENEWALS_PER_LEASE = 3
_MARGIN_SHARE = 0.1
"""Share of the lease given up as a margin for clock drift between this machine and the database."""

R = TypeVar("R")

log = structlog.get_logger("gapless.lease")


def holder_name() -> str:
    """Who holds a lease: host and process. The host's name is followed by a mark of where process numbers mean what
    they mean here: two machines, or two containers on one machine, may share a name, and then `host:57` is two."""
    mark = _process_space()
    return f"{socket.gethostname()}{'-' + mark if mark else ''}:{os.getpid()}"


@cache
def _process_space() -> str:
    """The running kernel and this process's number space on it, in short; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - the link's text is the answer
    except OSError:
        return ""
    return hashlib.sha256(space.encode()).hexdigest()[:6]


def take(store: LeaseStore, name: str, holder: str, ttl_seconds: float) -> Fence | None:
    """Acquire a lease that is free, expired, or left behind by a process of this host that is gone: a restart after a
    crash need not wait for the old lease to run out. Should the guess be wrong, the token still keeps writes apart."""
    fence = store.acquire(name, holder, ttl_seconds)
    if fence is not None:
        return fence
    for lease in store.leases():
        if lease.name == name and _is_gone(lease.holder, holder):
            store.release(Fence(name, lease.holder, lease.token))
            return store.acquire(name, holder, ttl_seconds)
    return None


def _is_gone(holder: str, asker: str) -> bool:
    """Whether the holder is a process of the asker's host that has ended."""
    host, _, process = holder.rpartition(":")
    if holder == asker or host != asker.rpartition(":")[0] or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


class LeaseKeeper:
    """Takes, keeps and gives up the lease of one source. `start` and `stop` are called on the loop."""

    def __init__(
        self,
        store: LeaseStore,
        name: str,
        holder: str,
        ttl_seconds: float,
        clock: Clock,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._store = store
        self.name = name
        self.holder = holder
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._heartbeats = heartbeats or partial(ThreadHeartbeat, clock)
        self._lock = threading.Lock()
        self._fence: Fence | None = None
        self._trusted_until = 0.0
        self._tick = clock.monotonic()
        self._changed: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heartbeat: Heartbeat | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._leader = ""
        """Who is waited for, as last said."""
        self.last_error: Exception | None = None
        """Why the store could not be asked last time; None when it could."""

    def __repr__(self) -> str:
        return f"<LeaseKeeper {self.name} holder={self.holder} fence={self.fence and self.fence.token}>"

    @property
    def fence(self) -> Fence | None:
        """The fence while it may be trusted; None otherwise."""
        with self._lock:
            return self._fence if self._clock.monotonic() < self._trusted_until else None

    def require(self) -> Fence:
        """The fence, or LeaseLost."""
        fence = self.fence
        if fence is None:
            raise LeaseLost(f"The lease {self.name!r} is not held any more", todo="Waiting to take it again.")
        return fence

    def refused(self, fence: Fence) -> None:
        """The store refused a fence. While it is trusted here, somebody has led since the last renewal: it is not
        trusted any more, and the thread looks for a new one in its own time. So a refused leader does not try again
        at once, and again. Where trust had run out by itself, the lease may still be ours."""
        with self._lock:
            if self._fence == fence and self._clock.monotonic() < self._trusted_until:
                self._fence = None
                self._trusted_until = 0.0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._tick = self._clock.monotonic()
        self._ticker = asyncio.create_task(self._keep_ticking(), name=f"tick {self.name}")
        pause_seconds = self._ttl_seconds / _RENEWALS_PER_LEASE
        self._heartbeat = self._heartbeats(f"lease {self.name}", self._attempt, pause_seconds, self._give_up)
        self._heartbeat.start()

    def try_take(self) -> Fence | None:
        """Take the lease now or not at all; raises StoreError. Before `start`."""
        started = self._clock.monotonic()
        fence = take(self._store, self.name, self.holder, self._ttl_seconds)
        if fence is not None:
            self._set(fence, started + self._ttl_seconds * (1 - _MARGIN_SHARE))
        return fence

    async def wait_held(self) -> Fence:
        """Wait until this process leads."""
        if self._changed is None:
            raise InvariantViolation("wait_held() before start()")
        changed = self._changed
        while True:
            changed.clear()
            fence = self.fence
            if fence is not None:
                return fence
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ttl_seconds):
                    await changed.wait()

    async def stop(self, timeout_seconds: float = 10.0) -> None:
        """Stop renewing and give the lease up, so that a standby need not wait for it to expire. Where the store does
        not answer in time the lease runs out by itself."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._heartbeat is not None:
            await self._heartbeat.end(timeout_seconds)

    # --- the loop's side --------------------------------------------------------------------------------------------

    async def _keep_ticking(self) -> None:
        while True:
            self._tick = self._clock.monotonic()
            await self._clock.sleep(self._ttl_seconds / 10)

    # --- the heartbeat's side ---------------------------------------------------------------------------------------

    def _give_up(self) -> None:
        fence = self._fence
        self._set(None, 0.0)
        if fence is not None:
            self._guarded(lambda: self._store.release(fence))

    def _attempt(self) -> None:
        if self._clock.monotonic() - self._tick > self._ttl_seconds / _RENEWALS_PER_LEASE:
            return  # The loop is frozen: let the lease run out, so that a healthy process can take over.
        started = self._clock.monotonic()
        trusted_until = started + self._ttl_seconds * (1 - _MARGIN_SHARE)
        fence = self._fence
        if fence is not None:
            renewed = self._guarded(lambda: self._store.renew(fence, self._ttl_seconds))
            if renewed:
                self._set(fence, trusted_until)
            elif renewed is False:
                log.warning("lease lost", lease=self.name, token=fence.token)
                self._set(None, 0.0)
            return
        taken = self._guarded(lambda: take(self._store, self.name, self.holder, self._ttl_seconds))
        if taken is not None:
            log.info("lease taken", lease=self.name, token=taken.token)
            self._leader = ""
            self._set(taken, trusted_until)
        elif self.last_error is None:
            self._name_leader()

    def _name_leader(self) -> None:
        """Say whom this process stands by for, once for each."""
        live = self._guarded(lambda: [e.holder for e in self._store.leases() if e.name == self.name and e.live])
        if live and live[0] != self._leader:
            self._leader = live[0]
            log.info("standby", lease=self.name, leader=self._leader)

    def _guarded(self, call: Callable[[], R]) -> R | None:
        """The call's answer; None when the store did not answer, which changes nothing: trust runs out by itself.
        Whatever it raised, the thread goes on: without it nobody would renew, nor ever take the lease again."""
        try:
            answer = call()
        except Exception as error:  # noqa: BLE001 - see above
            self.last_error = error
            log.warning("lease not reached", lease=self.name, reason=str(error))
            return None
        self.last_error = None
        return answer

    def _set(self, fence: Fence | None, trusted_until: float) -> None:
        with self._lock:
            regained = fence is not None and self._clock.monotonic() >= self._trusted_until
            changed = fence != self._fence or regained
            self._fence = fence
            self._trusted_until = trusted_until
        if changed and self._loop is not None and self._changed is not None:
            try:
                self._loop.call_soon_threadsafe(self._changed.set)
            except RuntimeError:
                return  # The loop is closed: nobody waits any more.
