"""Commits and syncs: what is believed, what is refused, and with which reason."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.errors import Contradiction
from gapless.model import Evidence
from gapless.sources.atproto.car import read_car, write_car
from gapless.sources.atproto.cid import cid_of
from gapless.sources.atproto.commit import read_commit
from gapless.sources.atproto.dagcbor import decode, encode
from gapless.sources.atproto.frames import Commit, Op, Sync
from gapless.sources.atproto.keys import parse_did_key
from gapless.sources.atproto.mst import EMPTY_NODE, EMPTY_ROOT, build_root, layer_of
from gapless.sources.atproto.refusals import REFUSALS, refusal
from gapless.sources.atproto.syntax import tid
from gapless.sources.atproto.verification import Level, Outcome, RepoState, Verdict, verify_commit, verify_sync
from unit.atproto.forge import START_US, Forge
from unit.atproto.material import NOW_US, a_commit, carried_messages, plc_keys

LEVELS = list(Level)


def grown(seed: int = 0, commits: int = 5) -> tuple[Forge, RepoState | None]:
    """A repository with a few commits, and its state."""
    forge = Forge(seed)
    for _ in range(commits):
        forge.commit(creates=8)
    return forge, forge.state


def verify(
    forge: Forge, message: Commit | Sync, state: RepoState | None, level: Level = Level.PROVED, **more: Any
) -> Outcome:
    check: Any = verify_commit if isinstance(message, Commit) else verify_sync
    outcome: Outcome = check(message, forge.key, state, level=level, now_us=NOW_US, **more)
    return outcome


def with_blocks(message: Commit, change: Any) -> Commit:
    """The message with its blocks changed by a function of (root, blocks)."""
    car = read_car(message.blocks)
    blocks = dict(car.blocks)
    return msgspec.structs.replace(message, blocks=write_car(change(car.root, blocks) or car.root, blocks))


def resigned(forge: Forge, message: Commit, **fields: Any) -> Commit:
    """The message with a commit object that has other fields, signed anew."""
    car = read_car(message.blocks)
    value = decode(car.blocks[car.root])
    del value["sig"]
    commit = forge.commit_object(value.pop("rev"), value.pop("data"), **(value | fields))
    blocks = {cid: block for cid, block in car.blocks.items() if cid != car.root} | {cid_of(commit): commit}
    return msgspec.structs.replace(message, commit=cid_of(commit), blocks=write_car(cid_of(commit), blocks))


@pytest.mark.parametrize("level", LEVELS)
def test_a_chain_of_commits_is_taken(level: Level) -> None:
    """From the first on, each commit follows, with the evidence of its level and its records' blocks."""
    forge, state = Forge(3), None
    for creates, updates, deletes in [
        (0, 0, 0),
        (3, 0, 0),
        (5, 2, 1),
        (0, 0, 4),
        (0, 1, 0),
        (40, 3, 3),
        (0, 0, 40),
        (1, 0, 0),
    ]:
        message = forge.commit(creates, updates, deletes)
        outcome = verify(forge, message, state, level)
        assert outcome.verdict is Verdict.OK, outcome
        assert outcome.linked
        assert (
            outcome.evidence is {"off": Evidence.TRUSTED, "checked": Evidence.CHECKED, "proved": Evidence.PROVED}[level]
        )
        assert [block and cid_of(block) for block in outcome.records] == [op.cid for op in message.ops]
        if level is not Level.OFF:
            assert outcome.state == forge.state
        state = forge.state
    assert verify(forge, forge.sync(), state).verdict is Verdict.OK


