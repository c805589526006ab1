"""Damage by hand is found, named and mended; going back and deriving again give the same digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.recorded import LAST_BLOCK, RecordedProject


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> RecordedProject:
    made = RecordedProject.create(tmp_path_factory.mktemp("mending"))
    made.ok("run", "--until", str(LAST_BLOCK))
    return made


@pytest.fixture
def project(indexed: RecordedProject, tmp_path: Path) -> RecordedProject:
    """A copy of the indexed example, to be damaged."""
    return indexed.copy(tmp_path / "project")


def test_removed_rows(project: RecordedProject) -> None:
    """Rows deleted by hand change the digest, are named by `gaps`, and `repair` brings the digest back."""
    before = project.json("digest")["digest"]
    project.sql("delete from v1_token_transfer where block_number in (50, 51, 52, 200)")
    project.sql("delete from v1_gapless_entries where position between 300 and 304")
    damaged = project.json("digest")
    assert damaged["digest"] != before
    assert damaged["entries"] == 404
    gaps = project.json("gaps")["gaps"]
    assert {(gap["from"], gap["to"]) for gap in gaps} >= {(200, 200), (300, 304)}
    assert all(gap["attempts"] == 0 and gap["since"] for gap in gaps)
    assert sum(gap["to"] - gap["from"] + 1 for gap in gaps) == 9
    assert project.json("status")["sources"]["mainnet"]["gaps"]
    assert len(project.json("repair", "--dry-run")["ranges"]) == len(gaps)
    assert project.json("digest")["digest"] == damaged["digest"], "a dry run changes nothing"
    repaired = project.json("repair", "--range", "..250")["ranges"]
    assert all(item["repaired"] for item in repaired)
    assert [(gap["from"], gap["to"]) for gap in project.json("gaps")["gaps"]] == [(300, 304)]
    assert "repaired" in project.ok("repair")
    assert project.json("digest")["digest"] == before
    assert project.ok("gaps") == "No gaps.\n"
    assert project.ok("repair") == "Nothing to repair.\n"


def test_changed_row(project: RecordedProject) -> None:
    """A value changed by hand is found by `verify`, which names block and table; `replay` puts it right."""
    project.sql("update v1_token_transfer set value = '1' where block_number = 77")
    found = project.json("verify", "--range", "70..80", code=1)
    assert [(m["position"], m["table"]) for m in found["mismatches"]] == [(77, "token_transfer")]
    assert found["mismatches"][0]["stored"] != found["mismatches"][0]["derived"]
    assert project.run("verify", "--range", "70..80").returncode == 1
    assert project.json("replay", "--range", "77")["entries"] == 1
    assert project.json("verify", "--range", "70..80")["mismatches"] == []


def test_replay_changes_nothing(project: RecordedProject) -> None:
    """Deriving the same range twice gives the same rows and digests."""
    before, rows = project.json("digest")["digest"], project.json("status")["tables"]
    for _ in range(2):
        found = project.json("replay", "--range", "100..300")
        assert (found["entries"], found["changed"]) == (201, 0)
    assert project.json("digest")["digest"] == before
    assert project.json("status")["tables"] == rows


def test_rewind(project: RecordedProject) -> None:
    """Undone blocks leave no row, and indexing them again gives the same digest; so does everything undone."""
    before = project.json("digest")["digest"]
    assert project.json("rewind", "--to", "299", "--yes")["undone"] == LAST_BLOCK - 299
    assert project.sql("select max(block_number) < 300 from token_transfer") == [(1,)]
    assert project.json("status")["sources"]["mainnet"]["indexed"] == 299
    project.ok("run", "--until", str(LAST_BLOCK))
    assert project.json("digest")["digest"] == before
    assert project.json("rewind", "--to", "-1")["undone"] == LAST_BLOCK + 1
    assert project.sql("select count(*) from token_transfer") == [(0,)]


def test_rewind_refused(project: RecordedProject) -> None:
    """A position that is not there is a usage error that says which are."""
    assert f"Committed is 0..{LAST_BLOCK}" in project.refused("rewind", "--to", "9999", code=2)


def test_unreachable_source(project: RecordedProject) -> None:
    """Undoing needs no source; repairing does, and says what is missing."""
    (project.folder / "chain.jsonl.gz").write_bytes(b"not a recording")
    project.sql("delete from v1_token_transfer where block_number = 50")
    said = project.run("repair")
    assert said.returncode == 2
    assert "chain.jsonl.gz" in said.stderr
    assert len(project.json("gaps")["gaps"]) == 1


def test_state_tables(tmp_path: Path) -> None:
    """An app in Python is served by the same commands; its state has a digest, is verified, and replays the same."""
    project = RecordedProject.create(tmp_path)
    (tmp_path / "app.py").write_text(
        "import gapless\n"
        "app = gapless.App('erc20')\n"
        "chain = app.replay('mainnet', file='chain.jsonl.gz', poll='50 ms')\n"
        "token = chain.contract('token', abi='erc20', events=['Transfer'])\n"
        "@app.table\n"
        "class Received:\n"
        "    token: gapless.Address = gapless.key()\n"
        "    holder: gapless.Address = gapless.key()\n"
        "    value: gapless.UInt256\n"
        "@app.on(token.Transfer)\n"
        "def add(event, tables):\n"
        "    held = tables[Received].get(event.address, event.to_)\n"
        "    tables[Received].put(Received(event.address, event.to_, (held.value if held else 0) + event.value))\n"
    )
    arguments = ("-c", "app.py:app")
    project.ok("run", *arguments, "--until", str(LAST_BLOCK))
    before = project.json("digest", *arguments)
    assert len(before["state"]) == 64
    assert project.json("verify", *arguments)["mismatches"] == []
    project.ok("replay", *arguments, "--range", "400..")
    assert project.json("digest", *arguments) == before
    project.sql("update v1_received set value = '7' where rowid = (select min(rowid) from v1_received)")
    assert [m["table"] for m in project.json("verify", *arguments, code=1)["mismatches"]] == ["received"]
    assert project.json("digest", *arguments)["state"] != before["state"]
    assert "state table" in project.refused("export", "received", *arguments, "--range", "1..2", code=2)
    assert project.ok("export", "received", *arguments).startswith("token,holder,value\n")
