"""The JSON documents have the shape of the interface, and the same truth is shown to people."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servers.recorded import LAST_BLOCK, RecordedProject


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> RecordedProject:
    """The example, indexed to its last block."""
    made = RecordedProject.create(tmp_path_factory.mktemp("documents"))
    made.ok("run", "--until", str(LAST_BLOCK))
    return made


Shape = Any
"""A type, a tuple of types, a function, a list with one shape (or the very texts), or a dict of shapes."""


def fits(value: Any, shape: Shape) -> bool:
    """Whether a document has a shape. Fields may be added, so extra ones do not matter."""
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(key in value and fits(value[key], s) for key, s in shape.items())
    if isinstance(shape, list):
        if not shape or isinstance(shape[0], str):
            return bool(value == shape)
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, type | tuple):
        return isinstance(value, shape) and not (isinstance(value, bool) and shape is int)
    return bool(shape(value)) if callable(shape) else value == shape


def matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


NONE = type(None)
HEX = matches("0x[0-9a-f]{64}")
DIGEST = matches("[0-9a-f]{64}")
STATUS = {
    "schema": 1,
    "app": "erc20",
    "version": "v1",
    "sources": {
        "mainnet": {
            "kind": "replay",
            "mode": "stopped",
            "head": LAST_BLOCK,
            "finalized": int,
            "indexed": LAST_BLOCK,
            "hash": HEX,
            "lag": {"positions": 0, "seconds": float},
            "gaps": [],
            "evidence": {"proved": 409, "checked": 0, "trusted": 0},
            "leader": None,
            "reorgs": {"count": 1, "deepest": 6},
            "quarantined": 0,
            "reason": str,
        }
    },
    "tables": {"token_transfer": {"rows": 4709}, "token_approval": {"rows": int}},
}
GAP = {"source": str, "from": int, "to": int, "reason": str, "since": matches(r"\d{4}-.*Z"), "attempts": int}


def test_the_shapes_bite() -> None:
    """A document that lacks a field or has another type does not fit."""
    assert fits({"a": 1, "more": 2}, {"a": int})
    assert not fits({"a": "1"}, {"a": int})
    assert not fits({"a": True}, {"a": int})
    assert not fits({}, {"a": int})
    assert not fits([1], [])
    assert not fits([{"from": 1}], [GAP])
    assert not fits("xyz", HEX)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (["status"], STATUS),
        (["gaps"], {"schema": 1, "gaps": []}),
        (["digest"], {"source": "mainnet", "range": [int], "entries": 409, "digest": DIGEST}),
        (["digest", "--range", "5..9"], {"entries": 5, "digest": DIGEST, "state": None}),
        (["verify", "--range", "390.."], {"range": [int], "checked": 19, "mismatches": []}),
        (["plan"], {"sources": {"mainnet": {"from": 409, "positions": 0, "requests_estimated": 0}}}),
        (["quarantine", "list"], {"quarantine": []}),
        (["flags", "list"], {"flags": {}}),
        (["flags"], {"flags": {}}),
        (["lease"], {"leases": [{"source": "mainnet"}]}),
        (["lease", "show"], {"leases": [{"source": "mainnet", "fence": int, "live": False, "holder": (str, NONE)}]}),
        (["config", "check"], {"ok": True, "app": "erc20", "tables": ["token_approval", "token_transfer"]}),
        (["config", "show"], {"config": {"app": {"name": "erc20"}, "lease": {"ttl": "15 seconds"}}}),
        (["doctor"], {"ok": True, "checks": [{"check": str, "state": matches("ok|warn"), "detail": str}]}),
        (["query", "select 1 as one"], {"columns": ["one"], "rows": [[1]], "truncated": False}),
        (["rewind", "--to", "400", "--dry-run"], {"source": "mainnet", "to": 400, "undone": 8, "dry_run": True}),
        (["replay", "--dry-run"], {"source": "mainnet", "range": [int], "dry_run": True}),
        (["repair"], {"dry_run": False, "ranges": []}),
    ],
)
def test_documents(project: RecordedProject, arguments: list[str], shape: Shape) -> None:
    """Each command's document has the fields and types that are promised."""
    found = project.json(*arguments)
    assert fits(found, shape), found


def test_status_for_people(project: RecordedProject) -> None:
    """The table says the same: where it is, how it was checked, the fork, the rows."""
    said = project.ok("status")
    for part in ("mainnet", "stopped", "408", "409 proved", "1 (deepest 6)", "4 709", "token_approval"):
        assert part in said


def test_digest_of_rows_and_of_the_books(project: RecordedProject) -> None:
    """The hash over the rows as they are equals the hash over what was written at commit."""
    computed, stored = project.json("digest"), project.json("digest", "--stored")
    assert computed["digest"] == stored["digest"]
    assert project.ok("digest").split()[0] == computed["digest"]


def test_verify_against_another_deployment(project: RecordedProject, tmp_path: Path) -> None:
    """Two databases of the same chain agree, and where one was tampered with the entry is named."""
    other = project.copy(tmp_path / "other")
    url = f"sqlite:///{other.folder}/erc20.db"
    assert project.json("verify", "--against", url)["mismatches"] == []
    other.sql("update v1_gapless_entries set digest = 'ff' where position = 7")
    found = project.json("verify", "--against", url, code=1)
    assert [m["position"] for m in found["mismatches"]] == [7]


def test_config_show(project: RecordedProject) -> None:
    """What is in force is shown as TOML, with its origin on request, and secrets hidden."""
    assert tomllib.loads(project.ok("config", "show"))["sources"]["mainnet"]["verify"] == "proved"
    done = project.run(
        "config", "show", "--origin", GAPLESS_STORE__URL="postgresql://me:hunter2@db/x", GAPLESS_LEASE__TTL="9 seconds"
    )
    assert 'ttl = "9 seconds"  # environment GAPLESS_LEASE__TTL' in done.stdout
    assert 'verify = "proved"  # file' in done.stdout
    assert "poll" in done.stdout
    assert "hunter2" not in done.stdout
    assert "# default" in done.stdout


def test_config_schema(project: RecordedProject) -> None:
    """The schema is a JSON document by itself, for editors."""
    import json

    found = json.loads(project.ok("config", "schema"))
    assert found["properties"]["store"]


def test_flags(project: RecordedProject, tmp_path: Path) -> None:
    """A flag is set, shown and unset; doing it twice changes nothing."""
    mine = project.copy(tmp_path / "mine")
    assert mine.json("flags", "set", "writes_enabled", "false", "--dry-run")["changed"] is False
    assert mine.json("flags", "list")["flags"] == {}
    assert mine.json("flags", "set", "writes_enabled", "false")["changed"] is True
    assert mine.json("flags", "set", "writes_enabled", "false")["changed"] is False
    assert mine.json("flags", "list")["flags"] == {"writes_enabled": "false"}
    assert "writes_enabled" in mine.ok("flags", "list")
    assert mine.json("flags", "unset", "writes_enabled")["before"] == "false"
    assert mine.json("flags", "list")["flags"] == {}