CHANGES: dict[str, tuple[Any, str, Verdict]] = {
    "another account": (lambda f, m: {"did": "did:plc:other"}, "wrong_did", Verdict.REFUSED),
    "another revision": (lambda f, m: {"rev": tid(START_US)}, "wrong_rev", Verdict.REFUSED),
    "another commit": (lambda f, m: {"commit": EMPTY_ROOT}, "wrong_commit", Verdict.REFUSED),
    "no blocks": (lambda f, m: {"blocks": b""}, "car", Verdict.REFUSED),
    "blocks cut short": (lambda f, m: {"blocks": m.blocks[:-1]}, "car", Verdict.REFUSED),
    "blocks too large": (lambda f, m: {"blocks": bytes(2_000_001)}, "car_size", Verdict.REFUSED),
    "201 operations": (lambda f, m: {"ops": m.ops * 201}, "too_many_ops", Verdict.REFUSED),
    "one operation twice": (lambda f, m: {"ops": m.ops + m.ops[:1]}, "op_twice", Verdict.REFUSED),
    "an unknown action": (lambda f, m: op_with(m, action="upsert"), "op_form", Verdict.REFUSED),
    "a create with a previous CID": (lambda f, m: op_with(m, prev=EMPTY_ROOT), "op_form", Verdict.REFUSED),
    "a create without a CID": (lambda f, m: op_with(m, cid=None), "op_form", Verdict.REFUSED),
    "a delete with a CID": (lambda f, m: op_with(m, action="delete"), "op_form", Verdict.REFUSED),
    "a blob's CID": (lambda f, m: op_with(m, cid=b"\x01\x55\x12\x20" + bytes(32)), "op_form", Verdict.REFUSED),
    "a path without a key": (lambda f, m: op_with(m, path="com.example.note/"), "op_path", Verdict.REFUSED),
    "a path that is no NSID": (lambda f, m: op_with(m, path="note/1"), "op_path", Verdict.REFUSED),
    "another record": (lambda f, m: op_with(m, cid=cid_of(b"x")), "record_missing", Verdict.REFUSED),
    "another path": (lambda f, m: op_with(m, path="com.example.note/x"), "op_mismatch", Verdict.BROKEN),
    "an operation left out": (lambda f, m: {"ops": m.ops[1:]}, "inversion", Verdict.BROKEN),
    "all operations left out": (lambda f, m: {"ops": ()}, "inversion", Verdict.BROKEN),
    "another tree before": (lambda f, m: {"prev_data": EMPTY_ROOT}, "inversion", Verdict.BROKEN),
    "no tree before": (lambda f, m: {"prev_data": None}, "no_prev_data", Verdict.BROKEN),
    "too big": (lambda f, m: {"too_big": True}, "too_big", Verdict.BROKEN),
    "a rebase": (lambda f, m: {"rebase": True}, "rebase", Verdict.BROKEN),
    "another revision before": (lambda f, m: {"since": tid(START_US)}, "broken_since", Verdict.BROKEN),
    "neither revision nor tree before": (lambda f, m: {"since": None, "prev_data": None}, "inversion", Verdict.BROKEN),
}


def op_with(message: Commit, **changes: Any) -> dict[str, Any]:
    index = next(i for i, op in enumerate(message.ops) if op.action == "create")
    ops = list(message.ops)
    ops[index] = msgspec.structs.replace(ops[index], **changes)
    return {"ops": tuple(ops)}


@pytest.mark.parametrize("name", CHANGES)
def test_a_message_that_was_changed_is_refused_by_name(name: str) -> None:
    """Each field matters, and the reason says which."""
    change, kind, verdict = CHANGES[name]
    forge, state = grown()
    message = forge.commit(creates=2, updates=1, deletes=1)
    assert verify(forge, message, state).verdict is Verdict.OK
    outcome = verify(forge, msgspec.structs.replace(message, **change(forge, message)), state)
    assert (outcome.kind, outcome.verdict) == (kind, verdict)
    assert outcome.evidence is Evidence.TRUSTED or kind == "broken_since"


