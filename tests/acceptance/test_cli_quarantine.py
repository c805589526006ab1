"""What a handler could not take waits with its bytes, and is retried after the fix or discarded."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.recorded import LAST_BLOCK, RecordedProject

APP = """
import gapless
app = gapless.App("erc20")
chain = app.replay("mainnet", file="chain.jsonl.gz", poll="50 ms")
token = chain.contract("token", abi="erc20", events=["Transfer"])

@app.table
class Sent:
    amount: gapless.UInt256

@app.on(token.Transfer, independent=True)
def keep(event, tables):
    if BROKEN and event.block_number in (77, 78):
        raise ValueError("cannot take it")
    tables[Sent].insert(Sent(event.value))
"""


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> RecordedProject:
    made = RecordedProject.create(tmp_path_factory.mktemp("quarantine"))
    (made.folder / "app.py").write_text("BROKEN = True\n" + APP)
    made.ok("-c", "app.py:app", "run", "--until", str(LAST_BLOCK))
    return made


@pytest.fixture
def project(indexed: RecordedProject, tmp_path: Path) -> RecordedProject:
    return indexed.copy(tmp_path / "project")


def command(*arguments: str) -> tuple[str, ...]:
    return ("-c", "app.py:app", "quarantine", *arguments)


def test_list_and_show(project: RecordedProject) -> None:
    """Each item is listed with where it is, who could not take it and why, and shown with its bytes."""
    found = project.json(*command("list"))["quarantine"]
    assert {item["position"] for item in found} == {77, 78}
    first = found[0]
    assert first["source"] == "mainnet"
    assert first["consumer"] == "keep"
    assert "cannot take it" in first["reason"]
    assert "log" in first["item"]
    assert "cannot take it" in project.ok(*command("list"))
    shown = project.json(*command("show", str(first["id"])))
    assert shown["payload"]
    assert project.json("-c", "app.py:app", "status")["sources"]["mainnet"]["quarantined"] == len(found)
    doctor = project.json("-c", "app.py:app", "doctor")
    assert any(check["check"] == "quarantine" for check in doctor["checks"])


def test_retry_after_the_fix(project: RecordedProject) -> None:
    """While it is broken a retry leaves the items; after the fix their rows are there and nothing waits."""
    items = len(project.json(*command("list"))["quarantine"])
    rows = project.json("-c", "app.py:app", "status")["tables"]["sent"]["rows"]
    assert project.json(*command("retry", "--all"), code=1)["left"] == items
    (project.folder / "app.py").write_text("BROKEN = False\n" + APP)
    assert project.json(*command("retry", "--all", "--dry-run"))["entries"] == 2
    assert project.json(*command("retry", "--all"))["left"] == 0
    assert project.json(*command("list"))["quarantine"] == []
    assert project.json("-c", "app.py:app", "status")["tables"]["sent"]["rows"] == rows + items
    assert project.ok(*command("list")) == "The quarantine is empty.\n"


def test_discard(project: RecordedProject) -> None:
    """Items are discarded by id or all together, and a dry run keeps them."""
    ids = [item["id"] for item in project.json(*command("list"))["quarantine"]]
    assert "Which items?" in project.refused(*command("discard"), code=2)
    assert "999999" in project.refused(*command("discard", "999999"), code=2)
    assert project.json(*command("discard", str(ids[0]), "--dry-run"))["discarded"] == 0
    assert project.json(*command("discard", str(ids[0])))["discarded"] == 1
    assert project.json(*command("discard", "--all"))["discarded"] == len(ids) - 1
    assert project.json(*command("list"))["quarantine"] == []
