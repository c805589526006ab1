"""State on a live chain: the balances example against the token contract's own answers, through forks and kills."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from servers.anvil import Anvil, build_transfers, call
from servers.project import stop, wait_until

ROOT = Path(__file__).resolve().parents[2]
BALANCES = ROOT / "examples" / "balances" / "app.py"
HOLDERS = 200


def start(folder: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, str(BALANCES), *arguments],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )


def query(database: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(database, timeout=10)
    try:
        return connection.execute(statement).fetchall()
    except sqlite3.OperationalError:  # the tables may not be there yet
        return []
    finally:
        connection.close()


@pytest.mark.anvil
def test_balances_equal_the_contracts_own(anvil: Anvil, tmp_path: Path) -> None:
    """After a backfill, forks of many depths, restarts and kills, every holder's balance is what balanceOf says."""
    built = build_transfers(anvil, 60, 40, holders=HOLDERS)
    database = tmp_path / "balances.db"
    environment = {
        "RPC_URL": anvil.url,
        "TOKEN": built.token,
        "GAPLESS_STORE__URL": f"sqlite:///{database}",
        "GAPLESS_SOURCES__MAINNET__POLL": "100 ms",
        "GAPLESS_LEASE__TTL": "3 seconds",
    }
    draw = random.Random(5)
    process = start(tmp_path, environment, "run")
    try:
        for n in range(12):
            depth = draw.randint(1, 30)
            data = [call("transferMany(uint256,uint256,uint256)", 1_000 + 50 * n + i, 8, HOLDERS) for i in range(depth)]
            anvil.reorg(depth, [(anvil.transaction(built.token, d, gas=2_000_000), i) for i, d in enumerate(data)])
            anvil.mine(draw.randint(1, 3))
            if n % 3 == 2:
                process.send_signal(draw.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
                process.wait(20)
                process = start(tmp_path, environment, "run")
            elif n % 3 == 1:
                time.sleep(draw.uniform(0.0, 0.5))
        head = anvil.head()
        wanted = [(head, anvil.block(head)["hash"])]
        wait_until(
            lambda: query(database, "select position, id from gapless_cursors") == wanted,
            60,
            lambda: (tmp_path / "log").read_text()[-3000:],
        )
    finally:
        stop(process)
    held = {str(h): int(str(b)) for h, b in query(database, "select holder, balance from holding")}
    assert len(held) > HOLDERS // 2
    assert held == anvil.balances(built.token, list(held))
    assert sum(held.values()) == int(
        anvil.rpc("eth_call", {"to": built.token, "data": call("totalSupply()")}, "latest"), 16
    )
    verified = start(tmp_path, environment, "verify", "--json")
    assert verified.wait(60) == 0, (tmp_path / "log").read_text()[-3000:]
    document = json.loads((tmp_path / "log").read_text().strip().splitlines()[-1])
    assert document["mismatches"] == []
