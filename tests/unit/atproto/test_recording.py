"""Real data: the recorded PDS replayed to its end, and frames of the real network."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

import libipld
import msgspec
import pytest

from gapless.errors import Contradiction
from gapless.sources.atproto.accounts import Effect, Standing, hear
from gapless.sources.atproto.batch import verify_commits
from gapless.sources.atproto.car import read_car
from gapless.sources.atproto.cid import cid_of, cid_text, parse_cid
from gapless.sources.atproto.commit import read_commit
from gapless.sources.atproto.dagcbor import decode, encode
from gapless.sources.atproto.did_document import read_did_document
from gapless.sources.atproto.difference import resync
from gapless.sources.atproto.frames import Account, Commit, RepoFrame, Sync, decode_frame, decode_frames
from gapless.sources.atproto.keys import parse_did_key
from gapless.sources.atproto.mst import entries, lookup
from gapless.sources.atproto.record import record_block, record_json
from gapless.sources.atproto.repository import read_repository, root_of
from gapless.sources.atproto.verification import Level, RepoState, Verdict, verify_commit
from unit.atproto.material import (
    CARRIED,
    NOW_US,
    carried_messages,
    network_frames,
    network_keys,
    plc_keys,
    recorded_frames,
    shared,
)

Tables = dict[str, dict[str, bytes]]


def replayed(messages: Sequence[RepoFrame]) -> tuple[Tables, dict[str, RepoState], dict[str, Standing]]:
    """What a consumer holds at the end: records, states, standings. Every message must verify on the way."""
    tables: Tables = {}
    states: dict[str, RepoState] = {}
    standings: dict[str, Standing] = {}
    signed = [m for m in messages if isinstance(m, Commit | Sync)]
    verified = verify_commits(signed, plc_keys(), states, now_us=NOW_US)
    outcomes = iter(verified.outcomes)
    for message in messages:
        if isinstance(message, Account):
            heard = hear(standings.get(message.did, Standing()), message, "ws://localhost")
            standings[message.did] = heard.standing
            if heard.effect is Effect.PURGE:
                del tables[message.did]
                del verified.states[message.did]
        if not isinstance(message, Commit | Sync):
            continue
        outcome = next(outcomes)
        assert outcome.verdict is Verdict.OK, (message.seq, outcome)
        assert outcome.linked
        if isinstance(message, Commit):
            table = tables.setdefault(message.did, {})
            for op, record in zip(message.ops, outcome.records, strict=True):
                assert table.get(op.path) == op.prev
                if op.cid is None:
                    del table[op.path]
                else:
                    assert record is not None
                    table[op.path] = op.cid
                    assert cid_of(record_block(json.loads(record_json(record)))) == op.cid
        assert outcome.state is not None
        assert root_of(sorted(tables[message.did].items())) == outcome.state.data
    return tables, verified.states, standings


def test_the_carried_recording_replays() -> None:
    """Each of 900 messages verifies, links, and leaves a table whose root is the signed one; every record's JSON leads
    back to its CID."""
    tables, states, _ = replayed(carried_messages())
    assert len(tables) == 24
    assert {did: root_of(sorted(table.items())) for did, table in tables.items()} == {
        did: state.data for did, state in states.items()
    }


def test_the_whole_recording_replays_to_its_final_state() -> None:
    """3,288 messages of a real PDS end in exactly the records it lists, and in each repository it serves."""
    frames = recorded_frames(shared("local-pds/firehose-live.frames.xz"))
    tables, states, standings = replayed(decode_frames(frames))
    listed = json.loads(shared("local-pds/records.json").read_text())
    assert {did: {path: cid_text(cid) for path, cid in tables[did].items()} for did in listed} == listed
    status = json.loads(shared("local-pds/status.json").read_text())
    for did, found in status.items():
        assert standings.get(did, Standing()).active is found["repoStatus"].get("active", False)
    with tarfile.open(shared("local-pds/repos.tar.xz")) as archive:
        members = [member for member in archive if member.isfile()]
        assert len(members) == 21
        for member in members:
            did = member.name.rsplit("/", 1)[-1].removesuffix(".car").replace("_", ":")
            car = archive.extractfile(member)
            assert car is not None
            with read_repository(
                iter(lambda file=car: file.read(1000), b""), did, parse_did_key(plc_keys()[did])
            ) as repo:
                assert (repo.rev, repo.data) == (states[did].rev, states[did].data)
                assert list(resync(sorted(tables[did].items()), repo.paths())) == []
                assert {r.path: cid_of(r.block) for r in repo.records()} == tables[did]


def test_signatures_that_read_as_cids_are_signatures() -> None:
    """Three of the recording's 3,165 signatures begin like a CID: reading links by their looks alone, as the library
    does, would lose these commits."""
    frames = recorded_frames(shared("local-pds/firehose-live.frames.xz"))
    looks = 0
    for message in decode_frames(frames):
        if isinstance(message, Commit | Sync):
            car = read_car(message.blocks)
            commit = read_commit(car.blocks[car.root])
            looks += encode(commit.signature)[:1] == b"\xd8"
    assert looks == 3


# --- the real network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", list(Level))
def test_every_commit_of_the_network_verifies(level: Level) -> None:
    """100 contiguous frames of the relay, with the keys of their DID documents."""
    frames = [message for message in decode_frames(network_frames()) if isinstance(message, Commit)]
    assert len(frames) == 100
    assert [m.seq for m in frames] == list(range(frames[0].seq, frames[0].seq + 100))
    verified = verify_commits(frames, network_keys(), {}, level=level, now_us=NOW_US)
    assert Counter(one.verdict for one in verified.outcomes) == {Verdict.OK: 100}


def jetstream(message: Commit, records: Sequence[bytes | None]) -> list[dict[str, Any]]:
    """The events that Jetstream makes of a commit."""
    events = []
    for op, record in zip(message.ops, records, strict=True):
        commit: dict[str, Any] = {
            "rev": message.rev,
            "operation": op.action,
            "collection": op.collection,
            "rkey": op.rkey,
        }
        if record is not None and op.cid is not None:
            commit |= {"record": msgspec.json.decode(record_json(record)), "cid": cid_text(op.cid)}
        events.append({"did": message.did, "kind": "commit", "commit": commit})
    return events


def test_the_networks_jetstream_lines_are_reproduced() -> None:
    """Our decoded form of the frames gives, value for value, what production Jetstream sent for them."""
    lines = gzip.decompress(shared("firehose-corpus/expected_jetstream_v1.jsonl.gz").read_bytes()).splitlines()
    expected = [json.loads(line) for line in lines]
    for event in expected:
        del event["time_us"]
    frames = [message for message in decode_frames(network_frames()) if isinstance(message, Commit)]
    outcomes = verify_commits(frames, network_keys(), {}, now_us=NOW_US).outcomes
    ours = [event for message, one in zip(frames, outcomes, strict=True) for event in jetstream(message, one.records)]

    def order(event: dict[str, Any]) -> str:
        return json.dumps(event, sort_keys=True)

    assert len(ours) == len(expected) == 102
    assert sorted(ours, key=order) == sorted(expected, key=order)


def test_single_commits_of_the_network_read() -> None:
    """Commits that another implementation keeps as fixtures, of the time before `prevData`: enough for `checked`."""
    found = sorted(shared("indigo/atproto/repo").glob("firehose_commit_*.json"))
    assert found
    for path in found:
        message = legacy(json.loads(path.read_text()))
        assert verify_commit(message, None, None, level=Level.CHECKED, now_us=NOW_US).verdict is Verdict.OK
        car = read_car(message.blocks)
        tree = read_commit(car.blocks[car.root]).data
        for op in message.ops:
            assert lookup(car.blocks, tree, op.path) == op.cid


def legacy(body: dict[str, Any]) -> Commit:
    """A `#commit` out of its JSON form, by way of its frame."""
    shown = {name: value for name, value in body.items() if name != "blobs"}
    frame = libipld.encode_dag_cbor({"op": 1, "t": "#commit"}) + record_block(shown)
    message = decode_frame(frame)
    assert isinstance(message, Commit), message
    return message


@pytest.mark.parametrize("scene", ["legacy", "post_lifecycle", "seq_ordering"])
def test_the_relays_own_scenes(scene: str) -> None:
    """Scripted scenes of the reference relay: what it takes verifies, with its key."""
    script = json.loads(shared(f"indigo/cmd/relay/repo/{scene}.json").read_text())
    keys = {
        account["identity"]["did"]: "did:key:" + account["identity"]["keys"]["atproto"]["publicKeyMultibase"]
        for account in script["accounts"]
    }
    commits = [
        legacy(message["frame"]["body"])
        for message in script["messages"]
        if message["frame"]["header"]["t"] == "#commit" and not message["invalid"]
    ]
    proved = [one for one in commits if one.prev_data is not None]
    outcomes = verify_commits(proved, keys, {}, now_us=NOW_US).outcomes
    assert {one.verdict for one in outcomes} <= {Verdict.OK}
    checked = verify_commits(commits[:1], keys, {}, level=Level.CHECKED, now_us=NOW_US).outcomes
    assert checked[0].verdict is Verdict.OK


def test_a_repository_of_the_network_reads() -> None:
    """The commit and records of a real repository are those another tool lists."""
    car = read_car(shared("firehose-corpus/repo.car").read_bytes())
    commit = read_commit(car.blocks[car.root])
    said = dict(
        line.split(": ", 1) for line in shared("firehose-corpus/car_expected_commit.txt").read_text().splitlines()
    )
    assert (commit.did, cid_text(commit.data), commit.rev) == (said["DID"], said["Data CID"], said["Revision"])
    listed = [line.split() for line in shared("firehose-corpus/car_expected_records.tsv").read_text().splitlines()]
    assert [[path, cid_text(cid)] for path, cid in entries(car.blocks, commit.data)] == listed


def test_a_repository_must_be_of_the_account_asked_for() -> None:
    """A real export that is signed by the key of the document beside it, and names another account: only both together
    make it the account's."""
    found = json.loads(shared("indigo/repo/greenground.didDoc.json").read_text())
    document = read_did_document(found["id"], found)
    data, key = shared("indigo/repo/greenground.repo.car").read_bytes(), parse_did_key(document.signing_key)
    with read_repository([data], "did:plc:kzcqyc3unb33eh5sxzsfs25z", key) as repo:
        assert repo.check_whole() == 2
    with pytest.raises(Contradiction) as error:
        read_repository([data], document.did, key)
    assert error.value.kind == "wrong_did"


