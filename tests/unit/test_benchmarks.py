"""The benchmarks measure what they say, and refuse a run whose rows are wrong."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from benchmarks.chain import ROOT, Truth, digest_transfers, truth
from benchmarks.measure import RunFailed, measured
from benchmarks.runs import Run, WrongRows, check

from gapless import examples
from gapless.sources.evm.recording import read_recording

ROWS = [(1, 0, "0xa", "0xb", "7"), (1, 1, "0xb", "0xa", str(2**200)), (3, 0, "0xa", "0xc", "0")]
SMALL = Truth(head=3, transactions=0, logs=3, transfers=3, digest=digest_transfers(ROWS))


def written(path: Path, rows: list[tuple[object, ...]]) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table token_transfer (block_number, log_index, from_, to_, value)")
        connection.executemany("insert into token_transfer values (?, ?, ?, ?, ?)", rows)
        connection.commit()
    return str(path)


def test_right_rows_are_counted(tmp_path: Path) -> None:
    """Rows in any order that are the chain's own pass."""
    target = written(tmp_path / "right.db", list(reversed(ROWS)))
    assert check(Run("gapless", "replay", "sqlite"), target, SMALL) == 3


@pytest.mark.parametrize("rows", [ROWS[:2], [*ROWS, (4, 0, "0xa", "0xb", "1")], [*ROWS[:2], (3, 0, "0xa", "0xc", "1")]])
def test_wrong_rows_fail_the_run(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    """A row too few, one too many, one with another value: each is refused, however fast it was."""
    with pytest.raises(WrongRows):
        check(Run("gapless", "replay", "sqlite"), written(tmp_path / "wrong.db", rows), SMALL)


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


@pytest.fixture
def port() -> Iterator[int]:
    """The replay server of the benchmarks on the example chain."""
    command = [sys.executable, "-m", "benchmarks.server", str(examples.path())]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def test_the_replay_server_speaks_http(port: int) -> None:
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
