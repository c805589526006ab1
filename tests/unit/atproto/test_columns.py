"""Commits and repositories as rows."""

from __future__ import annotations

import json

import msgspec
import pytest

from gapless.sources.atproto.cid import cid_of, cid_text
from gapless.sources.atproto.columns import CollectionFilter, commit_columns, repository_columns
from gapless.sources.atproto.frames import Op
from gapless.sources.atproto.record import record_json
from gapless.sources.atproto.repository import read_repository
from gapless.sources.atproto.verification import verify_commit
from unit.atproto.forge import Forge
from unit.atproto.material import NOW_US


def test_each_operation_is_a_row() -> None:
    """Creates and updates with their record, deletes as tombstones with the revision that deleted."""
    forge = Forge(41)
    forge.commit(creates=6)
    state = forge.state
    message = forge.commit(creates=2, updates=1, deletes=2)
    outcome = verify_commit(message, forge.key, state, now_us=NOW_US)
    columns = commit_columns([(message, outcome.records)])
    assert len(columns) == len(message.ops) == 5
    assert columns.unreadable == []
    assert set(columns.rev) == {message.rev}
    for index, op in enumerate(message.ops):
        assert columns.uri[index] == f"at://{forge.did}/{op.path}"
        assert (columns.collection[index], columns.rkey[index], columns.action[index]) == (
            op.collection,
            op.rkey,
            op.action,
        )
        if op.cid is None:
            assert columns.cid[index] is columns.record[index] is None
        else:
            assert columns.cid[index] == cid_text(op.cid)
            assert columns.record[index] == record_json(forge.record_blocks[op.cid])


def test_an_unreadable_record_keeps_its_row_and_harms_no_sibling() -> None:
    """The tree holds it, so the table must, too: without a record, and with its bytes aside."""
    forge = Forge(42)
    good = forge.record()
    bad = forge.record({"$type": "com.example.note", "x": 1.5})
    message = forge.commit()
    ops = (Op("create", "com.example.note/1", cid_of(good)), Op("create", "com.example.note/2", cid_of(bad)))
    columns = commit_columns([(msgspec.structs.replace(message, ops=ops), (good, bad))])
    assert columns.record == [record_json(good), None]
    assert columns.cid == [cid_text(cid_of(good)), cid_text(cid_of(bad))]
    (found,) = columns.unreadable
    assert (found.uri, found.seq, found.kind, found.block) == (columns.uri[1], message.seq, "float", bad)


@pytest.mark.parametrize(
    ("patterns", "wanted", "unwanted"),
    [
        ([], ["a.b.c", "x"], []),
        (["app.bsky.feed.*"], ["app.bsky.feed.post"], ["app.bsky.feedback.post", "app.bsky.feed", "com.example.note"]),
        (["app.bsky.graph.follow"], ["app.bsky.graph.follow"], ["app.bsky.graph.followers", "app.bsky.graph"]),
        (["a.b.c", "d.e.*"], ["a.b.c", "d.e.f", "d.e.f.g"], ["a.b.d"]),
    ],
)
def test_collections_are_chosen_by_name_or_prefix(patterns: list[str], wanted: list[str], unwanted: list[str]) -> None:
    """A prefix ends at a dot; without any pattern every collection is wanted."""
    wants = CollectionFilter(patterns).wants
    assert all(wants(name) for name in wanted)
    assert not any(wants(name) for name in unwanted)


def test_unwanted_collections_make_no_rows() -> None:
    """Neither out of commits nor out of repositories; and both give the same rows."""
    forge = Forge(43)
    message = forge.commit(creates=4)
    blocks = [forge.record_blocks[op.cid or b""] for op in message.ops]
    none = CollectionFilter(["app.bsky.*"])
    assert len(commit_columns([(message, blocks)], none)) == 0
    with read_repository([forge.car()], forge.did, forge.key) as repo:
        records = list(repo.records())
        rows = repository_columns(repo.did, repo.rev, records)
        assert len(repository_columns(repo.did, repo.rev, records, none)) == 0
    live = commit_columns([(message, blocks)])
    assert sorted(zip(rows.uri, rows.cid, rows.record, rows.rev, strict=True)) == sorted(
        zip(live.uri, live.cid, live.record, live.rev, strict=True)
    )
    assert json.loads(rows.record[0] or "")["$type"] == "com.example.note"