@pytest.mark.parametrize(("name", "records"), [("paul_staging.repo.car", 185), ("divy.repo", 6)])
def test_trees_of_before_2023_have_todays_form(name: str, records: int) -> None:
    """Exports of version 2 have no revision and are refused by name; their trees read, each rule of the form held."""
    car = read_car(shared(f"indigo/repo/{name}").read_bytes())
    with pytest.raises(Contradiction) as error:
        read_commit(car.blocks[car.root])
    assert error.value.kind == "commit_version"
    found = list(entries(car.blocks, decode(car.blocks[car.root])["data"]))
    assert len(found) == records
    assert all(cid in car.blocks for _, cid in found)


def test_the_carried_repository_is_what_the_pds_listed() -> None:
    """One `getRepo` of the recorded PDS, read in small pieces."""
    (path,) = (CARRIED / "local-pds").glob("*.car")
    did = path.stem.replace("_", ":")
    data = path.read_bytes()
    pieces = [data[at : at + 777] for at in range(0, len(data), 777)]
    with read_repository(pieces, did, parse_did_key(plc_keys()[did])) as repo:
        paths = list(repo.paths())
        assert repo.check_whole() == len(paths) > 50
        assert root_of(paths) == repo.data
        assert parse_cid(cid_text(repo.data)) == repo.data
