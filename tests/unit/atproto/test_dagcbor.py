"""DAG-CBOR, CIDs and the data model: the published vectors, strictness, and the library against a plain decoder."""

from __future__ import annotations

import base64
from typing import Any

import libipld
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.errors import Contradiction
from gapless.sources.atproto.cid import cid_of, cid_text, is_block_cid, parse_cid
from gapless.sources.atproto.dagcbor import ByteString, decode, decode_slowly, encode, is_link
from gapless.sources.atproto.record import record_block, record_json, record_value
from unit.atproto.material import vectors

LINK = b"\x01\x71\x12\x20" + bytes(range(32))
LINK_ITEM = "d82a582500" + LINK.hex()


def kind_of(error: pytest.ExceptionInfo[Contradiction]) -> str:
    return error.value.kind


@pytest.mark.parametrize("vector", vectors("data-model/data-model-fixtures.json"))
def test_the_published_records_have_their_bytes_and_cids(vector: dict[str, Any]) -> None:
    """JSON, DAG-CBOR and CID of a record belong together, byte for byte and both ways."""
    block = base64.b64decode(vector["cbor_base64"] + "==")
    assert record_block(vector["json"]) == block
    assert record_value(block) == vector["json"]
    assert cid_text(cid_of(block)) == vector["cid"]
    assert parse_cid(vector["cid"]) == cid_of(block)


@pytest.mark.parametrize("vector", vectors("data-model/data-model-valid.json"), ids=lambda v: v["note"])
def test_valid_records_are_taken(vector: dict[str, Any]) -> None:
    """What is published as valid has a block, which reads as the same record."""
    assert record_value(record_block(vector["json"])) == vector["json"]


@pytest.mark.parametrize("vector", vectors("data-model/data-model-invalid.json"), ids=lambda v: v["note"])
def test_invalid_records_are_refused(vector: dict[str, Any]) -> None:
    """What is published as invalid has no block."""
    with pytest.raises(Contradiction):
        record_block(vector["json"])


STRICTNESS = {
    "a number with a byte too many": ("1801", "cbor_form"),
    "a number with four bytes too many": ("1a00000001", "cbor_form"),
    "a length with a byte too many": ("780161", "cbor_form"),
    "keys out of order": ("a2616201616101", "cbor"),
    "a key twice": ("a2616101616102", "cbor"),
    "longer keys first": ("a262616101616202", "cbor"),
    "a key that is no text": ("a10102", "cbor"),
    "an indefinite list": ("9f01ff", "cbor"),
    "undefined": ("f7", "cbor"),
    "a half float": ("f93c00", "cbor"),
    "a single float": ("fa3f800000", "cbor"),
    "no number": ("fb7ff8000000000000", "cbor"),
    "infinity": ("fb7ff0000000000000", "cbor"),
    "another tag": ("c101", "cbor"),
    "a link's tag with a byte too many": ("d9002a582500" + LINK.hex(), "cbor_form"),
    "a link without its zero": ("d82a5824" + LINK.hex(), "cbor"),
    "a link cut short": ("d82a582400" + LINK.hex()[:-2], "cbor"),
    "no UTF-8": ("61ff", "cbor"),
    "two values": ("0101", "cbor"),
    "a list cut short": ("8201", "cbor"),
    "a text cut short": ("6261", "cbor"),
    "nothing": ("", "cbor"),
    "a list longer than any block": ("9b7fffffffffffffff", "cbor"),
    "lists a hundred thousand deep": ("81" * 100_000 + "01", "cbor"),
}


@pytest.mark.parametrize("name", STRICTNESS)
def test_only_the_canonical_form_is_read(name: str) -> None:
    """Any other way to write a value is refused: two blocks of one record would have two CIDs."""
    data, expected = STRICTNESS[name]
    with pytest.raises(Contradiction) as error:
        decode(bytes.fromhex(data))
    assert kind_of(error) == expected
    with pytest.raises(Contradiction):
        decode_slowly(bytes.fromhex(data))


