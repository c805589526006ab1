"""Frames: every kind, and everything that is wrong with one as a value."""

from __future__ import annotations

from collections import Counter
from typing import Any

import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.sources.atproto.frames import (
    Account,
    Commit,
    Failure,
    Identity,
    Info,
    Labels,
    Sync,
    Undecodable,
    Unknown,
    decode_frame,
    decode_frames,
    decode_label_frame,
)
from unit.atproto.material import CARRIED, carried_frames, recorded_frames

encode = libipld.encode_dag_cbor
CID = b"\x01\x71\x12\x20" + bytes(32)
COMMIT = {
    "seq": 7,
    "repo": "did:plc:abc",
    "rev": "3jzfcijpj2z2a",
    "since": None,
    "commit": CID,
    "blocks": b"x",
    "ops": [{"action": "create", "path": "com.example.note/1", "cid": CID}],
    "blobs": [],
    "rebase": False,
    "tooBig": False,
    "time": "2026-01-01T00:00:00Z",
}


def frame(kind: str, body: Any, op: Any = 1) -> bytes:
    return encode({"op": op, "t": kind}) + encode(body)


def test_recorded_frames_are_what_the_recording_says() -> None:
    """Every message of the recorded PDS reads, with seq 1 to 900 from the body."""
    found = decode_frames(carried_frames())
    assert Counter(type(one).__name__ for one in found) == {"Commit": 807, "Account": 36, "Identity": 30, "Sync": 27}
    assert [one.seq for one in found] == list(range(1, 901))  # type: ignore[union-attr]


def test_the_stream_speaks_about_itself() -> None:
    """A cursor in the future is an error frame, one that is too old an `#info`."""
    (future,) = recorded_frames(CARRIED / "local-pds" / "error-future-cursor.frames")
    (outdated,) = recorded_frames(CARRIED / "local-pds" / "info-outdated-cursor.frames")
    assert decode_frame(future) == Failure("FutureCursor", "Cursor in the future.")
    info = decode_frame(outdated)
    assert isinstance(info, Info)
    assert info.name == "OutdatedCursor"


def test_every_kind_of_message_reads() -> None:
    """One of each, with fields that are not known and ones that may be missing."""
    commit = decode_frame(frame("#commit", COMMIT | {"extra": 1}))
    assert isinstance(commit, Commit)
    assert (commit.seq, commit.did, commit.since, commit.prev_data, commit.too_big) == (
        7,
        "did:plc:abc",
        None,
        None,
        False,
    )
    assert (commit.ops[0].collection, commit.ops[0].rkey, commit.ops[0].prev) == ("com.example.note", "1", None)
    body = {"seq": 1, "did": "did:plc:abc", "time": "t"}
    assert decode_frame(frame("#identity", body)) == Identity(1, "did:plc:abc", "t", None)
    assert decode_frame(frame("#account", body | {"active": False, "status": "new-one"})) == Account(
        1, "did:plc:abc", "t", False, "new-one"
    )
    assert isinstance(decode_frame(frame("#sync", body | {"rev": "r", "blocks": b""})), Sync)
    assert decode_frame(encode({"op": -1}) + encode({"error": "ConsumerTooSlow"})) == Failure("ConsumerTooSlow", None)


def test_an_empty_since_is_none() -> None:
    """Some relays write an empty text where there was no revision before."""
    commit = decode_frame(frame("#commit", COMMIT | {"since": ""}))
    assert isinstance(commit, Commit)
    assert commit.since is None


@pytest.mark.parametrize("kind", ["#handle", "#migrate", "#tombstone", "#new", "commit", ""])
def test_unknown_types_are_passed_over_with_their_seq(kind: str) -> None:
    """A type of the past or the future is no error; its seq still counts."""
    data = frame(kind, {"seq": 9, "did": "did:plc:abc"})
    assert decode_frame(data) == Unknown(1, kind, 9, data)
    assert decode_frame(frame("#commit", {"seq": 9}, op=2)) == Unknown(
        2, "#commit", 9, frame("#commit", {"seq": 9}, op=2)
    )
    bare = encode({"op": 1}) + encode({"seq": 0})
    assert decode_frame(bare) == Unknown(1, "", None, bare)


