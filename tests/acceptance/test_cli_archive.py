"""`gapless archive`: the rows of an index without the index, whole parts whatever happens, damage that is noticed."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from servers.recorded import RecordedProject

FINAL = 393
"""The recorded chain's last final block."""


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> RecordedProject:
    made = RecordedProject.create(tmp_path_factory.mktemp("archive"))
    made.ok("run", "--until", str(FINAL))
    return made


@pytest.fixture
def project(indexed: RecordedProject, tmp_path: Path) -> RecordedProject:
    return indexed.copy(tmp_path / "project")


def listed(project: RecordedProject) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = json.loads((project.folder / "files" / "archive.json").read_text())["parts"]
    return parts


def rows(project: RecordedProject, table: str = "token_transfer") -> list[dict[str, Any]]:
    files = sorted((project.folder / "files" / table).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_an_archive_holds_the_rows_of_the_index(project: RecordedProject) -> None:
    """Every row, column and digest; twice is once; and it reads back whole."""
    project.ok("archive", "files")
    [part] = listed(project)
    assert (part["first"], part["last"]) == (0, FINAL)
    assert part["digest"] == project.json("digest", "--range", f"0..{FINAL}")["digest"]
    for table in ("token_transfer", "token_approval"):
        project.ok("export", table, "--range", f"..{FINAL}", "-o", f"{table}.parquet")
        assert rows(project, table) == pq.read_table(project.folder / f"{table}.parquet").to_pylist()
    entries = project.sql(f"select position, id, digest, rows from gapless_entries where position <= {FINAL}")
    assert [(e["position"], e["id"], e["digest"], e["rows"]) for e in rows(project, "gapless_entries")] == entries
    assert "everything final" in project.ok("archive", "files")
    assert len(listed(project)) == 1
    assert project.json("archive", "files", "--check")["faults"] == []


def test_an_archive_needs_no_index(tmp_path: Path) -> None:
    """No database is made or asked."""
    project = RecordedProject.create(tmp_path / "bare")
    found = project.json("archive", "files", "--range", "100..199")
    assert found["range"] == [100, 199]
    assert not (project.folder / "erc20.db").exists()
    assert {row["block_number"] for row in rows(project)} <= set(range(100, 200))


def test_it_goes_on_where_it_ended(project: RecordedProject) -> None:
    """Range by range the archive is that of one go; a hole is refused."""
    for last in (57, 58, 200):
        project.ok("archive", "files", "--range", f"..{last}")
    assert "hole" in project.refused("archive", "files", "--range", "300..", code=2)
    project.ok("archive", "files")
    assert [(p["first"], p["last"]) for p in listed(project)] == [(0, 57), (58, 58), (59, 200), (201, FINAL)]
    for part in listed(project):
        range_ = f"{part['first']}..{part['last']}"
        assert part["digest"] == project.json("digest", "--range", range_)["digest"]
    assert project.json("archive", "files", "--check")["faults"] == []


def test_killed_at_any_moment_it_is_whole(project: RecordedProject) -> None:
    """Nothing half-written stays, nothing is lost or doubled."""
    rng = random.Random(7)
    for last in range(40, FINAL, 40):
        process = project.start("archive", "files", "--range", f"..{last}")
        time.sleep(rng.uniform(0.2, 1.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (project.folder / "files" / "archive.json").exists():
            assert project.json("archive", "files", "--check")["faults"] == []
    project.ok("archive", "files")
    files = {path.name for path in (project.folder / "files").rglob("*.unfinished")}
    assert files == set()
    assert [row["position"] for row in rows(project, "gapless_entries")] == list(range(FINAL + 1))
    project.ok("export", "token_transfer", "--range", f"..{FINAL}", "-o", "all.parquet")
    assert rows(project) == pq.read_table(project.folder / "all.parquet").to_pylist()


def test_what_a_killed_process_left_is_swept_away(project: RecordedProject) -> None:
    """Files that no list names, whole or not."""
    project.ok("archive", "files", "--range", "..50")
    folder = project.folder / "files" / "token_transfer"
    (folder / "000000000051.parquet.unfinished").write_bytes(b"PAR1")
    (folder / "000000000051-000000000060.parquet").write_bytes(b"PAR1")
    project.ok("archive", "files", "--range", "..60")
    assert len(list(folder.iterdir())) == 2
    assert project.json("archive", "files", "--check")["faults"] == []


def _change(table: pa.Table, column: str, value: Any) -> pa.Table:
    place = table.column_names.index(column)
    values = [value, *table.column(column).to_pylist()[1:]]
    return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))


DAMAGES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a value": lambda t: _change(t, "value", "7"),
    "a position": lambda t: _change(t, "block_number", 3),
    "a row less": lambda t: t.slice(1),
    "a row more": lambda t: pa.concat_tables([t, t.slice(0, 1)]),
    "another order": lambda t: t.take(list(reversed(range(t.num_rows)))),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_changed_rows_are_noticed(project: RecordedProject, damage: str) -> None:
    """Whatever a file of the archive has become."""
    project.ok("archive", "files", "--range", "..80")
    [file] = (project.folder / "files" / "token_transfer").glob("*.parquet")
    pq.write_table(DAMAGES[damage](pq.read_table(file)), file)
    assert project.json("archive", "files", "--check", code=1)["faults"]


def test_broken_and_missing_files_are_noticed(project: RecordedProject) -> None:
    """And named by their part."""
    project.ok("archive", "files", "--range", "..80")
    project.ok("archive", "files", "--range", "..160")
    first, second = sorted((project.folder / "files" / "token_transfer").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-100])
    second.unlink()
    faults = project.json("archive", "files", "--check", code=1)["faults"]
    assert [(fault["first"], fault["last"]) for fault in faults] == [(0, 80), (81, 160)]


