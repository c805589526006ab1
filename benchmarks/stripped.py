"""The same bytes fetched and the same rows written, with nothing in between: what the wire and the database allow.

    python -m benchmarks.stripped RPC_URL sqlite|postgres TARGET

Fair to both sides: it makes the product's tables through the product (`Store.open`, start-up for both), asks for what a
run asks for (every header, the logs by ranges, the receipts of the blocks that are not final yet) with typed decoding
of the fields that end up in a row, overlaps fetching with writing, and writes facts, an entry row a block and the
cursor, one transaction for some ten thousand rows: COPY of text on Postgres, executemany of apsw on SQLite. What it
leaves out: every check (links, blooms, roots, order), digests (a constant stands in the column), undo, forks, the
lease and its fence, retries, adaptive sizes (it knows good ones), statistics, logs, signals, and going on after a stop.
"""

from __future__ import annotations

import http.client
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

SPAN = 100
FETCHERS = 2
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
NO_DIGEST = "0" * 64
Row = tuple[str, ...]


class Log(msgspec.Struct, gc=False, rename="camel"):
    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    transaction_index: str
    log_index: str


class Header(msgspec.Struct, gc=False, rename="camel"):
    number: str
    hash: str
    parent_hash: str
    timestamp: str


class LogsAnswer(msgspec.Struct):
    result: list[Log]


class Receipt(msgspec.Struct, gc=False):
    logs: list[Log]


class ReceiptsAnswer(msgspec.Struct, gc=False):
    result: list[Receipt]


class HeaderAnswer(msgspec.Struct, gc=False):
    result: Header


@dataclass(frozen=True)
class Part:
    """One range: rows of its facts and of its entries."""

    last: Header
    facts: list[Row]
    entries: list[Row]


_HEADERS = msgspec.json.Decoder(list[HeaderAnswer])
_LOGS = msgspec.json.Decoder(LogsAnswer)
_RECEIPTS = msgspec.json.Decoder(list[ReceiptsAnswer])


def post(connection: http.client.HTTPConnection, body: object) -> bytes:
    connection.request("POST", "/", msgspec.json.encode(body), {"Content-Type": "application/json"})
    return connection.getresponse().read()


