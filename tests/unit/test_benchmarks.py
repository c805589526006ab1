"""The benchmarks measure what they say, and refuse a run whose rows are wrong."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import ours, report
from benchmarks.chain import ROOT, Truth, digest_transfers, truth
from benchmarks.contest import Found, Place, WrongRows, check
from benchmarks.measure import RunFailed, measured
from benchmarks.node import Invented, Limits, NodeMissing, serve_invented, serve_recording
from benchmarks.rounds import medians, ratios

from gapless import examples
from gapless.sources.evm import bloom
from gapless.sources.evm.recording import read_recording

ROWS = [(1, 0, "0xa", "0xb", "7"), (1, 1, "0xb", "0xa", str(2**200)), (3, 0, "0xa", "0xc", "0")]
SMALL = Truth(head=3, transactions=0, logs=3, transfers=3, digest=digest_transfers(ROWS))
SQLITE = ours.gapless("sqlite")


def place(folder: Path) -> Place:
    return Place(folder, "http://127.0.0.1:1", 3, folder)


def written(folder: Path, rows: list[tuple[object, ...]]) -> Found:
    with closing(sqlite3.connect(place(folder).file)) as connection:
        connection.execute("create table token_transfer (block_number, log_index, from_, to_, value)")
        connection.executemany("insert into token_transfer values (?, ?, ?, ?, ?)", rows)
        connection.commit()
    return SQLITE.found(place(folder))


def test_right_rows_are_taken(tmp_path: Path) -> None:
    """Rows in any order that are the chain's own pass."""
    check(SQLITE, written(tmp_path, list(reversed(ROWS))), SMALL)


