"""The same bytes fetched and the same rows written with nothing in between: what Python could reach without checks.

    python -m benchmarks.stripped RPC_URL none|sqlite|postgres TARGET

No verification, no fork handling, no cursor, no restart: a floor to compare with, not a product.
"""

from __future__ import annotations

import http.client
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import msgspec

SPAN = 100
FETCHERS = 2
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
Row = tuple[int, str, str, str, int, int, str, str, str, str]


class Log(msgspec.Struct, gc=False, rename="camel"):
    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    block_timestamp: str
    transaction_hash: str
    transaction_index: str
    log_index: str


class Answer(msgspec.Struct):
    result: list[Log]


class Height(msgspec.Struct):
    result: str


def post(connection: http.client.HTTPConnection, method: str, *params: object) -> bytes:
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    connection.request("POST", "/", body, {"Content-Type": "application/json"})
    return connection.getresponse().read()


def fetched(url: str) -> Iterator[list[Row]]:
    """Rows of every range, in any order, while the next ranges are on their way."""
    parts = urlsplit(url)
    connections = [http.client.HTTPConnection(str(parts.hostname), parts.port) for _ in range(FETCHERS)]
    head = int(msgspec.json.decode(post(connections[0], "eth_blockNumber"), type=Height).result, 16)
    ranges: queue.SimpleQueue[int] = queue.SimpleQueue()
    for first in range(0, head + 1, SPAN):
        ranges.put(first)
    count = ranges.qsize()
    ready: queue.Queue[list[Row]] = queue.Queue(4)

    def fetch(connection: http.client.HTTPConnection) -> None:
        decoder = msgspec.json.Decoder(Answer)
        while True:
            try:
                first = ranges.get_nowait()
            except queue.Empty:
                return
            bounds = {"fromBlock": hex(first), "toBlock": hex(min(first + SPAN - 1, head)), "topics": [TRANSFER]}
            ready.put([row(log) for log in decoder.decode(post(connection, "eth_getLogs", bounds)).result])

    for connection in connections:
        threading.Thread(target=fetch, args=(connection,), daemon=True).start()
    for _ in range(count):
        yield ready.get()


def row(log: Log) -> Row:
    _, sender, receiver = log.topics
    return (
        int(log.block_number, 16),
        log.block_timestamp,
        log.block_hash,
        log.transaction_hash,
        int(log.transaction_index, 16),
        int(log.log_index, 16),
        log.address,
        "0x" + sender[26:],
        "0x" + receiver[26:],
        str(int(log.data, 16)),
    )


COLUMNS = (
    "block_number bigint, block_timestamp text, block_hash text, transaction_hash text, transaction_index bigint, "
    "log_index bigint, address text, from_ text, to_ text, value {value}, primary key (block_number, log_index)"
)


def into_sqlite(rows: Iterator[list[Row]], target: str) -> None:
    import apsw

    connection = apsw.Connection(target)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute(f"create table token_transfer ({COLUMNS.format(value='text')}) without rowid")
    for some in rows:
        with connection:
            connection.executemany("insert into token_transfer values (?,?,?,?,?,?,?,?,?,?)", some)
    connection.close()


def into_postgres(rows: Iterator[list[Row]], target: str) -> None:
    import psycopg

    with psycopg.connect(target) as connection:
        connection.execute(f"create table token_transfer ({COLUMNS.format(value='numeric(78,0)')})")
        connection.commit()
        for some in rows:
            with connection.cursor() as cursor, cursor.copy("copy token_transfer from stdin") as copy:
                copy.write("".join("\t".join(map(str, one)) + "\n" for one in some))
            connection.commit()


def into_nothing(rows: Iterator[list[Row]], target: str) -> None:
    print(f"{sum(map(len, rows))} rows to {target}")


SINKS: dict[str, Callable[[Iterator[list[Row]], str], None]] = {
    "none": into_nothing,
    "sqlite": into_sqlite,
    "postgres": into_postgres,
}


def main() -> None:
    url, sink, target = sys.argv[1:4]
    SINKS[sink](fetched(url), target)


if __name__ == "__main__":
    main()
