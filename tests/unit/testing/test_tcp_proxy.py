"""The faulty proxy does what it says, to a server that sends everything back."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from gapless.testing.tcp_proxy import Direction, Fault, TcpProxy, Trigger, Weather

SHORT_SECONDS = 0.3


class Echo:
    """Sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.heard = b""
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.heard += data
                    connection.sendall(data)
            except OSError:
                pass
            self.ended.set()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    with TcpProxy(echo.port) as proxy:
        yield proxy


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 5)


def read_all(client: socket.socket) -> bytes:
    found = b""
    try:
        while data := client.recv(65536):
            found += data
    except OSError:
        pass
    return found


def until(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bytes_pass_unchanged(proxy: TcpProxy, echo: Echo) -> None:
    """In fair weather a megabyte comes back as it went."""
    sent = bytes(range(256)) * 4096
    with connect(proxy) as client:
        threading.Thread(target=client.sendall, args=(sent,)).start()
        got = b""
        while len(got) < len(sent):
            got += client.recv(65536)
    assert got == sent
    assert echo.heard == sent


@pytest.mark.parametrize(("fault", "heard"), [(Fault.CUT_BEFORE, b"one "), (Fault.CUT_AFTER, b"one STOP")])
def test_a_connection_is_cut_exactly_before_or_after_a_pattern(
    proxy: TcpProxy, echo: Echo, fault: Fault, heard: bytes
) -> None:
    """The server has heard everything up to there, not a byte more, and the client learns that it is cut."""
    armed = proxy.arm(Trigger(b"STOP", fault))
    with connect(proxy) as client:
        client.sendall(b"one STOP two")
        assert armed.fired.wait(5)
        read_all(client)
    assert echo.ended.wait(5)
    assert echo.heard == heard
    with connect(proxy) as again:  # once only
        again.sendall(b"STOP")
        assert again.recv(16) == b"STOP"


def test_a_pattern_in_two_pieces_is_found(proxy: TcpProxy, echo: Echo) -> None:
    """Where TCP divides the stream does not matter; what is kept back never arrives whole."""
    armed = proxy.arm(Trigger(b"COMMIT", Fault.CUT_BEFORE))
    with connect(proxy) as client:
        client.sendall(b"xx COM")
        until(lambda: echo.heard == b"xx COM")
        client.sendall(b"MIT yy")
        assert armed.fired.wait(5)
    assert echo.ended.wait(5)
    assert b"COMMIT" not in echo.heard


def test_some_matches_are_spared_and_others_need_company(proxy: TcpProxy, echo: Echo) -> None:
    """`skip` counts matches; `since` wants something else before, on the same connection, since the last match."""
    third = proxy.arm(Trigger(b"C;", Fault.CUT_AFTER, skip=2))
    with connect(proxy) as client:
        client.sendall(b"C;")
        until(lambda: echo.heard == b"C;")
        client.sendall(b"C;")
        until(lambda: echo.heard == b"C;C;")
        assert not third.fired.is_set()
        client.sendall(b"C;")
        assert third.fired.wait(5)
    echo.heard = b""
    written = proxy.arm(Trigger(b"C;", Fault.CUT_AFTER, since=b"COPY"))
    with connect(proxy) as client, connect(proxy) as other:
        other.sendall(b"COPY")
        client.sendall(b"C;")
        until(lambda: b"COPY" in echo.heard and b"C;" in echo.heard)
        assert not written.fired.is_set()
        other.sendall(b"C;")
        assert written.fired.wait(5)


def test_the_nth_message_of_the_server(proxy: TcpProxy, echo: Echo) -> None:
    """An empty pattern matches each piece: here the third answer does not come."""
    armed = proxy.arm(Trigger(b"", Fault.CUT_BEFORE, Direction.TO_CLIENT, skip=2))
    with connect(proxy) as client:
        for _ in range(2):
            client.sendall(b"ask")
            assert client.recv(16) == b"ask"
        client.sendall(b"ask")
        assert read_all(client) == b""
    assert armed.count == 1


def test_silence_after_a_pattern(proxy: TcpProxy, echo: Echo) -> None:
    """Both sides stay open and hear nothing any more: half-open."""
    proxy.arm(Trigger(b"x", Fault.SILENCE_AFTER))
    with connect(proxy) as client:
        client.settimeout(SHORT_SECONDS)
        client.sendall(b"x")
        until(lambda: echo.heard == b"x")
        with pytest.raises(TimeoutError):
            client.recv(16)


def test_what_is_held_goes_on_when_let_go(proxy: TcpProxy, echo: Echo) -> None:
    """HOLD is a delay of the test's own length."""
    armed = proxy.arm(Trigger(b"x", Fault.HOLD))
    with connect(proxy) as client:
        client.sendall(b"wxy")
        assert armed.fired.wait(5)
        time.sleep(0.05)
        assert echo.heard == b"w"
        armed.let_go()
        until(lambda: echo.heard == b"wxy")


def test_weather(proxy: TcpProxy, echo: Echo) -> None:
    """Latency, a byte a time, silence that ends, and refusal, each for as long as it lasts."""
    with connect(proxy) as client:
        proxy.weather = Weather(latency_seconds=(0.1, 0.15))
        began = time.monotonic()
        client.sendall(b"late")
        assert client.recv(16) == b"late"
        assert time.monotonic() - began >= 0.2
        proxy.weather = Weather(bytes_per_second=20)
        client.sendall(b"drip")
        assert len(client.recv(16)) == 1
        proxy.weather = Weather(silent=frozenset({Direction.TO_CLIENT}))
        client.sendall(b"END")
        until(lambda: echo.heard.endswith(b"END"))
        proxy.calm()
        until(lambda: b"END" in client.recv(64))
    proxy.weather = Weather(refusing=True)
    with connect(proxy) as refused:
        assert read_all(refused) == b""
    proxy.weather = Weather(deaf=True)
    with connect(proxy) as unheard:
        unheard.settimeout(SHORT_SECONDS)
        unheard.sendall(b"hello")
        with pytest.raises(TimeoutError):
            unheard.recv(16)


def test_everybody_is_cut_reset_or_forsaken(proxy: TcpProxy) -> None:
    """An end, an RST, and nothing at all."""
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        proxy.cut()
        assert client.recv(1) == b""
    with connect(proxy) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        client.settimeout(SHORT_SECONDS)
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        proxy.forsake()
        client.sendall(b"b")
        with pytest.raises(TimeoutError):
            client.recv(1)
    until(lambda: proxy.accepted == 3)


def test_it_serves_on_the_running_loop_too(echo: Echo) -> None:
    """`async with` needs no thread, and leaves nothing behind."""

    async def scene() -> bytes:
        async with TcpProxy(echo.port) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"hello")
            answer = await reader.readexactly(5)
            proxy.cut()
            assert await reader.read() == b""
            writer.close()
            return answer

    assert asyncio.run(scene()) == b"hello"


def test_a_server_that_is_not_there_closes_the_connection(echo: Echo) -> None:
    """As if nothing listened behind."""
    echo.listener.close()
    with TcpProxy(echo.port) as proxy, connect(proxy) as client:
        assert read_all(client) == b""
