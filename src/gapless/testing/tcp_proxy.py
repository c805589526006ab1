"""A TCP proxy that does to connections what networks do: slow, cut, reset, half-open, a byte a second, or at one byte.

    with TcpProxy(server_port) as proxy:                      # in a thread of its own; `async with` uses the loop
        connect("127.0.0.1", proxy.port)
        proxy.weather = Weather(latency_seconds=(0.0, 0.5))   # for open connections too, until it changes
        lost = proxy.arm(Trigger(COMMIT, Fault.CUT_AFTER))    # the server gets it, the client never hears
        assert lost.fired.wait(5)
        proxy.reset()                                         # RST to everybody, now

It knows nothing of what it carries: triggers are byte patterns, or pieces as they were read. All controls work from any
thread. Nothing is sent on that was not received, and, but for faults, nothing is lost or changed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from gapless.clock import Clock, SystemClock
from gapless.errors import check

COMMIT = b"COMMIT\0"
"""As psycopg's simple query protocol sends it to Postgres."""
PATTERN_BYTES_MAX = 256
START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 10.0
CONNECT_SECONDS_MAX = 5.0
_CHUNK_BYTES = 65_536
_LOOK_SECONDS = 0.02
_DRIPS_PER_SECOND = 20


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = "from client to server"
    TO_CLIENT = "from server to client"


