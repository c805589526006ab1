"""The tables equal an independent fold over the node's own answers, through forks, restarts, kills and damage.

Everything here is the real thing: Anvil, SQLite or Postgres, and the command line as separate processes.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from gapless.testing.block import TRANSFER_TOPIC
from gapless.testing.fold import TransferRow, fold_logs
from servers.anvil import Anvil, build_transfers, call
from servers.project import Project, stop, wait_until


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "sqlite:///chain.db"


def expected(anvil: Anvil, token: str) -> list[TransferRow]:
    """What the node's chain holds now, by the oracle."""
    query = {"fromBlock": "0x0", "toBlock": "latest", "address": token, "topics": [TRANSFER_TOPIC]}
    return fold_logs(anvil.rpc("eth_getLogs", query)).transfers


def assert_exact(project: Project, anvil: Anvil, token: str) -> None:
    """Row by row, and not one row or entry of an orphaned block anywhere."""
    assert sorted(project.transfers()) == expected(anvil, token)
    head = anvil.head()
    ids = dict(project.sql("select position, id from gapless_entries"))
    assert sorted(ids) == list(range(head + 1))
    blocks = anvil.batch([("eth_getBlockByNumber", [hex(p), False]) for p in range(head + 1)])
    assert {p: b["hash"] for p, b in enumerate(blocks)} == ids


def transfers_in(anvil: Anvil, token: str, seed: int, depth: int) -> list[tuple[dict[str, object], int]]:
    """Transactions for the blocks of a new branch."""
    return [
        (anvil.transaction(token, call("emitMany(uint256,uint256,uint256)", seed + i, 3, 50), gas=1_000_000), i)
        for i in range(0, depth, 2)
    ]


