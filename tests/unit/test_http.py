"""The HTTP client: connections kept, ended and replaced; proxies, TLS, logins and cookies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gapless.errors import ConfigError
from gapless.sources import http_connection
from gapless.sources.http import HttpClient, proxy_for
from gapless.sources.http_answer import Cut, NotHttp
from gapless.sources.http_connection import Origin

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The other side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> str:
        """The next request's head; its body is read and dropped. Raises IncompleteReadError where none comes."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = [line for line in head.splitlines() if line.lower().startswith("content-length:")]
        await self.reader.readexactly(int(length[0].split(":")[1]) if length else 0)
        return head

    async def answer(self, data: bytes = OK) -> None:
        self.writer.write(data)
        await self.writer.drain()


class Place:
    """A server that follows a script on each connection."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Place:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def polite(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer()


def client(url: str, **options: Any) -> HttpClient:
    options = {"connect_timeout_seconds": 5.0, "connections_max": 2, **options}
    return HttpClient(Origin.of(urlsplit(url)), **options)


async def ask(to: HttpClient, timeout_seconds: float = 5.0) -> Any:
    return await to.post(b'{"a":1}', "Content-Type: application/json\r\n", 1 << 20, timeout_seconds)


def test_what_is_sent() -> None:
    """Path and query as in the address, quoted where needed; the login of the address; no port but an unusual one."""
    heads: list[str] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.request())
        await peer.answer()

    async def main() -> None:
        async with Place(script) as place:
            to = client(f"http://us%40er:p:w@127.0.0.1:{place.port}/v3/a b/é?key=1&x=%20#part")
            assert (await ask(to)).status == 200
            await to.close()
            assert f"Host: 127.0.0.1:{place.port}\r\n" in heads[0]

    asyncio.run(main())
    assert heads[0].startswith("POST /v3/a%20b/%C3%A9?key=1&x=%20 HTTP/1.1\r\n")
    assert "Authorization: Basic dXNAZXI6cDp3\r\n" in heads[0]
    assert "Content-Length: 7\r\n" in heads[0]
    assert Origin.of(urlsplit("https://node:443/x")).named == "node"
    assert Origin.of(urlsplit("http://[::1]:8545")).named == "[::1]:8545"


def test_connections_are_used_again_one_request_at_a_time() -> None:
    """Never more than allowed, however many ask; one is enough where nobody asks at the same time."""

    async def main() -> None:
        async with Place(polite) as place:
            to = client(f"http://127.0.0.1:{place.port}")
            for _ in range(5):
                await ask(to)
            assert (place.connections, to.connections) == (1, 1)
            await asyncio.gather(*(ask(to) for _ in range(20)))
            assert (place.connections, to.connections) == (2, 2)
            await to.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "first", [OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK + b"x", b"HTTP/1.1 200 OK\r\n\r\n{}"]
)
def test_a_spoiled_connection_is_replaced(first: bytes) -> None:
    """After goodbye, or bytes nobody asked for, the next request goes over a new connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(first)
        if not first.startswith(OK):
            return
        await peer.request()

    async def main() -> None:
        async with Place(script) as place:
            to = client(f"http://127.0.0.1:{place.port}")
            assert [(await ask(to)).body for _ in range(3)] == [b"{}"] * 3
            assert place.connections == to.connections == 3
            await to.close()

    asyncio.run(main())