def test_folders_of_something_else_are_refused(project: RecordedProject) -> None:
    """Nothing of anybody's is touched: another app's archive, a folder with files, a list that is none."""
    strange = project.folder / "files"
    strange.mkdir()
    (strange / "letters.txt").write_text("dear")
    assert "no archive" in project.refused("archive", "files", code=2)
    assert [path.name for path in strange.iterdir() if path.name != ".lock"] == ["letters.txt"]
    project.ok("archive", "other", "--range", "..10")
    project.change('name = "erc20"', 'name = "another"')
    assert "other tables" in project.refused("archive", "other", code=2)
    (project.folder / "other" / "archive.json").write_text("{")
    assert "cannot be read" in project.refused("archive", "other", code=1)


def test_one_process_writes(project: RecordedProject) -> None:
    """The second one says so."""
    import fcntl

    project.ok("archive", "files", "--range", "..10")
    with (project.folder / "files" / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "Another process" in project.refused("archive", "files", code=1)


APP = """
import gapless

app = gapless.App("erc20")
chain = app.replay("mainnet", file="chain.jsonl.gz")
token = chain.contract("token", abi="erc20", events=["Transfer"])


@app.table
class Seen:
    holder: gapless.Address = gapless.key()
    times: int


@app.table
class First:
    holder: gapless.Address


@app.on(token.Transfer)
def note(transfer, tables):
    if {asked}:
        tables[First].insert(First(transfer.to_))
"""


@pytest.mark.parametrize("asked", ["transfer.log_index == 0", "tables[Seen].get(transfer.to_) is None"])
def test_facts_of_handlers_are_archived_unless_they_need_state(project: RecordedProject, asked: str) -> None:
    """What depends on all blocks before cannot be had from the middle."""
    (project.folder / "app.py").write_text(APP.format(asked=asked))
    if "Seen" in asked:
        said = project.refused("archive", "other", "--range", "5..60", "-c", "app.py:app", code=2)
        assert "first depend on state" in said
        assert not (project.folder / "other" / "archive.json").exists()
    else:
        project.ok("archive", "other", "--range", "5..60", "-c", "app.py:app")
        found = [
            row for file in (project.folder / "other" / "first").iterdir() for row in pq.read_table(file).to_pylist()
        ]
        assert found