def call(number: int, method: str, *params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def heights(connection: http.client.HTTPConnection) -> tuple[int, int]:
    """The head and the finalized block."""
    asked = [call(0, "eth_getBlockByNumber", tag, False) for tag in ("latest", "finalized")]
    head, final = _HEADERS.decode(post(connection, asked))
    return int(head.result.number, 16), int(final.result.number, 16)


def fetch_part(connection: http.client.HTTPConnection, first: int, last: int, final: int) -> Part:
    asked = [call(n, "eth_getBlockByNumber", hex(n), False) for n in range(first, last + 1)]
    headers = [answer.result for answer in _HEADERS.decode(post(connection, asked))]
    if first > final:  # where a run takes the logs from the receipts, so does this
        answers = _RECEIPTS.decode(
            post(connection, [call(i, "eth_getBlockReceipts", h.hash) for i, h in enumerate(headers)])
        )
        logs = [log for a in answers for r in a.result for log in r.logs if log.topics and log.topics[0] == TRANSFER]
    else:
        bounds = {"fromBlock": hex(first), "toBlock": hex(last), "topics": [TRANSFER]}
        logs = _LOGS.decode(post(connection, call(1, "eth_getLogs", bounds))).result
    times = {h.number: datetime.fromtimestamp(int(h.timestamp, 16), UTC).strftime("%FT%TZ") for h in headers}
    counts = dict.fromkeys(times, 0)
    facts = []
    for log in logs:
        counts[log.block_number] += 1
        facts.append(fact(log, times[log.block_number]))
    return Part(headers[-1], facts, [entry(h, times[h.number], counts[h.number]) for h in headers])


def fact(log: Log, time: str) -> Row:
    _, sender, receiver = log.topics
    return (
        str(int(log.block_number, 16)),
        time,
        log.block_hash,
        log.transaction_hash,
        str(int(log.transaction_index, 16)),
        str(int(log.log_index, 16)),
        log.address,
        "0x" + sender[26:],
        "0x" + receiver[26:],
        str(int(log.data, 16)),
    )


def entry(header: Header, time: str, rows: int) -> Row:
    position = str(int(header.number, 16))
    return ("chain", position, header.hash, header.parent_hash, time, "trusted", str(rows), NO_DIGEST, "node", "0")


def fetched(url: str) -> Iterator[Part]:
    """Every range in order, while the next ones are on their way."""
    parts = urlsplit(url)
    connections = [http.client.HTTPConnection(str(parts.hostname), parts.port) for _ in range(FETCHERS)]
    head, final = heights(connections[0])
    ranges = [(first, min(first + SPAN - 1, final)) for first in range(0, final + 1, SPAN)]
    ranges += [(first, min(first + SPAN - 1, head)) for first in range(final + 1, head + 1, SPAN)]
    ready: list[queue.Queue[Part]] = [queue.Queue(2) for _ in connections]

    def fetch(lane: int) -> None:
        for first, last in ranges[lane::FETCHERS]:
            ready[lane].put(fetch_part(connections[lane], first, last, final))

    for lane in range(FETCHERS):
        threading.Thread(target=fetch, args=(lane,), daemon=True).start()
    for index in range(len(ranges)):
        yield ready[index % FETCHERS].get()


# --- writing -------------------------------------------------------------------------------------------------------


def create(store: str, target: str) -> None:
    """The product's own tables, with a row for the cursor."""
    from gapless.app import App
    from gapless.clock import SystemClock
    from gapless.config import parse
    from gapless.model import Identity
    from gapless.wiring import open_store, wire

    keys = {
        "app": {"name": "bench"},
        "store": {"url": target if store == "postgres" else f"sqlite:///{target}"},
        "sources": {"chain": {"kind": "evm", "rpc": ["http://127.0.0.1:1"]}},
        "contracts": {"token": {"abi": "erc20", "events": ["Transfer"]}},
    }
    app = App.from_config(parse(keys, base=Path.cwd()))
    opened = open_store(app.config, wire(app)[0], SystemClock(), create=True)
    opened.bind_source("chain", Identity("evm", "31337", "0x00"), 0)
    opened.close()


def into_sqlite(parts: Iterator[Part], target: str) -> None:
    import apsw

    connection = apsw.Connection(target)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.pragma("cache_size", -65_536)
    connection.wal_autocheckpoint(2000)
    marks = ",".join("?" * 10)
    for part in parts:
        with connection:
            connection.executemany(f"insert into v1_token_transfer values ({marks})", part.facts)
            connection.executemany(f"insert into v1_gapless_entries values ({marks})", part.entries)
            connection.execute(
                "update v1_gapless_cursors set position = ?, id = ?", (int(part.last.number, 16), part.last.hash)
            )
    connection.close()


def into_postgres(parts: Iterator[Part], target: str) -> None:
    import psycopg

    with psycopg.connect(target) as connection:
        for part in parts:
            with connection.cursor() as cursor:
                for table, rows in (("token_transfer", part.facts), ("gapless_entries", part.entries)):
                    with cursor.copy(f"copy bench_v1.{table} from stdin".encode()) as copy:
                        copy.write("\n".join(map("\t".join, rows)) + "\n")
                cursor.execute(
                    "update bench_v1.gapless_cursors set position = %s, id = %s",
                    (int(part.last.number, 16), part.last.hash),
                )
            connection.commit()


SINKS: dict[str, Callable[[Iterator[Part], str], None]] = {"sqlite": into_sqlite, "postgres": into_postgres}


def main(arguments: Sequence[str]) -> None:
    url, store, target = arguments
    create(store, target)
    SINKS[store](fetched(url), target)


if __name__ == "__main__":
    main(sys.argv[1:])
