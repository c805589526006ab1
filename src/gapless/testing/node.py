"""A node to index from: a scripted chain served over real HTTP and WebSocket JSON-RPC on a free loopback port.

    chain = ScriptedChain(seed=1)
    chain.mine(100, logs=5)
    with FakeNode(chain) as node:             # a background thread; `async with` uses the running loop
        node.behave(OmitLog(), first=40, last=60)
        ...                                   # node.url, node.ws_url
        chain.reorg(3)                        # subscribers hear of it
        assert node.statistics().calls["eth_getLogs"] < 20

For several endpoints make several nodes: over one chain (they agree), or over `chain.copy()` (they may come to
differ). All controls work while the node runs, from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from aiohttp import WSMsgType, web

from gapless.clock import Clock, SystemClock
from gapless.errors import PortTaken, check
from gapless.testing.behaviour import Behaviour, Push, Response, Switch
from gapless.testing.block import ScriptedBlock
from gapless.testing.chain import ScriptedChain
from gapless.testing.dispatch import Dispatcher, NodeStatistics, notification
from gapless.testing.methods import Limits

START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 10.0
GRACE_SECONDS = 0.2
"""How long requests under way may take to end when the node stops."""
PUSH_SECONDS_MAX = 5.0
"""How long one subscriber may take a push; then its connection is dropped."""
CHANGES_KEPT_MAX = 10_000
"""Changes of the chain not pushed yet; beyond, the oldest are never pushed."""


class FakeNode:
    """One endpoint. `port` 0 takes a free one; after `stop()` a node starts again on the same."""

    def __init__(
        self, chain: ScriptedChain, *, limits: Limits | None = None, port: int = 0, clock: Clock | None = None
    ) -> None:
        self.port = port
        self._clock = clock or SystemClock()
        self._dispatcher = Dispatcher(chain, limits or Limits(), self._clock.monotonic)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._unlisten: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._server is None else self.url
        return f"<FakeNode {state}, height {self.chain.height}, {len(self._dispatcher.switches)} behaviours>"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    # --- control ---

    @property
    def chain(self) -> ScriptedChain:
        """The chain it serves. May be replaced while the node runs: it is another node from then on."""
        return self._dispatcher.chain

    @chain.setter
    def chain(self, chain: ScriptedChain) -> None:
        self._dispatcher.chain = chain
        self._listen()

    @property
    def limits(self) -> Limits:
        """What it refuses. May be replaced while the node runs."""
        return self._dispatcher.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._dispatcher.limits = limits

    def behave(
        self,
        behaviour: Behaviour,
        *,
        first: int | None = None,
        last: int | None = None,
        times: int | None = None,
        after: int = 0,
        every: int = 1,
        methods: Iterable[str] = (),
    ) -> Switch:
        """Switch a behaviour on; the switch counts how often it applied and turns it off again.

        Only for heights `first..last`, only for these methods, sparing the first `after` occasions, then every
        `every`-th, `times` in all; see Switch."""
        switch = Switch(behaviour, first, last, times, after, every, frozenset(methods))
        self._dispatcher.switches += (switch,)
        return switch

    def calm(self) -> None:
        """Switch every behaviour off."""
        for switch in self._dispatcher.switches:
            switch.off()
        self._dispatcher.switches = ()

    def statistics(self) -> NodeStatistics:
        """What it was asked and did since the start or the last reset."""
        return self._dispatcher.statistics()

    def reset_statistics(self) -> None:
        self._dispatcher.reset_statistics()

    # --- running ---

    def start(self) -> None:
        """Serve from a background thread with an event loop of its own. Raises PortTaken."""
        check(self._server is None, "the node is running already")
        ready: list[BaseException | None] = []
        started = threading.Event()

        async def serve() -> None:
            try:
                await self._open()
                ready.append(None)
            except BaseException as error:
                ready.append(error)
                raise
            finally:
                started.set()
            server = self._server
            if server is not None:
                await server.stopping.wait()
                await server.close()

        def run() -> None:
            try:
                asyncio.run(serve())
            except PortTaken:
                return  # told to the one who starts

        self._thread = threading.Thread(target=run, name="fake-node", daemon=True)
        self._thread.start()
        check(started.wait(START_SECONDS_MAX), "the node's thread did not start")
        if ready[0] is not None:
            self._thread.join(STOP_SECONDS_MAX)
            self._thread = None
            raise ready[0]

    def stop(self) -> None:
        """Stop serving; open connections are cut. Behaviours and counters stay for the next start."""
        thread, server = self._thread, self._server
        if thread is None or server is None:
            return
        self._close_listening()
        server.loop.call_soon_threadsafe(server.stopping.set)
        thread.join(STOP_SECONDS_MAX)
        check(not thread.is_alive(), "the node's thread did not end")
        self._thread = self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server = self._server
        if server is not None:
            self._close_listening()
            server.stopping.set()
            await server.close()
            self._server = None

    # --- inside ---

    async def _open(self) -> None:
        server = _Server(self._dispatcher, self._clock)
        self.port = await server.open(self.port)
        self._server = server
        self._listen()

    def _listen(self) -> None:
        self._close_listening()
        if self._server is not None:
            self._unlisten = self.chain.on_change(self._server.changed)

    def _close_listening(self) -> None:
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None


class _Server:
    """The shell: connections in, responses out, on one event loop."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        self._dispatcher = dispatcher
        self._clock = clock
        self._runner: web.ServerRunner | None = None
        self._sockets: dict[web.WebSocketResponse, tuple[web.BaseRequest, set[str]]] = {}
        self._changes: deque[list[ScriptedBlock]] = deque(maxlen=CHANGES_KEPT_MAX)
        self._changed = asyncio.Event()
        self._pusher: asyncio.Task[None] | None = None

    async def open(self, port: int) -> int:
        """Listen; the port it became. Raises PortTaken."""
        # Cancelled with its connection: a stalled request must not outlive the client that gave up on it.
        self._runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None), shutdown_timeout=GRACE_SECONDS
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortTaken(f"Port {port} cannot be listened on: {error}") from error
        self._pusher = asyncio.create_task(self._push_all())
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        if self._pusher is not None:
            self._pusher.cancel()
            await asyncio.gather(self._pusher, return_exceptions=True)
        for request, _ in list(self._sockets.values()):
            _cut(request)
        if self._runner is not None:
            await self._runner.cleanup()

    # --- HTTP ---

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_socket(request)
        if request.method != "POST":
            return web.Response(status=405, text="method not allowed")
        body = await self._read(request)
        response = self._dispatcher.too_large() if body is None else self._dispatcher.answer(body)
        return await self._send(request, response)

    async def _read(self, request: web.BaseRequest) -> bytes | None:
        """The body; None when it is beyond the limit."""
        limit = self._dispatcher.limits.request_bytes_max
        parts: list[bytes] = []
        size = 0
        async for part in request.content.iter_any():
            parts.append(part)
            size += len(part)
            if limit is not None and size > limit:
                return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _send(self, request: web.BaseRequest, response: Response) -> web.StreamResponse:
        if response.delay_seconds > 0:
            await self._clock.sleep(response.delay_seconds)
        if response.silent:
            await self.stopping.wait()
        if response.closed or response.silent:
            _cut(request)
            return web.Response()
        if response.bytes_per_second is None and response.sent_bytes is None:
            return web.Response(status=response.status, body=response.body, headers=dict(response.headers))
        stream = web.StreamResponse(status=response.status, headers=dict(response.headers))
        stream.content_length = len(response.body)
        await stream.prepare(request)
        for part, pause_seconds in _parts(response):
            if self.stopping.is_set():
                break
            await stream.write(part)
            if pause_seconds:
                await self._clock.sleep(pause_seconds)
        if response.sent_bytes is not None and request.transport is not None:
            request.transport.close()
        return stream

    # --- WebSocket ---

    async def _serve_socket(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._dispatcher.refuses_connection():
            return web.Response(status=403, text="Forbidden")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        subscriptions: set[str] = set()
        self._sockets[socket] = (request, subscriptions)
        try:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    body = message.data.encode() if isinstance(message.data, str) else message.data
                    answer = self._dispatcher.answer(body, subscriptions).body
                    if answer:
                        await socket.send_str(answer.decode())
        finally:
            del self._sockets[socket]
        return socket

    def changed(self, blocks: list[ScriptedBlock]) -> None:
        """Hear of a change of the chain; from any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._note, blocks)

    def _note(self, blocks: list[ScriptedBlock]) -> None:
        if blocks and any(subscriptions for _, subscriptions in self._sockets.values()):
            self._changes.append(blocks)
            self._changed.set()

    async def _push_all(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._changes:
                push = self._dispatcher.push(self._changes.popleft())
                for socket, (request, subscriptions) in list(self._sockets.items()):
                    if subscriptions:
                        await self._push(socket, request, sorted(subscriptions), push)

    async def _push(
        self, socket: web.WebSocketResponse, request: web.BaseRequest, subscriptions: list[str], push: Push
    ) -> None:
        try:
            async with asyncio.timeout(PUSH_SECONDS_MAX):
                for message in push.messages:
                    for name in subscriptions:
                        text = message if push.raw else notification(name, message)
                        await socket.send_str(text.decode("utf-8", "replace"))
        except (ConnectionError, TimeoutError):
            _cut(request)
        if push.closed:
            _cut(request)


def _parts(response: Response) -> Iterable[tuple[bytes, float]]:
    """The body in pieces, each with the pause after it in seconds."""
    body = response.body if response.sent_bytes is None else response.body[: response.sent_bytes]
    if response.bytes_per_second is None:
        yield body, 0.0
        return
    size = max(1, int(response.bytes_per_second / 20))
    for at in range(0, len(body), size):
        yield body[at : at + size], size / response.bytes_per_second


def _cut(request: web.BaseRequest) -> None:
    """Close a connection without a word."""
    if request.transport is not None:
        request.transport.abort()
