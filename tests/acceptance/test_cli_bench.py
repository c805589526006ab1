"""`gapless bench` measures a user's endpoint and database, names what limits, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gapless import examples
from gapless.testing import TOKEN, FakeNode, Late, ScriptedChain
from servers.anvil import Anvil, build_transfers

SECONDS_MAX = 90.0


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    chain = ScriptedChain(seed=4)
    chain.mine(400, logs=4)
    with FakeNode(chain) as running:
        yield running


def project(folder: Path, rpc: str, store: str = "sqlite:///mine.db", more: str = "") -> None:
    (folder / "gapless.toml").write_text(
        f'[app]\nname = "mine"\n[store]\nurl = "{store}"\n[sources.chain]\nkind = "evm"\nrpc = ["{rpc}"]\n{more}'
        f'[contracts.token]\nabi = "erc20"\naddress = "{TOKEN}"\n'
    )


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gapless.cli", *arguments],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def bench(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run it to its end: what it printed, and what it said."""
    process = start(folder, "bench", *arguments)
    printed, said = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == code, said
    return printed, said


def document(folder: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench(folder, "--json", *arguments)[0])
    return found


def scratch_schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'gapless_bench_%'").fetchall()
    return [str(name) for (name,) in rows]


# --- what it tells -------------------------------------------------------------------------------------------------


def test_everything_is_measured(tmp_path: Path, node: FakeNode) -> None:
    """One document has the round trip, each range size, decoding, the database, a run, and the limit with advice."""
    project(tmp_path, node.url)
    found = document(tmp_path, "--seconds", "3")
    assert found["schema"] == 1
    assert found["positions"] == [0, 336]
    assert found["round_trip"]["median_seconds"] > 0
    assert [rate["blocks"] for rate in found["ranges"]] == [1, 10, 100]
    assert all(rate["ranges"] > 0 and rate["logs"] > 0 for rate in found["ranges"])
    for stage in ("decode", "database", "end_to_end"):
        assert found[stage]["blocks_per_second"] > 0
        assert found[stage]["rows_per_second"] > 0
    assert found["limit"]["name"] in ("node", "network", "decode", "database")
    assert found["limit"]["reason"]
    assert found["limit"]["suggestion"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gapless.toml"]


def test_people_read_it_too(tmp_path: Path, node: FakeNode) -> None:
    """Without --json there are tables, and a last line that names the limit; no configuration is needed."""
    printed, said = bench(tmp_path, "--rpc", node.url, "--seconds", "2")
    assert "blocks/s" in printed
    assert "The limit is the " in printed
    assert "measuring" in said
    assert list(tmp_path.iterdir()) == []


def test_the_apps_tables_are_not_touched(tmp_path: Path, node: FakeNode) -> None:
    """What was indexed before is the same, byte by byte, after a measurement beside it."""
    project(tmp_path, node.url, more="end = 50\n")
    run = start(tmp_path, "run", "--until", "head")
    assert run.wait(SECONDS_MAX) == 0, run.communicate()[1]
    run.communicate()
    before = (tmp_path / "mine.db").read_bytes()
    document(tmp_path, "--seconds", "2")
    assert (tmp_path / "mine.db").read_bytes() == before
    assert not [path.name for path in tmp_path.iterdir() if "bench" in path.name]


@pytest.mark.postgres
def test_postgres_is_measured_in_a_schema_of_its_own(tmp_path: Path, node: FakeNode, postgres_url: str) -> None:
    """The scratch lies in the same database, under another name, and is gone afterwards."""
    project(tmp_path, node.url, store=postgres_url)
    found = document(tmp_path, "--seconds", "3")
    assert found["database"]["blocks_per_second"] > 0
    assert scratch_schemas(postgres_url) == []


@pytest.mark.anvil
def test_a_real_node_is_measured(tmp_path: Path, anvil: Anvil) -> None:
    """Anvil's blocks go through all stages."""
    build_transfers(anvil, blocks=120, per_block=10)
    found = document(tmp_path, "--rpc", anvil.url, "--seconds", "3")
    assert found["end_to_end"]["rows"] > 0


# --- what it names -------------------------------------------------------------------------------------------------


def test_a_slow_node_is_named(tmp_path: Path, node: FakeNode) -> None:
    """A node that thinks for long, with a quick way to it, is the limit itself."""
    project(tmp_path, node.url)
    switch = node.behave(Late(0.3), methods=["eth_getLogs", "eth_getBlockByNumber"], after=4)
    try:
        found = document(tmp_path, "--seconds", "3")
    finally:
        switch.off()
    assert found["limit"]["name"] == "node", found
    assert "node" in found["limit"]["suggestion"]


def test_a_slow_network_is_named(tmp_path: Path, node: FakeNode) -> None:
    """Where every answer takes as long, also one the node need not look up, it is the way that is long."""
    project(tmp_path, node.url)
    switch = node.behave(Late(0.3))
    try:
        found = document(tmp_path, "--seconds", "3")
    finally:
        switch.off()
    assert found["limit"]["name"] == "network", found
    assert found["round_trip"]["median_seconds"] >= 0.3


@contextmanager
def slow_way(port: int, seconds: float) -> Iterator[int]:
    """A port that leads to another, where everything takes so long in each direction."""
    ended = threading.Event()

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while not ended.is_set() and (data := source.recv(1 << 16)):
                time.sleep(seconds)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept(listener: socket.socket) -> None:
        while not ended.is_set():
            if not select.select([listener], [], [], 0.1)[0]:
                continue
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            opened.extend((client, server))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=carry, args=pair, daemon=True).start()

    opened: list[socket.socket] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        ended.set()
        thread.join()
        for one in opened:
            one.close()