def test_the_library_alone_is_too_lax() -> None:
    """Why blocks go through it both ways: it reads numbers in more forms than one, and takes byte strings for links."""
    assert libipld.decode_dag_cbor(bytes.fromhex("1801")) == 1
    assert libipld.decode_dag_cbor(bytes.fromhex("5824" + LINK.hex())) == LINK
    assert libipld.encode_dag_cbor(LINK).hex() == LINK_ITEM


def test_a_byte_string_that_reads_as_a_cid_stays_one() -> None:
    """A link and a byte string with the bytes of a link are told apart, in values and in JSON."""
    link, string = decode(bytes.fromhex(LINK_ITEM)), decode(bytes.fromhex("5824" + LINK.hex()))
    assert link == string == LINK
    assert is_link(link)
    assert not is_link(string)
    assert isinstance(string, ByteString)
    block = b"\xa1\x61a" + bytes.fromhex("5824" + LINK.hex())
    assert record_value(block) == {"a": {"$bytes": base64.b64encode(LINK).decode()}}
    assert record_value(b"\xa1\x61a" + bytes.fromhex(LINK_ITEM)) == {"a": {"$link": cid_text(LINK)}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1.5}, "float"),
        ({"a": [{"b": 1.0}]}, "float"),
        ({"a": {"$link": "x"}}, "data_model"),
        ({"a": {"$bytes": "x", "b": 1}}, "data_model"),
        ({"a": {"$type": "x", "$link": "y"}}, "data_model"),
        ({"a": 2**63}, "data_model"),
        ({"a": -(2**63) - 1}, "data_model"),
        ({"$type": ""}, "data_model"),
        ({"b": {"$type": "blob", "mimeType": "image/png", "size": 1}}, "data_model"),
        ([1], "data_model"),
        ("text", "data_model"),
    ],
)
def test_records_that_json_cannot_tell_apart_are_refused(value: Any, expected: str) -> None:
    """Canonical bytes are not enough for a record: its JSON must mean one thing."""
    with pytest.raises(Contradiction) as error:
        record_value(encode(value))
    assert kind_of(error) == expected


def test_record_json_is_compact_and_sorted() -> None:
    """The text of a record does not depend on the order of its bytes."""
    assert record_json(encode({"b": 1, "aa": [None, True, "ü"], "c": b"\1"})) == (
        '{"aa":[null,true,"ü"],"b":1,"c":{"$bytes":"AQ"}}'
    )


def test_a_record_too_large_is_refused() -> None:
    """The protocol's limit holds for reading, too."""
    with pytest.raises(Contradiction) as error:
        record_value(encode({"a": "x" * 1_000_001}))
    assert kind_of(error) == "record_size"


@pytest.mark.parametrize("text", ["", "b", "bafy", "z" + cid_text(LINK)[1:], cid_text(LINK)[:-1], cid_text(LINK) + "a"])
def test_only_cids_of_the_protocol_parse(text: str) -> None:
    """Text that is no CID of version 1 with SHA-256 in base 32 is refused."""
    with pytest.raises(Contradiction) as error:
        parse_cid(text)
    assert kind_of(error) == "cid_form"
    assert is_block_cid(LINK)
    assert not is_block_cid(LINK[:-1])
    assert not is_block_cid(b"\x01\x55" + LINK[2:])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.binary(max_size=40)
    | st.just(LINK),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_fast_and_slow_decoder_agree(value: Any) -> None:
    """What the library encodes reads the same by the plain decoder of the specification."""
    block = encode(value)
    assert decode(block) == decode_slowly(block) == value


@given(st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="$")), VALUES, max_size=4))
def test_json_leads_back_to_the_block(value: dict[str, Any]) -> None:
    """A stored record gives its CID again, so a table can be held against a signed root."""
    block = encode(value)
    try:
        text = record_json(block)
    except Contradiction as error:
        assert error.kind == "data_model"  # noqa: PT017 keys with $ deeper down
        return
    assert record_block(msgspec.json.decode(text)) == block


@given(VALUES, st.data())
def test_no_other_bytes_are_the_same_value(value: Any, data: st.DataObject) -> None:
    """A changed byte gives another value or none: never the same one from two blocks."""
    block = bytearray(encode(value))
    block[data.draw(st.integers(0, len(block) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(block))
    except Contradiction:
        return
    assert encode(found) == block or not is_plain(found)


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return not isinstance(value, ByteString)