def test_bytes_between_requests_are_no_answer() -> None:
    """What a server sends unasked is not taken for the answer to the next request."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.answer(OK.replace(b"{}", b"[]"))
        await peer.request()
        await peer.answer()

    async def main() -> None:
        async with Place(script) as place:
            to = client(f"http://127.0.0.1:{place.port}")
            await ask(to)
            await asyncio.sleep(0.05)
            assert (await ask(to)).body == b"{}"
            assert place.connections == 2
            await to.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Le", NotHttp),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", Cut),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", Cut),
    ],
)
def test_an_answer_that_ends_early_is_an_error(sent: bytes, error: type[Exception]) -> None:
    """Before its head is there, or before its body is; and the next request has a connection of its own."""
    sends = [sent, OK]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(sends.pop(0))

    async def main() -> None:
        async with Place(script) as place:
            to = client(f"http://127.0.0.1:{place.port}")
            with pytest.raises(error):
                await ask(to)
            assert (await ask(to)).body == b"{}"
            await to.close()

    asyncio.run(main())


def test_a_late_answer_is_not_the_next_request_s() -> None:
    """A request given up takes its connection with it; its place is free again."""
    waits = [10.0, 0.0]

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(waits.pop(0))
        await peer.answer()

    async def main() -> None:
        async with Place(script) as place:
            to = client(f"http://127.0.0.1:{place.port}", connections_max=1)
            with pytest.raises(TimeoutError):
                await ask(to, 0.1)
            assert (await ask(to)).body == b"{}"
            assert to.connections == 2
            await to.close()

    asyncio.run(main())


def test_closing_ends_what_is_under_way() -> None:
    """Nobody waits for an answer that cannot come any more."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(10)

    async def main() -> None:
        async with Place(script) as place:
            to = client(f"http://127.0.0.1:{place.port}")
            waiting = asyncio.create_task(ask(to))
            while not place.connections:
                await asyncio.sleep(0.01)
            await to.close()
            with pytest.raises(NotHttp):
                await waiting

    asyncio.run(main())


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose first address refuses, or is silent, is reached by its second."""

    async def main(first: str) -> None:
        async def two(*_: object, **__: object) -> list[Any]:
            return [(0, 0, 0, "", (first, 0)), (1, 0, 0, "", ("127.0.0.1", 0))]

        async with Place(polite) as place:
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
            to = client(f"http://two.example:{place.port}", connect_timeout_seconds=2.0)
            monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", slow(asyncio.get_running_loop()))
            assert (await ask(to)).status == 200
            await to.close()

    def slow(loop: Any) -> Any:
        reach = type(loop).sock_connect

        async def connect(sock: Any, address: Any) -> None:
            if address[0] == "192.0.2.1":
                await asyncio.sleep(60)
            await reach(loop, sock, address)

        return connect

    for first in ("127.0.0.2", "192.0.2.1"):
        asyncio.run(main(first))


def test_nobody_there_is_an_os_error() -> None:
    """Refused, unknown, or without any address."""

    async def main() -> None:
        with pytest.raises(OSError, match=r"refused|111"):
            await ask(client("http://127.0.0.1:9"))
        with pytest.raises(OSError, match=r"[a-z]"):
            await ask(client("http://no-such-host.invalid:9"))

    asyncio.run(main())


def test_cookies_go_back() -> None:
    """A load balancer knows us again; a cookie it takes back is dropped."""
    heads: list[str] = []
    cookies = [["a=1; Path=/; HttpOnly", "b=2; Max-Age=60", "c\x00=="], ["a=gone; Max-Age=0", "b=3"], []]

    async def script(peer: Peer) -> None:
        for each in cookies:
            heads.append(await peer.request())
            fields = "".join(f"Set-Cookie: {cookie}\r\n" for cookie in each)
            await peer.answer(f"HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\n{{}}".encode("latin-1"))

    async def main() -> None:
        async with Place(script) as place:
            to = client(f"http://127.0.0.1:{place.port}")
            for _ in cookies:
                await ask(to)
            await to.close()

    asyncio.run(main())
    assert "Cookie:" not in heads[0]
    assert "Cookie: a=1; b=2\r\n" in heads[1]
    assert "Cookie: b=3\r\n" in heads[2]


# --- proxies and TLS -----------------------------------------------------------------------------------------------


def test_which_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the environment says, for the scheme, unless the host is excepted."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    plain, secure = Origin.of(urlsplit("http://node.example")), Origin.of(urlsplit("https://node.example"))
    assert proxy_for(plain) is None
    monkeypatch.setenv("https_proxy", "http://user:word@proxy:3128")
    monkeypatch.setenv("http_proxy", "other:80")
    found = proxy_for(secure)
    assert found is not None
    assert (found.authority, found.login) == ("proxy:3128", "Basic dXNlcjp3b3Jk")
    assert proxy_for(plain) == Origin(False, "other", 80, "/", None)
    monkeypatch.setenv("no_proxy", "localhost,.example")
    assert proxy_for(secure) is None
    monkeypatch.setenv("no_proxy", "")
    for broken in ("socks5://proxy:1", "http://proxy:port", "http://"):
        monkeypatch.setenv("http_proxy", broken)
        with pytest.raises(ConfigError, match="proxy"):
            proxy_for(plain)


def test_a_plain_request_through_a_proxy() -> None:
    """It names the whole address, and shows the proxy's login to the proxy."""
    heads: list[str] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.request())
        await peer.answer()

    async def main() -> None:
        async with Place(script) as place:
            proxy = Origin.of(urlsplit(f"http://u:p@127.0.0.1:{place.port}"))
            to = client("http://node.example/rpc", proxy=proxy)
            assert (await ask(to)).status == 200
            await to.close()

    asyncio.run(main())
    assert heads[0].startswith("POST http://node.example/rpc HTTP/1.1\r\nHost: node.example\r\n")
    assert "Proxy-Authorization: Basic dTpw\r\n" in heads[0]


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context for `node.example`, whose certificate the client believes."""
    x509 = pytest.importorskip("cryptography.x509", reason="a certificate is made with cryptography")
    from datetime import UTC, datetime, timedelta

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node.example")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("node.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    trusting = ssl.create_default_context(cafile=str(file))
    monkeypatch.setattr(http_connection, "_tls", lambda: trusting)
    return server


def test_tls(contexts: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate must be of the host that was asked for."""

    async def here(*_: object, **__: object) -> list[Any]:
        return [(0, 0, 0, "", ("127.0.0.1", 0))]

    async def main() -> None:
        async with Place(polite, contexts) as place:
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", here)
            to = client(f"https://node.example:{place.port}")
            assert [(await ask(to)).body for _ in range(3)] == [b"{}"] * 3
            assert to.connections == 1
            await to.close()
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(client(f"https://other.example:{place.port}"))

    asyncio.run(main())