def test_blocks_that_were_changed_are_refused_by_name() -> None:
    """A block that is not its CID's, a missing record, node or commit."""
    forge, state = grown(1)
    message = forge.commit(creates=1)

    def swap_record(root: bytes, blocks: dict[bytes, bytes]) -> None:
        blocks[message.ops[0].cid or b""] = encode({"$type": "com.example.note", "n": 0})

    def drop(cid: bytes) -> Any:
        return lambda root, blocks: blocks.pop(cid) and None

    def other_root(root: bytes, blocks: dict[bytes, bytes]) -> bytes:
        return message.ops[0].cid or b""

    assert verify(forge, with_blocks(message, swap_record), state).kind == "block_hash"
    assert verify(forge, with_blocks(message, drop(message.commit)), state).kind == "commit_missing"
    assert verify(forge, with_blocks(message, drop(message.ops[0].cid or b"")), state).kind == "record_missing"
    assert verify(forge, with_blocks(message, drop(forge.root)), state).kind == "incomplete"
    assert verify(forge, with_blocks(message, other_root), state).kind == "wrong_commit"
    extra = with_blocks(message, lambda root, blocks: blocks.update({cid_of(b"\xa0"): b"\xa0"}))
    assert verify(forge, extra, state).verdict is Verdict.OK


COMMIT_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "a field too many": ({"x": 1}, "commit_form"),
    "another version": ({"version": 4}, "commit_version"),
    "a version that is no number": ({"version": "3"}, "commit_version"),
    "another account": ({"did": "did:plc:other"}, "wrong_did"),
    "no DID": ({"did": "me"}, "did"),
}


@pytest.mark.parametrize("name", COMMIT_FIELDS)
def test_a_commit_object_is_held_to_its_form(name: str) -> None:
    """Even a signed one."""
    fields, kind = COMMIT_FIELDS[name]
    forge, state = grown(2)
    outcome = verify(forge, resigned(forge, forge.commit(), **fields), state)
    assert (outcome.kind, outcome.verdict) == (kind, Verdict.REFUSED)


def test_a_signature_is_no_link_even_where_it_reads_as_one() -> None:
    """One in a thousand does. As a byte string it is taken; the same bytes as a link are another block, and refused."""
    forge = Forge(13)
    value: dict[str, Any] = {"did": forge.did, "data": EMPTY_ROOT, "prev": None, "version": 3}
    for number in range(50_000):
        value["rev"] = tid(START_US + number)
        signature = forge.sign(encode(value))
        if encode(signature).startswith(b"\xd8"):
            break
    good = forge.commit_object(value["rev"], EMPTY_ROOT)
    assert read_commit(good).is_signed_by(forge.key)
    assert read_commit(good).signature == signature
    link = encode(value | {"sig": signature})
    assert link != good
    with pytest.raises(Contradiction) as error:
        read_commit(link)
    assert error.value.kind == "commit_form"


def test_a_previous_commit_may_be_named() -> None:
    """`prev` is null today and may be a CID: it is signed, and means nothing."""
    forge, state = grown(2)
    assert verify(forge, resigned(forge, forge.commit(), prev=EMPTY_ROOT), state).verdict is Verdict.OK


def test_a_bad_signature_asks_for_the_key_once() -> None:
    """A key may have been rotated: fetch it and try again; with a fresh key the message is refused."""
    forge, state = grown(4)
    message = forge.commit()
    other = Forge(99).key
    first = verify_commit(message, other, state, now_us=NOW_US)
    assert (first.verdict, first.kind) == (Verdict.BAD_SIGNATURE, "signature")
    again = verify_commit(message, other, state, now_us=NOW_US, key_is_fresh=True)
    assert (again.verdict, again.kind) == (Verdict.REFUSED, "signature")
    assert verify_commit(message, forge.key, state, now_us=NOW_US, key_is_fresh=True).verdict is Verdict.OK
    assert verify_commit(message, None, state, now_us=NOW_US).kind == "key"
    assert verify_sync(forge.sync(), other, state, now_us=NOW_US).verdict is Verdict.BAD_SIGNATURE


@pytest.mark.parametrize("level", LEVELS)
def test_a_record_too_large_is_refused(level: Level) -> None:
    """A megabyte is allowed and a byte more is not, in a commit whose blocks are within their own limit."""
    forge, state = grown(14)
    for size, verdict in ((1_000_000, Verdict.OK), (1_000_001, Verdict.REFUSED)):
        before, since = forge.root, forge.rev
        record = forge.record({"x": "y" * (size - 8)})
        path = forge.path()
        assert len(record) == size
        forge.records[path] = cid_of(record)
        forge.tree.clear()
        forge.root = build_root(forge.records, forge.tree.__setitem__)
        forge.seq += 1
        forge.rev = tid(START_US + forge.seq * 1_000_000)
        commit = forge.commit_object(forge.rev, forge.root)
        outcome = verify(
            forge, forge.message([Op("create", path, cid_of(record))], since, before, commit), state, level
        )
        assert outcome.verdict is verdict, outcome
        state = forge.state
    assert outcome.kind == "record_size"


