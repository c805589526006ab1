"""Batches: the same outcomes in this process and in others."""

from __future__ import annotations

import msgspec

from gapless.sources.atproto.batch import ExaminerPool, examine, link, verify_commits
from gapless.sources.atproto.frames import Commit, Sync
from gapless.sources.atproto.verification import Level, Verdict
from unit.atproto.forge import Forge
from unit.atproto.material import NOW_US, carried_frames, carried_messages, plc_keys


def test_processes_and_this_one_agree() -> None:
    """What other processes find is what this one finds, in order, bad keys and foreign frames included."""
    pairs = [
        (frame, message)
        for frame, message in zip(carried_frames()[:300], carried_messages()[:300], strict=True)
        if isinstance(message, Commit | Sync)
    ]
    keys = plc_keys() | {pairs[50][1].did: Forge().key.did_key}
    expected = examine([message for _, message in pairs], keys, Level.PROVED)
    assert {one.verdict for one in expected} == {Verdict.OK, Verdict.BAD_SIGNATURE}
    with ExaminerPool(1, chunk_frames=64) as pool:
        frames = [frame for frame, _ in pairs]
        futures = pool.submit(frames, [keys.get(message.did) for _, message in pairs], Level.PROVED)
        assert len(futures) == -(-len(pairs) // 64)
        assert pool.collect(futures) == expected
        (wrong,) = pool.collect(pool.submit([b"x"], [None], Level.PROVED))
    assert (wrong.verdict, wrong.kind) == (Verdict.REFUSED, "frame_shape")


def test_a_batch_follows_its_own_states() -> None:
    """Each message is held against what those before it in the batch left; only what was taken moves a state."""
    forge = Forge(31)
    first, second, third = forge.commit(), forge.commit(), forge.commit()
    keys = {forge.did: forge.key.did_key}
    verified = verify_commits([first, second, second, third, forge.sync()], keys, {}, now_us=NOW_US)
    assert [one.verdict.value for one in verified.outcomes] == ["ok", "ok", "stale", "ok", "ok"]
    assert verified.states == {forge.did: forge.state}
    verified = verify_commits([first, third], keys, {}, now_us=NOW_US)
    assert [one.kind for one in verified.outcomes] == ["", "broken_since"]
    assert verified.states[forge.did].rev == first.rev


def test_states_given_are_not_changed() -> None:
    """A batch that is thrown away leaves nothing behind."""
    forge = Forge(32)
    first = forge.commit()
    assert forge.state is not None
    states = {forge.did: forge.state}
    second = forge.commit()
    verified = verify_commits([second], {forge.did: forge.key.did_key}, states, now_us=NOW_US)
    assert verified.states[forge.did] != states[forge.did]
    assert states[forge.did].rev == first.rev


def test_an_unreadable_key_is_a_bad_signature() -> None:
    """A key that cannot be read asks for a fresh DID document, like a wrong one."""
    forge = Forge(33)
    message = forge.commit()
    (one,) = examine([message], {forge.did: "did:key:zzz"}, Level.PROVED)
    assert (one.verdict, one.kind) == (Verdict.BAD_SIGNATURE, "key")
    (none,) = examine([message], {}, Level.PROVED)
    assert none.kind == "key"
    (checked,) = examine([message], {}, Level.CHECKED)
    assert checked.verdict is Verdict.OK
    assert link([message], [checked], {}, level=Level.CHECKED, now_us=NOW_US).outcomes[0].linked
    assert msgspec.structs.asdict(checked)["kind"] == ""
