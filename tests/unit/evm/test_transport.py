"""The way to an endpoint: what arrives, and what goes wrong on it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gapless.errors import AnswerTooLarge, BadAnswer, SourceUnavailable, TimedOut
from gapless.sources.evm.transport import Answer, HttpTransport

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler, path: str = "", **options: Any) -> AsyncIterator[HttpTransport]:
    runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    transport = HttpTransport(f"http://127.0.0.1:{runner.addresses[0][1]}{path}", **options)
    try:
        yield transport
    finally:
        await transport.close()
        await runner.cleanup()


def post(handler: Handler, timeout_seconds: float = 5.0, **options: Any) -> Answer:
    async def main() -> Answer:
        async with served(handler, **options) as transport:
            return await transport.post(b'{"a":1}', timeout_seconds)

    return asyncio.run(main())


def test_the_body_arrives_whole_with_status_and_headers() -> None:
    """Header names are lower-case; any status is an answer."""

    async def handler(request: web.BaseRequest) -> web.Response:
        assert await request.read() == b'{"a":1}'
        assert request.headers["Content-Type"] == "application/json"
        return web.Response(status=429, body=b"x" * 3_000_000, headers={"Retry-After": "3"})

    answer = post(handler)
    assert (answer.status, len(answer.body), answer.headers["retry-after"]) == (429, 3_000_000, "3")


def test_compressed_answers_are_taken() -> None:
    """Large answers of hex text shrink a lot on their way."""

    async def handler(request: web.BaseRequest) -> web.Response:
        assert "gzip" in request.headers["Accept-Encoding"]
        return web.Response(body=gzip.compress(b"0" * 1000), headers={"Content-Encoding": "gzip"})

    assert post(handler).body == b"0" * 1000


@pytest.mark.parametrize("compressed", [False, True])
def test_a_larger_answer_than_allowed_is_not_read_to_its_end(compressed: bool) -> None:
    """By its announced length, or while it comes: also when it unpacks to more than it was."""

    async def handler(request: web.BaseRequest) -> web.Response:
        body = b"0" * 5_000_000
        headers = {"Content-Encoding": "gzip"} if compressed else {}
        return web.Response(body=gzip.compress(body) if compressed else body, headers=headers)

    with pytest.raises(AnswerTooLarge, match="1,000,000"):
        post(handler, answer_bytes_max=1_000_000)


def test_silence_ends_after_the_timeout() -> None:
    """The error names the endpoint and how long was waited."""

    async def handler(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    with pytest.raises(TimedOut, match=r"127\.0\.0\.1:\d+ did not answer within 0\.1 s"):
        post(handler, 0.1)


def test_a_body_cut_short_is_a_bad_answer() -> None:
    """The connection ended before the announced length."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"0" * 10)
        assert request.transport is not None
        request.transport.abort()
        return response

    with pytest.raises((BadAnswer, SourceUnavailable)):
        post(handler)


def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    """Refused connections and unknown hosts name the endpoint, not the key in its URL."""

    async def main() -> None:
        transport = HttpTransport("http://127.0.0.1:9/0123456789abcdef0123?key=secret")
        with pytest.raises(SourceUnavailable) as caught:
            await transport.post(b"", 2.0)
        await transport.close()
        assert "127.0.0.1:9/…" in caught.value.what
        assert "0123456789" not in caught.value.what
        assert "secret" not in caught.value.what

    asyncio.run(main())


def test_redirects_are_not_followed() -> None:
    """A POST turned into a GET by a redirect asks something else."""

    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"})

    assert post(handler).status == 302


def test_connections_are_kept() -> None:
    """A hundred requests do not make a hundred connections."""
    peers: set[Any] = set()

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=b"{}")

    async def main() -> None:
        async with served(handler, connections_max=4) as transport:
            await asyncio.gather(*(transport.post(b"", 5.0) for _ in range(100)))

    asyncio.run(main())
    assert len(peers) <= 4


def test_the_environment_s_proxy_is_not_used_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy between us and a local node cannot be meant."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(body=b"{}")

    assert post(handler).status == 200


def test_closing_twice_or_before_use_is_fine() -> None:
    """Nothing is left open."""

    async def main() -> None:
        transport = HttpTransport("http://127.0.0.1:9")
        await transport.close()
        await transport.close()

    asyncio.run(main())
