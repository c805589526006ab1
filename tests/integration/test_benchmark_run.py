"""The short benchmark of continuous integration: every job of ours on a small chain. Rows decide, no time does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from benchmarks.chain import ROOT

from servers.anvil import anvil_binary


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("anvil_path")
def test_a_short_benchmark_finds_the_right_rows() -> None:
    """Into both databases, whole blocks, Parquet: each run's rows are those of the chain, and the report has them."""
    assert anvil_binary().is_file()
    command = [sys.executable, "-m", "benchmarks", "--blocks", "30", "--runs", "1", "--no-start-up", "--json"]
    done = subprocess.run(
        [*command, "--only", "checked"], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    jobs = sorted((row["job"], row["sink"]) for row in found["medians"])
    assert jobs == [
        ("parquet", "Parquet"),
        ("postgres", "Postgres"),
        ("sqlite", "SQLite"),
        ("whole", "Postgres"),
        ("whole", "SQLite"),
    ]
    assert {row["logs"] for row in found["runs"]} == {3002, 3062}