def test_a_high_s_is_no_signature() -> None:
    """The other of the two signatures that the curve allows is refused."""
    forge, state = grown(4)
    assert verify(forge, forge.commit(high_s=True), state).kind == "signature"


def test_a_record_that_no_operation_names_is_found() -> None:
    """The host put more into the tree than it said: only undoing the operations shows it."""
    forge, state = grown(5)
    message = forge.commit(creates=1, extra=1)
    assert verify(forge, message, state).kind == "inversion"
    assert verify(forge, message, state, Level.CHECKED).verdict is Verdict.OK


def test_the_chain_is_held() -> None:
    """A replay is passed over; a commit after a missing one, or of another branch, breaks the chain."""
    forge, state = grown(6)
    first = forge.commit()
    between = forge.state
    second = forge.commit()
    assert verify(forge, second, state).kind == "broken_since"
    assert verify(forge, first, between).verdict is Verdict.STALE
    assert verify(forge, first, forge.state).verdict is Verdict.STALE
    assert between is not None
    other_tree = verify(forge, second, RepoState(between.rev, EMPTY_ROOT))
    assert (other_tree.verdict, other_tree.kind) == (Verdict.BROKEN, "broken_prev_data")
    assert other_tree.state == forge.state
    unknown = verify(forge, second, None)
    assert (unknown.verdict, unknown.linked) == (Verdict.OK, False)
    assert verify(forge, second, state, Level.OFF).verdict is Verdict.OK


def test_hosts_that_never_say_since_are_held_by_the_tree() -> None:
    """A whole network of bridged accounts is served by software that leaves `since` out: the tree before links."""
    forge, state = grown(6)
    message = msgspec.structs.replace(forge.commit(), since=None)
    assert verify(forge, message, state).linked
    assert state is not None
    assert verify(forge, message, RepoState(state.rev, EMPTY_ROOT)).kind == "broken_prev_data"
    assert not verify(forge, message, None).linked
    neither = msgspec.structs.replace(message, prev_data=None)
    assert verify(forge, neither, state, Level.CHECKED).kind == "broken_since"


def test_the_first_commit_must_be_the_whole_repository() -> None:
    """Without a revision before, undoing the operations must lead to the empty tree."""
    forge = Forge(7)
    assert verify(forge, forge.commit(creates=20), None).linked
    forge.rev = None
    assert verify(forge, forge.commit(creates=1), None).kind == "inversion"


def test_a_revision_in_the_future_is_refused() -> None:
    """More than five minutes ahead, and not before: otherwise one such revision would hide all later ones."""
    forge, state = grown(8)
    message = forge.commit()
    rev_us = START_US + forge.seq * 1_000_000
    for ahead_seconds, verdict in ((299, Verdict.OK), (301, Verdict.REFUSED)):
        outcome = verify_commit(message, forge.key, state, now_us=rev_us - ahead_seconds * 1_000_000)
        assert outcome.verdict is verdict
    assert outcome.kind == "future_rev"


def test_a_sync_says_whether_the_tree_is_held() -> None:
    """Equal, behind, ahead and unknown; and its size."""
    forge, state = grown(9)
    sync = forge.sync()
    assert verify(forge, sync, state).verdict is Verdict.OK
    assert state is not None
    newer = RepoState(tid(NOW_US), EMPTY_ROOT)
    assert verify(forge, sync, newer).verdict is Verdict.STALE
    for known in (None, RepoState(state.rev, EMPTY_ROOT), RepoState(tid(START_US), EMPTY_ROOT)):
        outcome = verify(forge, sync, known)
        assert (outcome.verdict, outcome.kind, outcome.state) == (Verdict.BROKEN, "ahead", state)
    assert verify(forge, sync, RepoState(tid(START_US), state.data)).state == state
    assert verify(forge, msgspec.structs.replace(sync, blocks=bytes(10_001)), state).kind == "car_size"
    assert verify(forge, msgspec.structs.replace(sync, did="did:plc:other"), state).kind == "wrong_did"