BAD = {
    "nothing": (b"", "frame_cbor"),
    "one object": (encode({"op": 1, "t": "#info"}), "frame_cbor"),
    "three objects": (encode({}) * 3, "frame_cbor"),
    "no objects": (encode([1]) + encode([2]), "frame_cbor"),
    "text": (b"hello", "frame_cbor"),
    "html": (b"<html>502</html>", "frame_cbor"),
    "a body that is cut": (frame("#commit", COMMIT)[:-3], "frame_cbor"),
    "bytes after it": (frame("#commit", COMMIT) + b"\xff", "frame_cbor"),
    "lists without end": (encode({"op": 1, "t": "#info"}) + b"\x81" * 200_000, "frame_cbor"),
    "no op": (encode({"t": "#info"}) + encode({}), "frame_shape"),
    "an op of text": (frame("#info", {"name": "x"}, op="1"), "frame_shape"),
    "an op of true": (frame("#info", {"name": "x"}, op=True), "frame_shape"),
    "an error without its name": (encode({"op": -1}) + encode({"message": "x"}), "frame_shape"),
    "too large": (bytes(5_000_001), "frame_size"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_keeps_its_bytes(name: str) -> None:
    """A frame that makes no sense comes out as a value with its bytes and a reason, for quarantine."""
    data, reason = BAD[name]
    found = decode_frame(data)
    assert isinstance(found, Undecodable)
    assert (found.frame, found.reason) == (data, reason)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seq", 0),
        ("seq", -1),
        ("seq", 2**53),
        ("seq", "7"),
        ("seq", True),
        ("repo", None),
        ("repo", "x"),
        ("rev", 3),
        ("since", 3),
        ("commit", "bafy"),
        ("commit", b"short"),
        ("blocks", "text"),
        ("ops", None),
        ("ops", [3]),
        ("ops", [{"action": "create"}]),
        ("ops", [{"action": "create", "path": "a/b", "cid": "text"}]),
        ("tooBig", "no"),
        ("prevData", b"short"),
        ("time", 3),
    ],
)
def test_a_field_of_the_wrong_type_is_said(field: str, value: Any) -> None:
    """A wrong type is found when the frame is read, not later; the seq is kept where it can be."""
    found = decode_frame(frame("#commit", COMMIT | {field: value}))
    assert isinstance(found, Undecodable)
    assert found.reason == "frame_shape"
    assert found.seq == (None if field == "seq" else 7)


@pytest.mark.parametrize("field", ["seq", "repo", "rev", "commit", "blocks", "ops", "time"])
def test_a_missing_field_is_said(field: str) -> None:
    """Nothing that is needed is made up."""
    found = decode_frame(frame("#commit", {name: value for name, value in COMMIT.items() if name != field}))
    assert isinstance(found, Undecodable)
    assert field in found.detail


def test_label_frames_are_of_another_stream() -> None:
    """`#labels` reads on its own stream and is unknown on the other, and the other way round."""
    label = {
        "src": "did:plc:abc",
        "uri": "at://did:plc:abc",
        "val": "spam",
        "cts": "2026-01-01T00:00:00Z",
        "neg": False,
    }
    data = frame("#labels", {"seq": 3, "labels": [label]})
    found = decode_label_frame(data)
    assert isinstance(found, Labels)
    assert (found.seq, found.labels[0].val, found.raw) == (3, "spam", (label,))
    assert isinstance(decode_frame(data), Unknown)
    assert isinstance(decode_label_frame(frame("#commit", COMMIT)), Unknown)
    assert decode_label_frame(frame("#info", {"name": "OutdatedCursor"})) == Info("OutdatedCursor", None)


@given(st.integers(0, 899), st.data())
def test_no_damage_raises(number: int, data: st.DataObject) -> None:
    """Whatever byte of a frame changes, or wherever it is cut, a value comes out."""
    damaged = bytearray(carried_frames()[number])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    decode_frame(bytes(damaged))
    decode_frame(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