class Fault(Enum):
    """What happens where a trigger matches."""

    CUT_BEFORE = "the match is not sent on, and both sides are closed"
    CUT_AFTER = "the match is sent on, and the client's side is closed at once; the server may still answer nobody"
    SILENCE_BEFORE = "the match is not sent on; both sides stay open and nothing passes any more"
    SILENCE_AFTER = "the match is sent on; both sides stay open and nothing else passes any more"
    HOLD = "the match waits until `Armed.let_go()`"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Breaks the connection on which `pattern` passes, exactly before or after it; once, unless `times` says more.

    An empty pattern matches every piece as it is read: with `skip=n` the n+1-th message of a protocol that answers
    before the next is asked. `since`: only if this has passed on the same connection, the same way, since the last
    match (`b"COPY "`: of the commits, those that wrote rows). A pattern split between two reads is found; the beginning
    of one that is kept back may then have passed, but never all of it."""

    pattern: bytes
    fault: Fault
    direction: Direction = Direction.TO_SERVER
    skip: int = 0
    times: int = 1
    since: bytes = b""


@dataclass(frozen=True, slots=True)
class Weather:
    """The state of the whole link."""

    latency_seconds: tuple[float, float] = (0.0, 0.0)
    """Each piece is late by something between these."""
    bytes_per_second: float | None = None
    silent: frozenset[Direction] = frozenset()
    """Nothing passes these ways while it lasts; what was sent meanwhile is delivered afterwards."""
    refusing: bool = False
    """New connections are closed at once."""
    deaf: bool = False
    """New connections are accepted, and nobody ever answers."""


@dataclass(slots=True)
class Armed:
    """A trigger at work."""

    trigger: Trigger
    fired: threading.Event = field(default_factory=threading.Event)
    count: int = 0
    """How often it struck."""
    skipped: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def spent(self) -> bool:
        return self.count >= self.trigger.times

    def let_go(self) -> None:
        """Send on what a HOLD keeps."""
        self.released.set()


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection and the one to the server made for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    dead: bool = False
    """Both sides are open and nothing passes any more."""
    since: dict[tuple[Direction, bytes], bool] = field(default_factory=dict)
    tails: dict[Direction, bytes] = field(default_factory=dict)

    def close(self, *, reset: bool = False) -> None:
        for side in (self.client, self.server):
            if side is not None:
                _close(side, reset=reset)


def _close(side: asyncio.StreamWriter, *, reset: bool) -> None:
    """At once, whatever is still to be sent."""
    if reset:
        with suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        side.transport.abort()
    else:
        side.close()


class TcpProxy:
    """Listens on a free loopback port; `port` takes the place of the server's. `target_port` may be changed."""

    def __init__(
        self, target_port: int, *, target_host: str = "127.0.0.1", port: int = 0, clock: Clock | None = None
    ) -> None:
        self.port = port
        self.target_port = target_port
        self.weather = Weather()
        self.accepted = 0
        """Connections so far."""
        self._target_host = target_host
        self._clock = clock or SystemClock()
        self._armed: tuple[Armed, ...] = ()
        self._links: set[_Link] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<TcpProxy {self.port} to {self._target_host}:{self.target_port}, {len(self._links)} connections>"

    # --- control ----------------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._links)

    def arm(self, trigger: Trigger) -> Armed:
        """Wait for a match; what matched before does not count. Several may be armed at a time; the first one wins."""
        check(len(trigger.pattern) <= PATTERN_BYTES_MAX, f"a pattern has at most {PATTERN_BYTES_MAX} bytes")
        armed = Armed(trigger)
        self._armed = (*(a for a in self._armed if not a.spent), armed)
        return armed

    def disarm(self) -> None:
        """Forget every trigger, and let go what is held."""
        armed, self._armed = self._armed, ()
        for each in armed:
            each.let_go()

    def cut(self) -> None:
        """Close every connection that is open now."""
        self._on_loop(lambda: self._close_links(reset=False))

    def reset(self) -> None:
        """Break every connection that is open now, with RST where the system lets us."""
        self._on_loop(lambda: self._close_links(reset=True))

    def forsake(self) -> None:
        """Every connection that is open now stays so, and nothing passes on it ever again: a peer that went without
        goodbye. New connections are as the weather is."""
        for link in tuple(self._links):
            link.dead = True

    def calm(self) -> None:
        """Fair weather, no triggers. Dead connections stay dead."""
        self.weather = Weather()
        self.disarm()

    def _close_links(self, *, reset: bool) -> None:
        for link in tuple(self._links):
            link.close(reset=reset)

    def _on_loop(self, work: Callable[[], None]) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            work()
            return
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        loop.call_soon_threadsafe(run)
        done.wait(STOP_SECONDS_MAX)

    # --- running ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        started = threading.Event()
        failed: list[BaseException] = []

        async def serve() -> None:
            try:
                async with self._serving() as closing:
                    started.set()
                    await closing.wait()
            except BaseException as error:
                failed.append(error)
                raise
            finally:
                started.set()

        def run() -> None:
            with suppress(OSError):  # told to the one who starts
                asyncio.run(serve())

        self._thread = threading.Thread(target=run, name="tcp-proxy", daemon=True)
        self._thread.start()
        check(started.wait(START_SECONDS_MAX), "the proxy's thread did not start")
        if failed:
            raise failed[0]
        return self

    def __exit__(self, *_: object) -> None:
        loop, closing, thread = self._loop, self._closing, self._thread
        self.disarm()
        if loop is not None and closing is not None:
            loop.call_soon_threadsafe(closing.set)
        if thread is not None:
            thread.join(STOP_SECONDS_MAX)
            check(not thread.is_alive(), "the proxy's thread did not end")

    async def __aenter__(self) -> Self:
        self._context = self._serving()
        await self._context.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.disarm()
        await self._context.__aexit__(None, None, None)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[asyncio.Event]:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._carry(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accepted, "127.0.0.1", self.port)
        self.port = int(server.sockets[0].getsockname()[1])
        try:
            yield self._closing
        finally:
            server.close()
            self._close_links(reset=False)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._clock.sleep(0)
            self._loop = None

    # --- one connection ---------------------------------------------------------------------------------------------

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer)
        self._links.add(link)
        try:
            if self.weather.refusing:
                return
            while self.weather.deaf:
                if await self._hung_up(reader):
                    return
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS_MAX):
                    answers, link.server = await asyncio.open_connection(self._target_host, self.target_port)
            if link.server is not None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(link, Direction.TO_SERVER, reader, link.server))
                    group.create_task(self._pump(link, Direction.TO_CLIENT, answers, writer))
        finally:
            link.close()
            self._links.discard(link)

    async def _hung_up(self, reader: asyncio.StreamReader) -> bool:
        await self._clock.sleep(_LOOK_SECONDS)
        return reader.at_eof() or reader.exception() is not None

    async def _pump(
        self, link: _Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass on what comes until one side ends, which ends the other."""
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if not link.dead:
                    await self._pass_on(link, direction, writer, data)
        if not link.dead:
            link.close()

    async def _pass_on(self, link: _Link, direction: Direction, writer: asyncio.StreamWriter, data: bytes) -> None:
        armed, start, end = self._matched(link, direction, data)
        if armed is None:
            await self._send(link, direction, writer, data)
            return
        fault = armed.trigger.fault
        passed = end if fault in (Fault.CUT_AFTER, Fault.SILENCE_AFTER) else start
        await self._send(link, direction, writer, data[:passed])
        link.dead = fault is not Fault.HOLD
        armed.fired.set()
        if fault is Fault.HOLD:
            while not armed.released.is_set():
                await self._clock.sleep(_LOOK_SECONDS)
            await self._send(link, direction, writer, data[start:])
        elif fault is Fault.CUT_BEFORE:
            link.close()
        elif fault is Fault.CUT_AFTER and direction is Direction.TO_SERVER and link.server is not None:
            _close(link.client, reset=False)
            with suppress(OSError):
                link.server.write_eof()
        elif fault is Fault.CUT_AFTER:
            link.close()

    def _matched(self, link: _Link, direction: Direction, data: bytes) -> tuple[Armed | None, int, int]:
        """The trigger that strikes in this piece, and where in it the match begins and ends."""
        tail = link.tails.get(direction, b"")
        link.tails[direction] = (tail + data)[-PATTERN_BYTES_MAX:]
        for armed in self._armed:
            trigger = armed.trigger
            if trigger.direction is not direction or armed.spent:
                continue
            key = (direction, trigger.since)
            if trigger.since and trigger.since in tail[len(tail) - len(trigger.since) + 1 :] + data:
                link.since[key] = True
            kept = tail[max(0, len(tail) - len(trigger.pattern) + 1) :] if trigger.pattern else b""
            place = (kept + data).find(trigger.pattern)
            if place < 0 or (trigger.since and not link.since.get(key)):
                continue
            link.since[key] = False
            if armed.skipped < trigger.skip:
                armed.skipped += 1
                continue
            armed.count += 1
            end = place + len(trigger.pattern) - len(kept) if trigger.pattern else len(data)
            return armed, max(0, place - len(kept)), end
        return None, 0, 0

    async def _send(self, link: _Link, direction: Direction, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send on as the weather has it."""
        low, high = self.weather.latency_seconds
        if high > 0:
            await self._clock.sleep(self._clock.random().uniform(low, high))
        while data:
            while direction in self.weather.silent and not link.dead:
                await self._clock.sleep(_LOOK_SECONDS)
            if link.dead:
                return
            rate = self.weather.bytes_per_second
            size = len(data) if rate is None else max(1, int(rate / _DRIPS_PER_SECOND))
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            if rate is not None:
                await self._clock.sleep(min(size / rate, 1.0))
