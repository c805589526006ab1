"""Identifiers, against the published vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.sources.atproto import syntax
from gapless.sources.atproto.cid import is_cid_text
from unit.atproto.material import lines

CHECKS = {
    "atidentifier": syntax.is_identifier,
    "aturi": syntax.is_at_uri,
    "cid": is_cid_text,
    "did": syntax.is_did,
    "handle": syntax.is_handle,
    "nsid": syntax.is_nsid,
    "recordkey": syntax.is_record_key,
    "tid": syntax.is_tid,
    "datetime": lambda text: syntax.datetime_us(text) is not None,
}


@pytest.mark.parametrize("kind", CHECKS)
def test_every_valid_vector_passes(kind: str) -> None:
    """Each line that is published as valid is taken."""
    assert [line for line in lines(f"{kind}_syntax_valid.txt") if not CHECKS[kind](line)] == []


@pytest.mark.parametrize("kind", CHECKS)
def test_every_invalid_vector_fails(kind: str) -> None:
    """Each line that is published as invalid is refused."""
    found = lines(f"{kind}_syntax_invalid.txt")
    assert found
    assert [line for line in found if CHECKS[kind](line)] == []


def test_impossible_datetimes_fail() -> None:
    """A datetime that is well formed and does not exist is refused."""
    assert [line for line in lines("datetime_parse_invalid.txt") if syntax.datetime_us(line) is not None] == []


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_line_end_is_no_part_of_an_identifier(check) -> None:
    """`$` of a regular expression matches before a last line end: no check may."""
    assert not check("did:plc:abc\n")
    assert not check("3jzfcijpj2z2a\n")
    assert not check("example.com\n")
    assert not check("at://did:plc:abc\n")
    assert not check("2026-01-01T00:00:00Z\n")


@given(st.integers(0, 2**53 - 1), st.integers(0, 1023))
def test_a_tid_gives_back_its_time(time_us: int, clock_id: int) -> None:
    """A TID holds its time exactly."""
    text = syntax.tid(time_us, clock_id)
    assert syntax.is_tid(text)
    assert syntax.tid_time_us(text) == time_us


@given(st.lists(st.integers(0, 2**53 - 1), min_size=2, max_size=2, unique=True))
def test_text_order_of_tids_is_time_order(times: list[int]) -> None:
    """Revisions may be compared as text: the merge law rests on it."""
    first, second = sorted(times)
    assert syntax.tid(first, 1023) < syntax.tid(second, 0)


def test_what_is_no_tid_has_no_time() -> None:
    """A time is never read out of a wrong revision."""
    with pytest.raises(ValueError, match="not a TID"):
        syntax.tid_time_us("zzzzzzzzzzzzz")
    with pytest.raises(ValueError, match="no TID"):
        syntax.tid(-1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.5+01:00", 500_000),
        ("1969-12-31T23:59:59.999999-00:30", 1_799_999_999),
        ("2026-07-04T14:38:08.9991234Z", 1783175888_999123),
    ],
)
def test_datetimes_become_microseconds(text: str, expected: int) -> None:
    """Zones count, and a finer fraction is cut."""
    assert syntax.datetime_us(text) == expected


def test_an_at_uri_splits_into_its_parts() -> None:
    """The parts of a URI come out, and missing ones are empty; what is none is refused."""
    assert syntax.split_at_uri("at://did:plc:abc/com.example.note/1") == ("did:plc:abc", "com.example.note", "1")
    assert syntax.split_at_uri("at://did:plc:abc") == ("did:plc:abc", "", "")
    assert syntax.at_uri("did:plc:abc", "com.example.note/1") == "at://did:plc:abc/com.example.note/1"
    with pytest.raises(ValueError, match="not an AT URI"):
        syntax.split_at_uri("at://did:plc:abc/x")


@pytest.mark.parametrize(
    ("path", "strict", "weak"),
    [
        ("com.example.note/3jz", True, True),
        ("com.example/3jz", False, True),
        ("com.example.note/..", False, True),
        ("com.example.note/a/b", False, False),
        ("com.example.note/", False, False),
        ("com.example.note", False, False),
        ("com.example.note/a b", False, False),
        ("com.example.note/" + "a" * 512, True, True),
        ("com.example.note/" + "a" * 513, False, True),
        ("com.example.note/" + "a" * 1100, False, False),
    ],
)
def test_paths_are_a_collection_and_a_key(path: str, strict: bool, weak: bool) -> None:
    """Operations must name an NSID and record key; the tree itself allows a little more."""
    assert (syntax.is_path(path), syntax.is_tree_key(path)) == (strict, weak)
