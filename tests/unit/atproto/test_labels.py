"""Labels: signatures, form, and which of them hold."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gapless.sources.atproto.dagcbor import encode
from gapless.sources.atproto.frames import Label
from gapless.sources.atproto.labels import LabelBook, is_label_formed, is_label_signed
from unit.atproto.forge import Forge

RAW: dict[str, Any] = {
    "ver": 1,
    "src": "did:plc:labeler",
    "uri": "at://did:plc:abc/com.example.note/1",
    "cid": "bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454",
    "val": "spam",
    "cts": "2026-01-01T00:00:00Z",
}


def test_a_label_is_signed_over_its_other_fields() -> None:
    """Any field changed, added or left out, or another key, and the signature is none."""
    forge = Forge(1)
    signed = RAW | {"sig": forge.sign(encode(RAW))}
    assert is_label_signed(signed, forge.key)
    assert is_label_signed(signed | {"$type": "com.atproto.label.defs#label"}, forge.key)
    assert not is_label_signed(signed, Forge(2).key)
    for name in RAW:
        assert not is_label_signed(signed | {name: "other"}, forge.key)
        assert not is_label_signed({n: v for n, v in signed.items() if n != name}, forge.key)
    assert not is_label_signed(signed | {"neg": True}, forge.key)
    for bad in (None, "text", b"", bytes(64)):
        assert not is_label_signed(RAW | {"sig": bad}, forge.key)
    assert not is_label_signed(signed | {"x": object()}, forge.key)


@pytest.mark.parametrize(
    "changes",
    [{"src": "x"}, {"uri": "https://x"}, {"val": ""}, {"val": "x" * 129}, {"cts": "today"}, {"exp": "never"}],
)
def test_malformed_labels_are_told(changes: dict[str, str]) -> None:
    """A label about nothing, by nobody or at no time is not taken."""
    fields = {name: value for name, value in RAW.items() if name != "sig"}
    assert is_label_formed(Label(**fields))
    assert is_label_formed(Label(**fields | {"uri": "did:plc:abc", "exp": "2027-01-01T00:00:00Z"}))
    assert not is_label_formed(Label(**fields | changes))


def label(minute: int, cid: str | None = None, *, neg: bool = False, val: str = "spam") -> Label:
    return Label("did:plc:l", "at://did:plc:abc", val, f"2026-01-01T00:{minute:02d}:00Z", cid, neg)


def test_a_negation_takes_back_every_version() -> None:
    """With or without the version it names: what a negation misses stays for ever."""
    book = LabelBook()
    book.apply([label(1), label(2, "bafya"), label(3, "bafyb"), label(3, val="other")])
    assert len(book.labels()) == 4
    book.apply([label(4, "bafyc", neg=True)])
    assert book.labels() == [label(3, val="other")]
    book.apply([label(5, "bafya")])
    assert label(5, "bafya") in book.labels()


def test_the_order_of_labels_does_not_matter() -> None:
    """Labels from backfill and live stream meet in any order, with one result."""
    stream = [label(1), label(2, "bafyb"), label(3, neg=True), label(4, "bafya"), label(4)]
    results = set()
    for order in itertools.permutations(stream):
        book = LabelBook()
        book.apply(order)
        results.add(tuple(book.labels()))
    assert results == {(label(4), label(4, "bafya"))}
