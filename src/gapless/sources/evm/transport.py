"""How bytes get to an endpoint and back. Everything above speaks JSON-RPC over a `Transport` and does not care
whether it is a socket, a recording or a simulation.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, urlsplit

from gapless.errors import AnswerTooLarge, BadAnswer, ConfigError, SourceUnavailable, TimedOut

if TYPE_CHECKING:
    import aiohttp

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_READ_BUFFER_BYTES = 1 << 20
_PUBLIC_SEGMENT = re.compile(r"v\d+|[A-Za-z][a-z-]{0,15}|[A-Z]")
"""Path segments that are words. Anything else may be an access key, and stays out of labels."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    connections: int = 0
    """How many connections were made so far. When it grows, somebody else may be answering at that address."""


class Transport(Protocol):
    """A way to one endpoint."""

    label: str
    """Names the endpoint in errors, statistics and stored entries; never holds credentials."""

    async def post(self, body: bytes, timeout_seconds: float) -> Answer:
        """Send one request and return the whole answer, whatever its status.

        Raises TimedOut after `timeout_seconds`, SourceUnavailable when the endpoint cannot be reached or the
        connection breaks, BadAnswer when the body is cut short, AnswerTooLarge."""
        ...

    async def close(self) -> None: ...


def label_of(url: str) -> str:
    """Host, port and path of a URL without user, password, query, or path segments that may be keys."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    if ":" in host:
        host = f"[{host}]"
    port = f":{parts.port}" if parts.port is not None else ""
    segments = [s if _PUBLIC_SEGMENT.fullmatch(s) else "…" for s in parts.path.split("/") if s]
    return "/".join([host + port, *segments])


def checked_url(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """The URL's parts. Raises ConfigError when it cannot be one of these schemes' addresses."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ConfigError("An rpc address is not a URL", todo="Write it as http://host:port.") from error
    if not usable:
        known = " or ".join(f"{s}://" for s in schemes)
        raise ConfigError(f"The rpc address {label_of(url)!r} is not usable", todo=f"Start it with {known} and a host.")
    return parts


def is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HttpTransport:
    """JSON over HTTP POST with kept-alive connections, gzip accepted, and a bound on what is read.

    The session is made on first use, inside the running loop. Proxies from the environment serve public hosts
    only: a proxy between us and a loopback address cannot be meant."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_seconds: float = 5.0,
        connections_max: int = 16,
        answer_bytes_max: int = 256 << 20,
    ) -> None:
        self._host = checked_url(url, ("http", "https")).hostname
        self.label = label_of(url)
        self._url = url
        self._connect_timeout_seconds = connect_timeout_seconds
        self._connections_max = connections_max
        self._answer_bytes_max = answer_bytes_max
        self._session: aiohttp.ClientSession | None = None
        self._connections = 0

    def __repr__(self) -> str:
        return f"HttpTransport({self.label})"

    async def post(self, body: bytes, timeout_seconds: float) -> Answer:
        import aiohttp  # Takes as long to import as all of Gapless, and a recording needs none.

        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=self._connect_timeout_seconds)
        session = self._open()
        try:
            async with session.post(
                self._url, data=body, headers=_HEADERS, timeout=timeout, allow_redirects=False
            ) as response:
                headers = {k.lower(): v for k, v in response.headers.items()}
                return Answer(response.status, headers, await self._read(response), self._connections)
        except TimeoutError as error:
            raise TimedOut(f"{self.label} did not answer within {timeout_seconds:g} s") from error
        except aiohttp.ClientPayloadError as error:
            raise BadAnswer(f"{self.label} cut its answer short ({self._reason(error)})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise SourceUnavailable(f"{self.label} cannot be reached ({self._reason(error)})") from error

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(self._connected)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections_max),
                trust_env=not is_loopback(self._host),
                read_bufsize=_READ_BUFFER_BYTES,
                trace_configs=[trace],
            )
        return self._session

    async def _connected(self, *_: object) -> None:
        self._connections += 1

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, decompressed, unless it outgrows the bound (a length can be missing, or lie)."""
        chunks: list[bytes] = []
        size = 0
        announced = response.content_length or 0
        while announced <= self._answer_bytes_max and size <= self._answer_bytes_max:
            chunk = await response.content.readany()
            if not chunk:
                return b"".join(chunks)
            size += len(chunk)
            chunks.append(chunk)
        response.close()
        raise AnswerTooLarge(
            f"{self.label} answers with at least {max(size, announced):,} bytes; "
            f"{self._answer_bytes_max:,} are read at most"
        )

    def _reason(self, error: BaseException) -> str:
        """The first line of an error, which for some libraries is empty and for some holds the whole URL."""
        lines = str(error).replace(self._url, self.label).strip().splitlines()
        return lines[0][:200] if lines else type(error).__name__
