"""Getting rows out: one SELECT, or a whole table in any format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from servers.recorded import LAST_BLOCK, RecordedProject

SELECT = "select block_number, from_, value from token_transfer where block_number = 77 order by log_index"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> RecordedProject:
    made = RecordedProject.create(tmp_path_factory.mktemp("query"))
    made.ok("run", "--until", str(LAST_BLOCK))
    return made


def test_formats_agree(project: RecordedProject, tmp_path: Path) -> None:
    """The same rows come in every format."""
    import pyarrow as pa
    import pyarrow.parquet

    rows = [list(row) for row in project.sql(SELECT)]
    assert rows
    assert project.json("query", SELECT)["rows"] == rows
    lines = project.ok("query", SELECT, "-f", "jsonl").splitlines()
    assert [list(json.loads(line).values()) for line in lines] == rows
    found = list(csv.reader(io.StringIO(project.ok("query", SELECT, "-f", "csv"))))
    assert found == [["block_number", "from_", "value"], *[[str(v) for v in row] for row in rows]]
    assert all(str(row[2]) in project.ok("query", SELECT) for row in rows)
    for form in ("parquet", "arrow"):
        file = tmp_path / f"rows.{form}"
        project.ok("query", SELECT, "-f", form, "-o", str(file))
        table = pyarrow.parquet.read_table(file) if form == "parquet" else pa.ipc.open_stream(file).read_all()
        assert [list(row.values()) for row in table.to_pylist()] == rows


def test_limit(project: RecordedProject) -> None:
    """More rows than asked for are cut, and it is said."""
    done = project.run("query", "select log_index from token_transfer", "--limit", "3", "--json")
    found = json.loads(done.stdout)
    assert (len(found["rows"]), found["truncated"]) == (3, True)
    assert "--limit" in done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "delete from token_transfer",
        "drop table v1_token_transfer",
        "update v1_token_transfer set value = '0'",
        "attach database 'other.db' as other",
        "pragma journal_mode = delete",
        "select 1; delete from v1_token_transfer",
    ],
)
def test_read_only(project: RecordedProject, statement: str) -> None:
    """Nothing can be written through a query."""
    done = project.run("query", statement)
    assert done.returncode in {1, 3}
    assert done.stderr.startswith("error: ")
    assert project.sql("select count(*) from token_transfer") == [(4709,)]


def test_wrong_statement(project: RecordedProject) -> None:
    """A misspelt column is an error that names it."""
    assert "valeu" in project.refused("query", "select valeu from token_transfer", code=1)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "arrow"])
def test_export(project: RecordedProject, tmp_path: Path, form: str) -> None:
    """A whole table comes out in key order, complete and exact, by the file's ending."""
    import pyarrow as pa
    import pyarrow.parquet

    expected = project.sql("select block_number, log_index, value from token_transfer order by block_number, log_index")
    file = tmp_path / f"rows.{form}"
    done = project.run("export", "token_transfer", "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "4 709 rows" in done.stderr
    if form == "csv":
        found = [
            (int(r["block_number"]), int(r["log_index"]), r["value"])
            for r in csv.DictReader(io.StringIO(file.read_text()))
        ]
    elif form == "jsonl":
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        found = [(r["block_number"], r["log_index"], r["value"]) for r in lines]
    else:
        table = pyarrow.parquet.read_table(file) if form == "parquet" else pa.ipc.open_stream(file).read_all()
        found = [(r["block_number"], r["log_index"], r["value"]) for r in table.to_pylist()]
    assert found == [(a, b, str(c)) for a, b, c in expected]
    assert [p.name for p in tmp_path.iterdir()] == [file.name], "nothing unfinished is left"


def test_export_to_a_pipe(project: RecordedProject) -> None:
    """Without a file rows go to standard output; a range is respected; a reader may leave early."""
    lines = project.ok("export", "token_transfer", "--range", "100..101").splitlines()
    assert lines[0].startswith("block_number,block_timestamp,")
    assert {line.split(",")[0] for line in lines[1:]} <= {"100", "101"}
    process = project.start("export", "token_transfer")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(20) in {0, 1}
    assert "Traceback" not in said
    assert "Broken" not in said
    process.stderr.close()


def test_export_refused(project: RecordedProject, tmp_path: Path) -> None:
    """An unknown table is named with its nearest neighbour; a folder that is not there is an error."""
    assert "perhaps you mean 'token_transfer'" in project.refused("export", "token_transfers", code=2)
    assert "cannot be written" in project.refused(
        "export", "token_transfer", "-o", str(tmp_path / "no" / "where.csv"), code=1
    )
