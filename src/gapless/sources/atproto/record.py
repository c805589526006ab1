"""Records: the data model between DAG-CBOR and JSON.

Data model specification: links are `{"$link": "bafy…"}` and byte strings `{"$bytes": "base64"}` in JSON; numbers are
64-bit integers; keys that begin with `$` are reserved, so that a map can never be mistaken for a link.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import Any

import msgspec

from gapless.sources.atproto.cid import cid_text, parse_cid
from gapless.sources.atproto.dagcbor import ByteString, decode, encode, is_link
from gapless.sources.atproto.limits import RECORD_BYTES_MAX
from gapless.sources.atproto.refusals import refusal

INTEGER_MAX = 2**63 - 1
INTEGER_MIN = -(2**63)
BLOB_BYTES_MAX = 2**53 - 1
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}").fullmatch
_json_bytes = msgspec.json.Encoder(order="sorted").encode


def record_value(block: bytes) -> dict[str, Any]:
    """A record's block as JSON values (links and byte strings as above).

    Raises Contradiction: `record_size`, `cbor`, `cbor_form`, `float`, `data_model`."""
    if len(block) > RECORD_BYTES_MAX:
        raise refusal("record_size", f"A record of {len(block)} bytes, {RECORD_BYTES_MAX} are allowed")
    value = decode(block)
    if type(value) is not dict:
        raise refusal("data_model", "A record is not an object")
    try:
        shown: dict[str, Any] = _shown(value)
    except RecursionError as error:
        raise refusal("data_model", "A record is nested too deep") from error
    return shown


def record_json(block: bytes) -> str:
    """A record's block as JSON text: compact, keys sorted. Raises as `record_value`."""
    return _json_bytes(record_value(block)).decode()


def record_block(shown: Any) -> bytes:
    """The block of a record given as JSON values: the way back, byte for byte, so that a stored record can be held
    against its CID. Raises Contradiction `data_model`, `float`, `cid_form`."""
    if type(shown) is not dict:
        raise refusal("data_model", "A record is not an object")
    try:
        return encode(_meant(shown))
    except RecursionError as error:
        raise refusal("data_model", "A record is nested too deep") from error


def _shown(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is dict:
        if "$type" in value:
            _check_type(value)
        elif "$link" in value or "$bytes" in value:
            raise refusal("data_model", "A map with a key that is reserved for links and byte strings")
        return {key: item if type(item) is str else _shown(item) for key, item in value.items()}
    if kind is list:
        return [_shown(item) for item in value]
    if kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise refusal("data_model", f"The number {value} does not fit 64 bits")
        return value
    if kind is float:
        raise refusal("float", f"The number {value} is no integer")
    if is_link(value):
        return {"$link": cid_text(value)}
    return {"$bytes": b64encode(value).rstrip(b"=").decode()}


def _check_type(value: dict[str, Any]) -> None:
    name = value["$type"]
    if type(name) is not str or not name:
        raise refusal("data_model", "`$type` is not the name of a type")
    if "$link" in value or "$bytes" in value:
        raise refusal("data_model", "A map with a key that is reserved for links and byte strings")
    if name == "blob" and not _is_blob(value):
        raise refusal("data_model", "A blob without its link, type or size")


def _is_blob(value: dict[str, Any]) -> bool:
    reference, size = value.get("ref"), value.get("size")
    return (
        isinstance(reference, bytes)
        and is_link(reference)
        and type(value.get("mimeType")) is str
        and type(size) is int
        # real records have -1 where the size was not known
        and -1 <= size <= BLOB_BYTES_MAX
    )


def _meant(shown: Any) -> Any:
    kind = type(shown)
    if kind is str or kind is bool or shown is None:
        return shown
    if kind is int:
        if not INTEGER_MIN <= shown <= INTEGER_MAX:
            raise refusal("data_model", f"The number {shown} does not fit 64 bits")
        return shown
    if kind is float:
        if not shown.is_integer() or abs(shown) > BLOB_BYTES_MAX:
            raise refusal("float", f"The number {shown} is no integer")
        return int(shown)
    if kind is list:
        return [_meant(item) for item in shown]
    if kind is not dict:
        raise refusal("data_model", f"A value of the type {kind.__name__} is none of JSON")
    if "$link" in shown:
        return _linked(shown)
    if "$bytes" in shown:
        return _byte_string(shown)
    value = {key: _meant(item) for key, item in shown.items()}
    if "$type" in value:
        _check_type(value)
    return value


def _linked(shown: dict[str, Any]) -> bytes:
    text = shown["$link"]
    if len(shown) != 1 or type(text) is not str:
        raise refusal("data_model", "A link with other keys, or that is no text")
    return parse_cid(text)


def _byte_string(shown: dict[str, Any]) -> bytes:
    text = shown["$bytes"]
    if len(shown) != 1 or type(text) is not str or _BASE64(text) is None:
        raise refusal("data_model", "A byte string with other keys, or that is no base64 text")
    bare = text.rstrip("=")
    if len(bare) % 4 == 1:
        raise refusal("data_model", "A byte string whose base64 text is cut short")
    data = b64decode(bare + "=" * (-len(bare) % 4))
    if is_link(data):
        raise refusal("data_model", f"A byte string of {len(ByteString(data))} bytes that reads as a CID")
    return data