@pytest.mark.postgres
def test_a_slow_database_is_named(tmp_path: Path, node: FakeNode, postgres_url: str) -> None:
    """A database server that is far away is the limit, and the advice is about commits, not rows."""
    port = int(postgres_url.rsplit(":", 1)[1].split("/")[0])
    with slow_way(port, 0.04) as slow:
        project(tmp_path, node.url, store=postgres_url.replace(f":{port}/", f":{slow}/"))
        found = document(tmp_path, "--seconds", "3")
    assert found["limit"]["name"] == "database", found
    assert "nearer" in found["limit"]["suggestion"]
    assert scratch_schemas(postgres_url) == []


# --- what it leaves behind -----------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


INTERRUPTED = pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)  # on busy machines it ends with 0 now and then


@pytest.mark.parametrize(("number", "code"), [INTERRUPTED, (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_no_file_is_left_behind(tmp_path: Path, node: FakeNode, number: signal.Signals, code: int) -> None:
    """Interrupted, ended or killed in the middle of writing: the scratch file and all beside it are gone soon."""
    project(tmp_path, node.url)
    process = start(tmp_path, "bench", "--seconds", "8")
    wait_until(lambda: any(tmp_path.glob(".gapless_bench_*.db-wal")), SECONDS_MAX)
    process.send_signal(number)
    said = process.communicate(timeout=SECONDS_MAX)[1]
    assert process.returncode == code, said
    wait_until(lambda: [path.name for path in tmp_path.iterdir()] == ["gapless.toml"])


@pytest.mark.postgres
def test_no_schema_is_left_behind(tmp_path: Path, node: FakeNode, postgres_url: str) -> None:
    """Killed in the middle of writing: the scratch schemas are dropped soon."""
    project(tmp_path, node.url, store=postgres_url)
    process = start(tmp_path, "bench", "--seconds", "8")
    wait_until(lambda: len(scratch_schemas(postgres_url)) == 2, SECONDS_MAX)
    process.kill()
    process.communicate()
    wait_until(lambda: scratch_schemas(postgres_url) == [])


def test_the_sweeper_touches_nothing_but_scratches(tmp_path: Path) -> None:
    """Whatever it is told to remove, a file without a scratch's name stays."""
    mine = tmp_path / "mine.db"
    mine.write_text("mine")
    told = json.dumps({"path": str(mine)}) + "\n"
    command = [sys.executable, "-m", "gapless.bench.sweeper"]
    done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert mine.read_text() == "mine"


# --- what it refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "Add --rpc URL"),
        (("--rpc", "http://127.0.0.1:1", "--seconds", "2"), 3, "127.0.0.1:1"),
        (("--rpc", "http://127.0.0.1:1", "--seconds", "0"), 2, "--seconds"),
        (
            (
                "--rpc",
                "gopher://x",
            ),
            2,
            "http",
        ),
    ],
)
def test_what_cannot_be_measured_is_said(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    """Each mistake ends with the exit code of its kind, one paragraph, and what to do."""
    printed, said = bench(tmp_path, *arguments, code=code)
    assert says in said
    assert printed == ""
    assert list(tmp_path.iterdir()) == []


def test_a_position_above_the_head_is_refused(tmp_path: Path, node: FakeNode) -> None:
    """Samples cannot begin where there is no block; the head is told."""
    _, said = bench(tmp_path, "--rpc", node.url, "--from", "5000", code=2)
    assert "--from 400" in said


def test_a_recording_is_refused(tmp_path: Path) -> None:
    """A recorded source has no endpoint to measure."""
    (tmp_path / "gapless.toml").write_text(
        f'[app]\nname = "mine"\n[sources.chain]\nkind = "replay"\nfile = "{examples.path()}"\ndatasets = ["blocks"]\n'
    )
    _, said = bench(tmp_path, code=2)
    assert "recording" in said
