"""Against an implementation of another origin (arroba): its commits verify here, its trees have the roots ours have.

The files are made by `tests/data/atproto/crosscheck.py`, which needs an environment of its own.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from gapless.sources.atproto.batch import verify_commits
from gapless.sources.atproto.cid import cid_of, cid_text, parse_cid
from gapless.sources.atproto.frames import Commit, RepoFrame, Sync, decode_frames
from gapless.sources.atproto.mst import build_root
from gapless.sources.atproto.record import record_block, record_json
from gapless.sources.atproto.repository import root_of
from gapless.sources.atproto.verification import Verdict
from unit.atproto.material import CARRIED, NOW_US, recorded_frames

LEAF = parse_cid("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CARRIED / "crosscheck.json").read_text())
    return found


@pytest.fixture(scope="module")
def messages() -> list[RepoFrame]:
    return decode_frames(recorded_frames(CARRIED / "arroba.frames.xz"))


def test_trees_have_the_same_roots(said: dict[str, Any]) -> None:
    """Keys put into its tree one by one, in any order, have the root that ours is built to."""
    for case in said["roots"]:
        rng = random.Random(case["seed"])
        paths = {f"com.example.note/{rng.randrange(10**9):010d}" for _ in range(case["seed"] ** 2 * 4)}
        assert len(paths) == case["count"]
        assert cid_text(build_root(dict.fromkeys(paths, LEAF))) == case["root"]


def test_its_commits_verify_and_end_in_its_records(said: dict[str, Any], messages: list[RepoFrame]) -> None:
    """Each commit is proved with the blocks it chose to send, though it never writes `since`; and the records at the
    end, by path and CID, are those it lists."""
    assert Counter(type(one).__name__ for one in messages) == {"Commit": 123, "Sync": 3, "Identity": 3, "Account": 3}
    signed = [one for one in messages if isinstance(one, Commit | Sync)]
    verified = verify_commits(signed, said["keys"], {}, now_us=NOW_US)
    assert [(one.kind, one.detail) for one in verified.outcomes if one.verdict is not Verdict.OK] == []
    assert all(one.linked for one in verified.outcomes)
    assert {one.since for one in signed if isinstance(one, Commit)} == {None}
    tables: dict[str, dict[str, bytes]] = {did: {} for did in said["keys"]}
    for message, outcome in zip(signed, verified.outcomes, strict=True):
        if isinstance(message, Commit):
            for op, record in zip(message.ops, outcome.records, strict=True):
                if op.cid is None:
                    del tables[message.did][op.path]
                    continue
                tables[message.did][op.path] = op.cid
                assert record is not None
                assert cid_of(record_block(json.loads(record_json(record)))) == op.cid
    assert {did: {path: cid_text(cid) for path, cid in table.items()} for did, table in tables.items()} == said[
        "records"
    ]
    for did, table in tables.items():
        assert root_of(sorted(table.items())) == verified.states[did].data