def test_frames_without_prev_data_are_checked_but_not_proved() -> None:
    """Frames of before 2025 name neither the tree nor the records before: enough for the chain, not for the proof."""
    forge, state = grown(10)
    message = forge.commit(creates=1, updates=1, deletes=1)
    legacy = msgspec.structs.replace(
        message, prev_data=None, ops=tuple(msgspec.structs.replace(op, prev=None) for op in message.ops)
    )
    assert verify(forge, legacy, state, Level.CHECKED).verdict is Verdict.OK
    assert verify(forge, legacy, state).kind == "no_prev_data"
    half = msgspec.structs.replace(message, ops=legacy.ops)
    assert verify(forge, half, state).kind == "no_prev_data"


def node(keys: list[str], left: bytes | None, rights: list[bytes | None], value: bytes) -> bytes:
    entries, before = [], ""
    for key, right in zip(keys, rights, strict=True):
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        entries.append({"p": shared, "k": key[shared:].encode(), "v": value, "t": right})
        before = key
    return encode({"e": entries, "l": left})


@pytest.mark.parametrize("where", ["too high", "too low", "out of order", "above a gap"])
def test_a_created_record_in_the_wrong_place_is_found(where: str) -> None:
    """Undoing a create leads to the tree before wherever the key stood. Were its place not held, the signed root would
    not be the one that the records have."""
    forge = Forge(11)
    paths: dict[int, list[str]] = {0: [], 1: [], 2: [], 3: []}
    while not all(len(found) > 4 for found in paths.values()):
        path = forge.path()
        paths.setdefault(layer_of(path.encode()), []).append(path)
    low, middle = sorted(paths[0]), sorted(paths[1])
    record = cid_of(forge.record())
    base = middle[0] if where != "too low" else min(paths[2])
    forge.records = {base: record}
    forge.rev = tid(START_US)
    before = build_root(forge.records)
    after: list[bytes] = []

    def add(block: bytes) -> bytes:
        after.append(block)
        return cid_of(block)

    if where == "too high":
        created = next(path for path in low if path > base)
        root = add(node([base, created], None, [None, None], record))
    elif where == "too low":
        created = next(path for path in middle if path > base)
        inner = add(node([created], None, [None], record))
        root = add(node([base], None, [add(encode({"e": [], "l": inner}))], record))
    elif where == "above a gap":  # the old root is two layers down, and hangs there without the layer between
        created = next(path for path in paths[3] if path > base)
        root = add(node([created], add(node([base], None, [None], record)), [None], record))
    else:
        created = next(path for path in low if path > base)
        root = add(node([base], add(node([created], None, [None], record)), [None], record))
    forge.seq, forge.rev = 5, tid(START_US + 5_000_000)
    forge.tree = {cid_of(block): block for block in after}
    message = forge.message(
        [Op("create", created, record)], tid(START_US), before, forge.commit_object(forge.rev, root)
    )
    outcome = verify(forge, message, RepoState(tid(START_US), before))
    assert outcome.verdict is Verdict.BROKEN
    assert outcome.kind in {"node_form", "op_mismatch"}


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 200), st.data())
def test_no_changed_byte_of_the_blocks_is_proved(number: int, data: st.DataObject) -> None:
    """Every byte of every block is covered: by a hash, and through the tree and the signature by the account's key."""
    message = a_commit(number)
    key = parse_did_key(plc_keys()[message.did])
    blocks = bytearray(message.blocks)
    blocks[data.draw(st.integers(0, len(blocks) - 1))] ^= data.draw(st.integers(1, 255))
    outcome = verify_commit(msgspec.structs.replace(message, blocks=bytes(blocks)), key, None, now_us=NOW_US)
    assert outcome.verdict is not Verdict.OK


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 200), st.data())
def test_no_changed_byte_of_the_commit_is_proved_even_with_its_cids_mended(number: int, data: st.DataObject) -> None:
    """A forger who hashes everything anew still has no signature."""
    message = a_commit(number)
    key = parse_did_key(plc_keys()[message.did])
    car = read_car(message.blocks)
    block = bytearray(car.blocks[car.root])
    block[data.draw(st.integers(0, len(block) - 1))] ^= data.draw(st.integers(1, 255))
    cid = cid_of(bytes(block))
    blocks = write_car(cid, {cid: bytes(block)} | {c: b for c, b in car.blocks.items() if c != car.root})
    outcome = verify_commit(msgspec.structs.replace(message, commit=cid, blocks=blocks), key, None, now_us=NOW_US)
    assert outcome.verdict is not Verdict.OK


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32), st.data())
def test_no_mended_tree_is_proved(seed: int, data: st.DataObject) -> None:
    """A host that owns the key may sign anything. What it signs is proved only where its operations are the whole
    difference: here a node is changed at random, and everything above it hashed and signed anew."""
    forge, state = grown(seed % 7, commits=4)
    message = forge.commit(creates=2, updates=1, deletes=1)
    rng = random.Random(seed)
    victim = rng.choice(sorted(forge.tree))
    changed = bytearray(forge.tree[victim])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    blocks, root = dict(forge.tree), forge.root
    old, new = victim, bytes(changed)
    while True:
        del blocks[old]
        blocks[cid_of(new)] = new
        if old == root:
            root = cid_of(new)
            break
        parent = next(cid for cid, block in blocks.items() if old in block)
        old, new = parent, blocks[parent].replace(old, cid_of(new))
    commit = forge.commit_object(message.rev, root)
    car = read_car(message.blocks)
    records = {op.cid: car.blocks[op.cid] for op in message.ops if op.cid}
    forged = msgspec.structs.replace(
        message, commit=cid_of(commit), blocks=write_car(cid_of(commit), {cid_of(commit): commit} | blocks | records)
    )
    outcome = verify(forge, forged, state)
    assert outcome.verdict is not Verdict.OK