@pytest.mark.parametrize("rows", [ROWS[:2], [*ROWS, (4, 0, "0xa", "0xb", "1")], [*ROWS[:2], (3, 0, "0xa", "0xc", "1")]])
def test_wrong_rows_fail_the_run(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    """A row too few, one too many, one with another value: each is refused, however fast it was."""
    with pytest.raises(WrongRows):
        check(SQLITE, written(tmp_path, rows), SMALL)


def test_wrong_counts_of_whole_blocks_fail_the_run() -> None:
    """Where the job is whole blocks, a missing transaction is refused though every transfer is there."""
    whole = replace(SQLITE, job="whole")
    check(whole, Found(ROWS, (4, 0, 3)), SMALL)
    for counts in ((4, 1, 3), (3, 0, 3), (4, 0, 2), None):
        with pytest.raises(WrongRows):
            check(whole, Found(ROWS, counts), SMALL)


def test_the_truth_is_read_from_receipts() -> None:
    """The truth counts every Transfer of every contract, as a look at the recording does."""
    recording = read_recording(examples.path())
    found = truth(recording)
    assert found.head == 401
    assert found.transfers < found.logs
    assert found.transactions == sum(block.full.count(b'"transactionIndex"') for block in recording.chains[0])


def test_costs_are_those_of_the_whole_tree(tmp_path: Path) -> None:
    """CPU time and memory of a grandchild count; a failing command is an error that quotes what it said."""
    child = "x = bytearray(80_000_000); sum(range(10_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    cost = measured([sys.executable, "-c", parent], tmp_path, {})
    assert cost.peak_bytes > 80_000_000
    assert 0.05 < cost.cpu_seconds < cost.wall_seconds * 2
    with pytest.raises(RunFailed, match="no such thing"):
        measured([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path, {})


def test_a_program_that_never_ends_is_ended(tmp_path: Path) -> None:
    """Its work done, it is ended with all it started, and counts; one that is never done is an error in time."""
    mark = tmp_path / "done"
    endless = f"import pathlib, time; pathlib.Path({str(mark)!r}).touch(); time.sleep(600)"
    cost = measured([sys.executable, "-c", endless], tmp_path, {}, finished=mark.exists)
    assert cost.wall_seconds < 30
    with pytest.raises(RunFailed, match="longer than"):
        measured([sys.executable, "-c", endless], tmp_path, {}, finished=lambda: False, seconds_max=1.0)


# --- figures -------------------------------------------------------------------------------------------------------


class Kept:
    """Results as `medians` and `ratios` read them."""

    def __init__(self, *items: tuple[str, int, float]) -> None:
        self._items = {
            f"{program} {at}": {
                "job": "sqlite",
                "program": program,
                "sink": "SQLite",
                "round": at,
                "wall_seconds": wall,
                "cpu_seconds": wall,
                "beside_cpu_seconds": {"node": 0.1},
                "peak_mb": 100,
                "logs": 1000,
                "blocks": 10,
                "served": {},
            }
            for program, at, wall in items
        }

    def all(self) -> dict[str, Any]:
        return self._items


def test_ratios_are_of_pairs_in_one_round() -> None:
    """A peer is compared with our run beside it; the median of the pairs counts, not the pair of the medians."""
    runs = (("gapless, checked", 0, 1.0), ("peer", 0, 10.0), ("gapless, checked", 1, 10.0), ("peer", 1, 20.0))
    [pair] = ratios(Kept(*runs), "gapless, checked")  # type: ignore[arg-type]
    assert (pair["times_faster"], pair["least"], pair["most"], pair["pairs"]) == (6.0, 2.0, 10.0, 2)
    peer = next(row for row in medians(Kept(*runs)) if row["program"] == "peer")  # type: ignore[arg-type]
    assert (peer["wall_seconds"], peer["logs_per_second"], peer["runs"]) == (15.0, 67, 2)


def test_only_the_marked_part_of_a_page_is_written_anew(tmp_path: Path) -> None:
    """What people wrote around the figures stays; a page without the marks is an error, not a page without figures."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x -->\nold\n<!-- /x -->\nafter\n")
    report.replace_part(page, "x", "new\n")
    assert page.read_text() == "before\n<!-- x -->\nnew\n<!-- /x -->\nafter\n"
    with pytest.raises(ValueError, match="exactly one"):
        report.replace_part(page, "y", "new")


# --- nodes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def port() -> Iterator[int]:
    """The node in Python on the example chain."""
    command = [sys.executable, "-m", "benchmarks.node.fallback", str(examples.path())]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def test_the_node_in_python_speaks_http(port: int) -> None:
    """Requests cut anywhere and two in one packet are answered in order on one connection, and counted."""
    body = json.dumps({"id": 5, "method": "eth_chainId", "params": []}).encode()
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        stream = connection.makefile("rb")
        connection.sendall(request[:30])
        connection.sendall(request[30:] + request)
        for _ in range(2):
            assert answer(stream) == {"jsonrpc": "2.0", "id": 5, "result": "0x7a69"}
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        counted = answer(stream)
        stream.close()
    assert counted["requests"] == 2


def answer(stream: object) -> dict[str, object]:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.readline()  # type: ignore[attr-defined]
    size = int(head.lower().partition(b"content-length:")[2].split()[0])
    found: dict[str, object] = json.loads(stream.read(size))  # type: ignore[attr-defined]
    return found


def ask(url: str, method: str, *params: object) -> Any:
    import urllib.request

    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as reply:
        return json.load(reply)


def unpacked(tmp_path: Path) -> Path:
    import gzip

    found = tmp_path / "example.jsonl"
    found.write_bytes(gzip.decompress(Path(str(examples.path())).read_bytes()))
    return found


def test_both_nodes_answer_alike(port: int, tmp_path: Path) -> None:
    """What the Go node says of a recording is what the one in Python says, for every method an indexer asks for."""
    recording = read_recording(examples.path())
    tip = recording.chains[-1][-1]
    for _ in range(10 * len(recording.chains)):  # the one in Python follows the recording's script; to its end
        ask(f"http://127.0.0.1:{port}", "eth_blockNumber")
    transfers = {"fromBlock": "0x5", "toBlock": "0x30", "topics": [ours_topic()]}
    calls: list[tuple[str, list[object]]] = [
        ("eth_chainId", []),
        ("eth_blockNumber", []),
        ("eth_getBlockByNumber", ["0x10", False]),
        ("eth_getBlockByNumber", ["0x10", True]),
        ("eth_getBlockByNumber", ["0xffff", False]),
        ("eth_getBlockByHash", [tip.hash, False]),
        ("eth_getBlockReceipts", [tip.hash]),
        ("eth_getBlockReceipts", ["0x12"]),
        ("eth_getLogs", [transfers]),
        ("eth_getLogs", [{**transfers, "address": "0x" + "12" * 20}]),
        ("eth_getLogs", [{"fromBlock": "0x5", "toBlock": "0x9"}]),
    ]
    with serve_recording(unpacked(tmp_path)) as node:
        if node.kind != "go":
            pytest.skip("there is no Go compiler here")
        for method, params in calls:
            want = ask(f"http://127.0.0.1:{port}", method, *params)
            assert ask(node.url, method, *params) == want, (method, params)


def ours_topic() -> str:
    from benchmarks.chain import TRANSFER

    return TRANSFER


@pytest.fixture
def invented() -> Iterator[str]:
    try:
        with serve_invented(Invented(blocks=30, logs=7, tokens=3, holders=50)) as node:
            yield node.url
    except NodeMissing as reason:
        pytest.skip(str(reason))


def test_blooms_of_the_made_up_chain_are_right(invented: str) -> None:
    """Its node hashes by itself: each block's bloom is the one that Gapless computes from the logs."""
    import msgspec

    from gapless.sources.evm.types import Log

    for number in ("0x1", "0x1d"):
        block = ask(invented, "eth_getBlockByNumber", number, False)["result"]
        logs = ask(invented, "eth_getLogs", {"fromBlock": number, "toBlock": number})["result"]
        assert len(logs) == 7
        assert int(block["logsBloom"], 16) == bloom.of_logs(msgspec.convert(logs, list[Log]))


def test_simulated_limits_hold() -> None:
    """Ranges, answers and batches beyond the limits are refused and counted, with the codes that nodes use."""
    limits = Limits(latency_ms=1, range_max=10, results_max=30, batch_max=2)
    try:
        with serve_invented(Invented(blocks=30, logs=7), limits) as node:
            wide = ask(node.url, "eth_getLogs", {"fromBlock": "0x0", "toBlock": "0xa"})
            dense = ask(node.url, "eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x8"})
            fine = ask(node.url, "eth_getLogs", {"fromBlock": "0x1", "toBlock": "0x4"})
            served = node.served()
    except NodeMissing as reason:
        pytest.skip(str(reason))
    assert wide["error"]["code"] == -32602
    assert dense["error"]["code"] == -32005
    assert len(fine["result"]) == 28
    assert served["refused"] == {"range": 1, "results": 1}
    assert [span["ok"] for span in served["ranges"]] == [False, False, True]
