"""Connections to one place: TCP or TLS, through whichever of its addresses answers, one request at a time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from ipaddress import ip_address
from itertools import zip_longest
from typing import cast
from urllib.parse import SplitResult, quote, unquote

from gapless.sources.http_answer import HttpAnswer

_FALLBACK_SECONDS = 0.25
"""After which the next of several addresses is tried beside the first (RFC 8305)."""
_SCRATCH_BYTES = 1 << 16
"""For heads, and for bodies that do not go straight to their place."""
_PATH_SAFE = "/%:@!$&'()*+,;=-._~?"
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a URL points."""

    secure: bool
    host: str
    port: int
    path: str
    """With the query."""
    login: str | None
    """`Basic …`, where the URL holds user and password."""

    @classmethod
    def of(cls, parts: SplitResult) -> Origin:
        """Raises UnicodeError for a host that cannot be one."""
        host = (parts.hostname or "").encode("idna" if not (parts.hostname or "").isascii() else "ascii").decode()
        path = quote(parts.path or "/", safe=_PATH_SAFE)
        if parts.query:
            path += "?" + quote(parts.query, safe=_PATH_SAFE)
        login = None
        if parts.username is not None:
            words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = "Basic " + b64encode(words.encode()).decode()
        return cls(parts.scheme == "https", host, parts.port or PORTS[parts.scheme], path, login)

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def named(self) -> str:
        """For the Host header: the port only where it is not the scheme's."""
        usual = self.port == PORTS["https" if self.secure else "http"]
        return self.authority.removesuffix(f":{self.port}") if usual else self.authority


async def tls() -> ssl.SSLContext:
    """What to check servers by: the system's certificates, read once."""
    return await asyncio.to_thread(_tls)


@cache
def _tls() -> ssl.SSLContext:
    """Reads the system's certificates."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def connect(goal: Origin, open_: set[Connection]) -> Connection:
    """To the first of its addresses that answers; the next is tried when one fails, and beside one that is slow. Kept
    in `open_` while it lasts. Raises OSError."""
    context = await tls() if goal.secure else None
    tries: list[asyncio.Task[Connection]] = []
    try:
        for address in await _addresses(goal):
            tries.append(asyncio.create_task(_try(address, goal, open_, context)))
            if (made := await _first(tries, _FALLBACK_SECONDS)) is not None:
                return made
        if (made := await _first(tries, None)) is not None:
            return made
    finally:
        await _forget(tries)
    errors = [error for each in tries if (error := each.exception()) is not None]
    raise errors[0] if errors else OSError(f"{goal.host} has no address")


async def _try(address: str, goal: Origin, open_: set[Connection], context: ssl.SSLContext | None) -> Connection:
    connection = Connection(open_)
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            address,
            goal.port,
            ssl=context,
            server_hostname=None if context is None else goal.host,
        )
    except BaseException:
        connection.abort()
        raise
    return connection


async def _addresses(goal: Origin) -> list[str]:
    """The families in turn (RFC 8305, 4): where one of them leads nowhere, the next address is of the other."""
    with suppress(ValueError):
        return [str(ip_address(goal.host))]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(goal.host, goal.port, type=socket.SOCK_STREAM)
    families: dict[int, list[str]] = {}
    for family, _, _, _, place in found:
        families.setdefault(family, []).append(str(place[0]))
    return [place for row in zip_longest(*families.values()) for place in row if place is not None]


async def _first(tries: list[asyncio.Task[Connection]], timeout_seconds: float | None) -> Connection | None:
    """The connection of the first that succeeds; None when the time is over, or the last of them has failed."""
    pending = {each for each in tries if not each.done()}
    if pending:
        await asyncio.wait(pending, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    for each in tries:
        if each.done() and not each.cancelled() and each.exception() is None:
            tries.remove(each)
            return each.result()
    if timeout_seconds is None and any(not each.done() for each in tries):
        return await _first(tries, None)
    return None


async def _forget(tries: list[asyncio.Task[Connection]]) -> None:
    """End what is still being tried, or came second."""
    for each in tries:
        each.cancel()
    for late in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(late, Connection):
            late.abort()


class Connection(asyncio.BufferedProtocol):
    """One connection; one request at a time."""

    def __init__(self, open_: set[Connection]) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.used_at = 0.0
        self._loop = loop
        self._all = open_
        self._transport: asyncio.Transport | None = None
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._direct: memoryview | None = None
        """The room of the answer that was given to the loop last."""
        self._answer: HttpAnswer | None = None
        self._waiting: asyncio.Future[HttpAnswer] | None = None

    @property
    def usable(self) -> bool:
        """Nothing of the last exchange is left over, and neither side has said goodbye."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and transport.get_write_buffer_size() == 0

    async def ask(self, request: bytes, answer: HttpAnswer) -> HttpAnswer:
        """Send it, and return the answer when it is whole."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection was closed")
        self._answer, self._waiting = answer, self._loop.create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        finally:
            self.used_at = self._loop.time()
            self._answer = self._waiting = None
            if not answer.done:
                self.abort()

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Go on inside TLS."""
        if self._transport is None:
            raise ConnectionResetError("the connection was closed")
        made = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        if made is None:
            raise ConnectionResetError("the connection was closed")
        self._transport = made

    def end(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- called by the event loop -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._all.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - a body has its own idea of its size
        self._direct = None if self._answer is None else self._answer.room
        return self._scratch if self._direct is None else self._direct

    def buffer_updated(self, nbytes: int) -> None:
        if self._answer is None:
            self.abort()  # Nobody asked.
        elif self._direct is None:
            self._settle(partial(self._answer.feed, bytes(self._scratch[:nbytes])))
        else:
            self._direct = None
            self._settle(partial(self._answer.filled, nbytes))

    def connection_lost(self, error: Exception | None) -> None:
        self._all.discard(self)
        if not self.ended.done():
            self.ended.set_result(None)
        if self._answer is not None:
            self._settle(self._answer.end, error)

    def _settle(self, step: Callable[[], None], lost: Exception | None = None) -> None:
        """Take the answer a step on, and tell who waits when that was the last."""
        answer, waiting = self._answer, self._waiting
        if answer is None or waiting is None or waiting.done():
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the answer
            error.__cause__ = lost
            waiting.set_exception(error)
        else:
            if answer.done:
                waiting.set_result(answer)