@pytest.mark.parametrize("level", [Level.CHECKED, Level.PROVED])
def test_every_recorded_message_is_refused_for_another_account(level: Level) -> None:
    """Messages swapped between accounts never verify."""
    commits = [m for m in carried_messages() if isinstance(m, Commit)]
    for message in commits[:60]:
        other = msgspec.structs.replace(message, did="did:plc:someoneelse")
        assert verify_commit(other, None, None, level=level, now_us=NOW_US).kind == "wrong_did"


def test_trees_nested_without_end_are_broken_not_fatal() -> None:
    """Twenty thousand nodes in each other end in a verdict, not in a crash."""
    forge = Forge(12)
    message = forge.commit(creates=1)
    blocks: dict[bytes, bytes] = {}
    inner = EMPTY_ROOT
    blocks[inner] = EMPTY_NODE
    for _ in range(20_000):
        block = encode({"e": [], "l": inner})
        inner = cid_of(block)
        blocks[inner] = block
    path = message.ops[0].path
    root = node([path], inner, [inner], message.ops[0].cid or b"")
    blocks[cid_of(root)] = root
    commit = forge.commit_object(message.rev, cid_of(root))
    blocks |= {cid_of(commit): commit, message.ops[0].cid or b"": forge.record_blocks[message.ops[0].cid or b""]}
    forged = msgspec.structs.replace(message, commit=cid_of(commit), blocks=write_car(cid_of(commit), blocks))
    assert len(forged.blocks) <= 2_000_000
    assert verify(forge, forged, None).verdict is Verdict.BROKEN


def test_refusals_are_named_in_advance() -> None:
    """A reason that is not in the list is a fault of ours."""
    assert refusal("signature", "x").kind == "signature"
    with pytest.raises(Exception, match="named in advance"):
        refusal("made_up", "x")
    assert all(meaning.endswith(".") for meaning in REFUSALS.values())
    assert issubclass(Contradiction, Exception)
