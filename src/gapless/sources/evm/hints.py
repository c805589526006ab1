"""Push channels: they only say that it may be time to look.

A WebSocket's `newHeads` messages are not read beyond that they are there. So a channel that is dead, silent, late or
lying can neither hold an indexer up nor mislead it: polling goes on beside it, and what is found there counts.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import msgspec

from gapless.clock import Clock
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.transport import checked_url, is_loopback, label_of

if TYPE_CHECKING:
    import aiohttp

_SUBSCRIBE = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]})
_MESSAGE_BYTES_MAX = 1 << 20
_RECONNECT_SECONDS = 0.5
_RECONNECT_SECONDS_MAX = 30.0
_CLOSE_SECONDS_MAX = 0.5
"""For the other side's goodbye; a dead one says none."""


class Hints(Protocol):
    """Something that rings when the head may have moved."""

    ring: asyncio.Event

    def start(self) -> None:
        """Begin, inside the running loop; without effect when begun."""
        ...

    async def close(self) -> None: ...


class NewHeads:
    """A `newHeads` subscription over WebSocket, renewed for ever: after an error, a close, or too long a silence."""

    def __init__(self, url: str, options: EvmOptions, clock: Clock) -> None:
        self._host = checked_url(url, ("ws", "wss")).hostname
        self._url = url
        self.label = label_of(url)
        self.ring = asyncio.Event()
        self.connections = 0
        self.rings = 0
        self.last_error: str | None = None
        self._options = options
        self._clock = clock
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"NewHeads({self.label}, {self.connections} connections, {self.rings} rings)"

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        import aiohttp

        async with aiohttp.ClientSession(trust_env=not is_loopback(self._host)) as session:
            while True:
                try:
                    await self._listen(session)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self.last_error = type(error).__name__
                self._failures += 1
                longest = min(_RECONNECT_SECONDS_MAX, _RECONNECT_SECONDS * 2.0 ** min(self._failures - 1, 16))
                await self._clock.sleep(longest * (0.5 + self._clock.random().random() / 2))

    async def _listen(self, session: aiohttp.ClientSession) -> None:
        import aiohttp

        async with asyncio.timeout(self._options.connect_timeout_seconds):
            socket = await session.ws_connect(
                self._url,
                max_msg_size=_MESSAGE_BYTES_MAX,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS_MAX),
            )
        self.connections += 1
        try:
            await socket.send_str(_SUBSCRIBE.decode())
            while True:
                message = await socket.receive(timeout=self._options.hint_silence_seconds)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    self.last_error = f"closed ({message.type.name})"
                    return
                if '"eth_subscription"' not in message.data:
                    continue
                self._failures = 0
                self.rings += 1
                self.ring.set()
        finally:
            await socket.close()
