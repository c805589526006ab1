"""A TCP proxy that breaks connections at chosen bytes: for what networks do to a COMMIT.

with FaultyProxy(server.port) as proxy:
    proxy.arm(COMMIT, Fault.CUT_AFTER)       # the server gets it, the client never hears
    store.commit(...)
    assert proxy.fired.wait(1)
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum

COMMIT = b"COMMIT\0"
"""As the simple query protocol of Postgres sends it."""
_CHUNK_BYTES = 65_536
_TRIGGER_BYTES_MAX = 256
_CONNECT_SECONDS_MAX = 5.0


class Fault(Enum):
    """What happens when the armed bytes pass from client to server."""

    CUT_BEFORE = "they are not sent on, and both sides are closed"
    CUT_AFTER = "they are sent on, and the client's side is closed; the server is left alone until it has answered"
    SILENCE_BEFORE = "they are not sent on; both sides stay open and nothing passes any more"
    SILENCE_AFTER = "they are sent on; both sides stay open and no answer passes any more"
    DELAY = "they are sent on when `let_go` is called"


class _Pair:
    """One client's connection and the one to the server made for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.silent = threading.Event()

    def close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class FaultyProxy:
    """Listens on a free loopback port; `port` takes the place of the server's."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.fired = threading.Event()
        self._go = threading.Event()
        self._armed: tuple[bytes, Fault] | None = None
        self._refusing = False
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> FaultyProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def arm(self, trigger: bytes, fault: Fault) -> None:
        """Break the next connection on which the client sends `trigger` (up to 256 bytes); once."""
        with self._lock:
            self.fired.clear()
            self._go.clear()
            self._armed = (trigger, fault)

    def let_go(self) -> None:
        """Send on what a `DELAY` holds back."""
        self._go.set()

    def refuse(self, refusing: bool = True) -> None:
        """Close new connections at once, as if nothing listened behind."""
        self._refusing = refusing

    def cut(self) -> None:
        """Close every connection that is open now."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    # --- the threads ------------------------------------------------------------------------------------------------

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._refusing:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self._target_port), _CONNECT_SECONDS_MAX)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.append(pair)
            self._start(self._to_server, pair)
            self._start(self._to_client, pair)

    def _to_server(self, pair: _Pair) -> None:
        with suppress(OSError):
            tail = b""
            while data := pair.client.recv(_CHUNK_BYTES):
                fault = self._triggered(tail, data)
                tail = (tail + data)[-_TRIGGER_BYTES_MAX:]
                if fault is not None and not self._apply(fault, pair, data):
                    return
                if fault is None and not pair.silent.is_set():
                    pair.server.sendall(data)
        if not pair.silent.is_set():
            pair.close()

    def _triggered(self, tail: bytes, data: bytes) -> Fault | None:
        """The trigger may be split between two reads; one that passed before it was armed does not count."""
        with self._lock:
            if self._armed is None:
                return None
            trigger, fault = self._armed
            if trigger not in tail[len(tail) - len(trigger) + 1 :] + data:
                return None
            self._armed = None
            return fault

    def _apply(self, fault: Fault, pair: _Pair, data: bytes) -> bool:
        """Whether the connection goes on."""
        if fault is Fault.DELAY:
            self.fired.set()
            self._go.wait(60)
            pair.server.sendall(data)
            return True
        pair.silent.set()
        if fault in (Fault.CUT_AFTER, Fault.SILENCE_AFTER):
            pair.server.sendall(data)
        self.fired.set()
        if fault is Fault.CUT_BEFORE:
            pair.close()
        if fault is Fault.CUT_AFTER:
            with suppress(OSError):
                pair.client.shutdown(socket.SHUT_RDWR)
        return False

    def _to_client(self, pair: _Pair) -> None:
        with suppress(OSError):
            while data := pair.server.recv(_CHUNK_BYTES):
                if not pair.silent.is_set():
                    pair.client.sendall(data)
        if not pair.silent.is_set():
            pair.close()