@pytest.mark.anvil
@pytest.mark.parametrize(
    ("blocks", "forks"), [(60, 12), pytest.param(2_000, 64, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_live_with_forks_and_restarts(anvil: Anvil, tmp_path: Path, store_url: str, blocks: int, forks: int) -> None:
    """After a backfill, live mining, forks of depth 1 to 64 and restarts in between, every row is as the chain says."""
    built = build_transfers(anvil, blocks, 100, real=False)
    anvil.mine(70)
    project = Project(tmp_path, store_url, [anvil.url], built.token, poll="100 ms")
    draw = random.Random(blocks)
    process = project.start("run")
    try:
        project.wait_position(anvil.head(), 240)
        for n in range(forks):
            anvil.send(built.token, call("emitMany(uint256,uint256,uint256)", 10_000 + n, 5, 50))
            anvil.mine(draw.randint(1, 3))
            if n % 4 == 3:
                stop(process)
            depth = draw.randint(1, 64) if n else 64
            anvil.reorg(depth, transfers_in(anvil, built.token, 20_000 + 100 * n, depth))
            anvil.mine(1)
            if process.poll() is not None:
                process = project.start("run")
            head = anvil.head()
            wait_until(
                lambda head=head: (
                    project.sql("select position, id from gapless_cursors") == [(head, anvil.block(head)["hash"])]
                ),
                30,
                project.log,
            )
        assert_exact(project, anvil, built.token)
    finally:
        stop(process)
    status = project.json("status")["sources"]["chain"]
    assert status["reorgs"]["count"] >= forks - forks // 4 - 1
    assert 61 <= status["reorgs"]["deepest"] <= 64  # up to three of the replaced blocks may not have been seen
    assert status["gaps"] == []


@pytest.mark.anvil
@pytest.mark.parametrize("kills", [8, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_killed_at_random_moments(anvil: Anvil, tmp_path: Path, store_url: str, kills: int) -> None:
    """SIGKILL at any moment loses nothing, doubles nothing, and needs no human: the next start goes on."""
    built = build_transfers(anvil, 20 * kills, 50, real=False)
    project = Project(tmp_path, store_url, [anvil.url], built.token, span_max=5, poll="100 ms")
    draw = random.Random(kills)
    for n in range(kills):
        process = project.start("run")
        started_at = project.position()
        wait_until(lambda at=started_at: project.position() > at or project.position() >= anvil.head(), 60, project.log)
        time.sleep(draw.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if n % 3 == 2:
            depth = draw.randint(1, 20)
            anvil.reorg(depth, transfers_in(anvil, built.token, 40_000 + 100 * n, depth))
            anvil.mine(1)
    project.run("run", "--until", "head")
    assert_exact(project, anvil, built.token)
    assert project.json("gaps")["gaps"] == []


@pytest.fixture
def indexed(anvil: Anvil, tmp_path: Path, store_url: str) -> tuple[Project, Anvil, str]:
    """A small chain, indexed to its head."""
    built = build_transfers(anvil, 60, 20, real=False)
    project = Project(tmp_path / "a", store_url, [anvil.url], built.token)
    project.run("run", "--until", "head")
    return project, anvil, built.token


@pytest.mark.anvil
def test_deleted_rows_are_named_and_restored(indexed: tuple[Project, Anvil, str]) -> None:
    """Rows removed by hand are found by `gaps`, restored by `repair`, and the digest is the one from before."""
    project, anvil, token = indexed
    before = project.json("digest")
    draw = random.Random(7)
    lost = sorted(draw.sample(range(2, 62), 25))
    holes = lost[::5]
    marks = ", ".join(map(str, lost))
    project.sql(f"delete from {project.base_table('token_transfer')} where block_number in ({marks})")
    hole_marks = ", ".join(map(str, holes))
    project.sql(f"delete from {project.base_table('gapless_entries')} where position in ({hole_marks})")
    assert project.json("digest") != before
    gaps = project.json("gaps")["gaps"]
    assert sorted(p for g in gaps for p in range(g["from"], g["to"] + 1)) == lost
    project.run("repair")
    assert project.json("gaps")["gaps"] == []
    assert project.json("digest") == before
    assert_exact(project, anvil, token)


@pytest.mark.anvil
def test_changed_rows_are_found_by_verify(indexed: tuple[Project, Anvil, str]) -> None:
    """A value altered in the database is named with its block and table, and a replay of the range puts it right."""
    project, anvil, token = indexed
    before = project.json("digest")
    assert project.json("verify")["mismatches"] == []
    project.sql(
        f"update {project.base_table('token_transfer')} set value = '1' where block_number = 17 and log_index = 0"
    )
    found = project.json("verify", code=1)["mismatches"]
    assert [(m["position"], m["table"]) for m in found] == [(17, "token_transfer")]
    project.run("replay", "--range", "10..20")
    assert project.json("verify")["mismatches"] == []
    assert project.json("digest") == before
    assert_exact(project, anvil, token)


@pytest.mark.anvil
def test_replay_twice_changes_nothing(indexed: tuple[Project, Anvil, str]) -> None:
    """Deriving a range again, and again, gives identical counts and digests."""
    project, _, _ = indexed
    before = (project.json("digest"), project.json("status")["tables"])
    for _ in range(2):
        project.run("replay", "--range", "5..55")
        assert (project.json("digest"), project.json("status")["tables"]) == before


@pytest.mark.anvil
def test_rewind_and_run_again(indexed: tuple[Project, Anvil, str]) -> None:
    """A rewind undoes to the block named; running again gives the same digest as before."""
    project, anvil, token = indexed
    before = project.json("digest")
    project.run("rewind", "--to", "30")
    assert project.position() == 30
    assert max(row.block_number for row in project.transfers()) == 30
    project.run("run", "--until", "head")
    assert project.json("digest") == before
    assert_exact(project, anvil, token)


@pytest.mark.anvil
@pytest.mark.postgres
def test_both_databases_give_one_digest(anvil: Anvil, tmp_path: Path, postgres_url: str) -> None:
    """SQLite and Postgres, with different batching, agree on every row."""
    built = build_transfers(anvil, 40, 30, real=False)
    digests = set()
    for name, url, span in (("a", "sqlite:///chain.db", 7), ("b", postgres_url, 2000), ("c", "sqlite:///other.db", 1)):
        project = Project(tmp_path / name, url, [anvil.url], built.token, span_max=span)
        project.run("run", "--until", "head")
        digests.add(project.json("digest")["digest"])
    assert len(digests) == 1


@pytest.mark.anvil
@pytest.mark.postgres
def test_a_frozen_leader_is_replaced_and_commits_nothing(anvil: Anvil, tmp_path: Path, postgres_url: str) -> None:
    """Frozen for three lease lengths, the leader finds a standby in its place, and none of its writes get through."""
    built = build_transfers(anvil, 20, 10, real=False)
    project = Project(tmp_path, postgres_url, [anvil.url], built.token, poll="100 ms")
    leader = project.start("run", log="leader")
    standby = None
    try:
        project.wait_position(anvil.head())
        [(first_holder, first_token)] = project.sql("select holder, token from gapless_leases")
        standby = project.start("run", log="standby")
        time.sleep(2)
        assert project.sql("select holder, token from gapless_leases") == [(first_holder, first_token)]
        leader.send_signal(signal.SIGSTOP)
        anvil.mine(3)
        time.sleep(3 * 3)
        project.wait_position(anvil.head(), 20)
        [(holder, token)] = project.sql("select holder, token from gapless_leases")
        assert holder.endswith(f":{standby.pid}")
        assert token > first_token
        leader.send_signal(signal.SIGCONT)
        for n in range(5):
            anvil.send(built.token, call("emitMany(uint256,uint256,uint256)", 90_000 + n, 5, 50))
            anvil.mine(1)
            time.sleep(0.3)
        project.wait_position(anvil.head(), 20)
        assert leader.poll() is None
        assert project.sql("select holder, token from gapless_leases") == [(holder, token)]
        assert_exact(project, anvil, built.token)
    finally:
        for process in (leader, standby):
            if process is not None:
                process.send_signal(signal.SIGCONT)
                stop(process)
