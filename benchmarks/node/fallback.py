"""The node where no Go compiler is: the recorded chain over HTTP from a Python process, answers ready in memory.

    python -m benchmarks.node.fallback RECORDING        prints its port, then serves until it is ended

Threads and blocking sockets: a large answer is one copy and one send, during which other threads run. `GET /` tells how
many requests and bytes there were since the last time it was asked.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path

from gapless.sources.evm.recording import read_recording
from gapless.sources.replay import ReplayTransport

REQUEST_BYTES_MAX = 16 << 20
SEND_BUFFER_BYTES = 4 << 20
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


class Counters:
    """What was served since last asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._answered_bytes = 0

    def count(self, answered_bytes: int) -> None:
        with self._lock:
            self._requests += 1
            self._answered_bytes += answered_bytes

    def take(self) -> dict[str, int]:
        with self._lock:
            taken = {"requests": self._requests, "bytes": self._answered_bytes}
            self._requests = self._answered_bytes = 0
        return taken


def serve(node: ReplayTransport) -> None:
    """Accept connections for ever; a thread each."""
    counters = Counters()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            threading.Thread(target=converse, args=(connection, node, counters), daemon=True).start()


def converse(connection: socket.socket, node: ReplayTransport, counters: Counters) -> None:
    """One kept-alive connection until the client ends it."""
    kept = bytearray()
    with connection:
        while True:
            try:
                request = receive(connection, kept)
                if request is None:
                    return
                method, body = request
                if method == b"GET":
                    answer = json.dumps(counters.take()).encode()
                else:
                    answer = node.answer(body)
                    counters.count(len(answer))
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                if len(answer) < 1 << 16:
                    connection.sendall(head + answer)
                else:
                    connection.sendall(head)
                    connection.sendall(answer)
            except OSError:
                return


def receive(connection: socket.socket, kept: bytearray) -> tuple[bytes, bytes] | None:
    """The next request's method and body; None when the client is gone. `kept` holds what was read beyond it."""
    while (end := kept.find(b"\r\n\r\n")) < 0:
        if len(kept) > REQUEST_BYTES_MAX or not read_more(connection, kept):
            return None
    head = bytes(kept[:end]).lower()
    size = 0
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        size = int(head[at + 17 :].split(b"\r\n", 1)[0])
    while len(kept) < end + 4 + size:
        if size > REQUEST_BYTES_MAX or not read_more(connection, kept):
            return None
    body = bytes(kept[end + 4 : end + 4 + size])
    method = bytes(kept[:end].split(b" ", 1)[0])
    del kept[: end + 4 + size]
    return method, body


def read_more(connection: socket.socket, kept: bytearray) -> bool:
    data = connection.recv(1 << 16)
    kept += data
    return bool(data)


def warmed(node: ReplayTransport) -> ReplayTransport:
    """Every form of every block made once, so that no run pays for it."""
    everything = {"fromBlock": "0x0", "toBlock": "latest"}
    for params in ({**everything, "topics": [TRANSFER]}, everything):
        node.answer(json.dumps({"id": 1, "method": "eth_getLogs", "params": [params]}).encode())
    for block in node.recording.chains[0]:
        assert block.header
    return node


def main(arguments: list[str]) -> None:
    serve(warmed(ReplayTransport(read_recording(Path(arguments[0])))))


if __name__ == "__main__":
    main(sys.argv[1:])