def test_tls_through_a_proxy(contexts: ssl.SSLContext) -> None:
    """A tunnel is asked for, and inside it the origin is spoken to; where the proxy refuses, that is said."""
    heads: list[str] = []

    async def main() -> None:
        async def tunnel(peer: Peer) -> None:
            heads.append(await peer.request())
            await peer.answer(b"HTTP/1.1 200 Connection established\r\n\r\n")
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
            await asyncio.gather(carry(peer.reader, writer), carry(reader, peer.writer))

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1000):
                writer.write(data)
            writer.close()

        async def refuse(peer: Peer) -> None:
            await peer.request()
            await peer.answer(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

        async with Place(polite, contexts) as place, Place(tunnel) as proxy, Place(refuse) as unkind:
            through = Origin.of(urlsplit(f"http://u:p@127.0.0.1:{proxy.port}"))
            to = client("https://node.example/rpc", proxy=through)
            assert [(await ask(to)).body for _ in range(3)] == [b"{}"] * 3
            assert to.connections == proxy.connections == 1
            await to.close()
            to = client("https://node.example", proxy=Origin.of(urlsplit(f"http://127.0.0.1:{unkind.port}")))
            with pytest.raises(NotHttp, match="407"):
                await ask(to)
            await to.close()

    asyncio.run(main())
    assert heads == [
        "CONNECT node.example:443 HTTP/1.1\r\nHost: node.example:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
    ]
