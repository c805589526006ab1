"""An HTTP/1.1 client for one address: POST over kept-alive connections, with a limit on every wait and every answer.

Some hundred lines in the place of a library, because a process that asks a local node starts 80 ms sooner without one,
and asks with a third of the CPU: TLS, proxies and cookies are loaded where they are used, and a body is received into
its place.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from gapless.errors import ConfigError
from gapless.sources.http_answer import HttpAnswer, NotHttp
from gapless.sources.http_connection import PORTS, Connection, Origin, connect, tls

IDLE_SECONDS_MAX = 15.0
"""A connection unused for longer is not trusted to be there still."""
_CLOSE_SECONDS_MAX = 0.5
_COOKIES_MAX = 32
_TUNNEL_BYTES_MAX = 1 << 16


def proxy_for(origin: Origin) -> Origin | None:
    """The proxy that `http_proxy`, `https_proxy` and `no_proxy` of the environment name for it. Raises ConfigError."""
    from urllib.request import getproxies, proxy_bypass

    url = getproxies().get("https" if origin.secure else "http")
    if not url or proxy_bypass(origin.authority):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme in PORTS and parts.hostname:
            return Origin.of(parts)
    except ValueError:  # of its port, or its host
        pass
    raise ConfigError("The proxy named in the environment is not usable", todo="Write it as http://host:port.")


class HttpClient:
    """Use within one event loop. `proxy`: through which to go there."""

    def __init__(
        self, origin: Origin, *, connect_timeout_seconds: float, connections_max: int, proxy: Origin | None = None
    ) -> None:
        self.connections = 0
        """Made so far."""
        self._origin = origin
        self._proxy = proxy
        self._connect_timeout_seconds = connect_timeout_seconds
        self._free = asyncio.Semaphore(connections_max)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._cookies: dict[str, str] = {}

    async def post(self, body: bytes, headers: str, answer_bytes_max: int, timeout_seconds: float) -> HttpAnswer:
        """The answer, whole. `headers`: lines that end in CRLF.

        Raises TimeoutError, OSError where the address cannot be reached, NotHttp, Cut, Outgrown."""
        async with asyncio.timeout(timeout_seconds), self._free:
            connection = self._idle_one() or await self._connect()
            answer = await connection.ask(self._request(body, headers) + body, HttpAnswer(answer_bytes_max))
            if answer.keeps and connection.usable:
                self._idle.append(connection)
            else:
                connection.end()
            if answer.cookies:
                self._keep_cookies(answer.cookies)
            return answer

    async def close(self) -> None:
        """End every connection, those that are used included."""
        self._idle.clear()
        ending = list(self._open)
        for connection in ending:
            connection.end()
        if ending:
            _, late = await asyncio.wait({connection.ended for connection in ending}, timeout=_CLOSE_SECONDS_MAX)
            for connection in ending if late else ():
                connection.abort()

    def _request(self, body: bytes, headers: str) -> bytes:
        origin, proxy = self._origin, self._proxy
        forwarded = proxy is not None and not origin.secure
        target = f"http://{origin.named}{origin.path}" if forwarded else origin.path
        lines = [f"POST {target} HTTP/1.1", f"Host: {origin.named}", "User-Agent: gapless"]
        lines += ["Accept-Encoding: gzip", f"Content-Length: {len(body)}"]
        if origin.login is not None:
            lines.append(f"Authorization: {origin.login}")
        if forwarded and proxy is not None and proxy.login is not None:
            lines.append(f"Proxy-Authorization: {proxy.login}")
        if self._cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self._cookies.items()))
        return ("\r\n".join(lines) + "\r\n" + headers + "\r\n").encode("latin-1")

    def _keep_cookies(self, texts: list[str]) -> None:
        """A load balancer's cookie keeps us at the replica that we know."""
        from http.cookies import CookieError, SimpleCookie

        for text in texts:
            try:
                found = SimpleCookie(text)
            except CookieError:
                continue
            for name, cookie in found.items():
                age = cookie["max-age"].strip()
                if not cookie.value or age == "0" or age.startswith("-"):
                    self._cookies.pop(name, None)
                elif name in self._cookies or len(self._cookies) < _COOKIES_MAX:
                    self._cookies[name] = cookie.coded_value

    # --- connections ------------------------------------------------------------------------------------------------

    def _idle_one(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and now - connection.used_at < IDLE_SECONDS_MAX:
                return connection
            connection.end()
        return None

    async def _connect(self) -> Connection:
        async with asyncio.timeout(self._connect_timeout_seconds):
            connection = await connect(self._proxy or self._origin, self._open)
            try:
                if self._proxy is not None and self._origin.secure:
                    await self._tunnel(connection, self._proxy)
            except BaseException:
                connection.abort()
                raise
        self.connections += 1
        return connection

    async def _tunnel(self, connection: Connection, proxy: Origin) -> None:
        """Through the proxy to the origin (RFC 9110, 9.3.6), and there TLS."""
        goal = self._origin
        login = "" if proxy.login is None else f"Proxy-Authorization: {proxy.login}\r\n"
        request = f"CONNECT {goal.authority} HTTP/1.1\r\nHost: {goal.authority}\r\n{login}\r\n"
        answer = await connection.ask(request.encode("latin-1"), HttpAnswer(_TUNNEL_BYTES_MAX, tunnel=True))
        if not 200 <= answer.status < 300:
            raise NotHttp(f"the proxy refuses: HTTP {answer.status}")
        await connection.secure(await tls(), goal.host)
