"""DAG-CBOR (DRISL) in its one canonical form: everything that is hashed or signed is read here.

libipld does the work, and is made strict by going both ways: what does not encode to the bytes it was decoded from was
not canonical. That also settles its one ambiguity. It gives links and byte strings both as `bytes`, and encodes
whatever reads as a CID as a link; so where the round trip holds, exactly the byte strings that read as CIDs were links.
What fails it is read again by a slow decoder of our own, which either finds the error or a byte string that merely
looks like a CID (`ByteString`). docs/decisions/0006-atproto-libraries.md has the measurements.
"""

from __future__ import annotations

from typing import Any, Final

import libipld

from gapless.errors import Contradiction
from gapless.sources.atproto.refusals import refusal

NESTING_MAX: Final = 500
"""Levels of lists and maps the slow decoder follows; libipld stops at Python's recursion limit."""

_LINK_TAG = 42
_LINK_LEAD = b"\xd8\x2a"
_UNREADABLE = (ValueError, RecursionError, OverflowError, MemoryError)


class ByteString(bytes):
    """A byte string that reads as a CID but is no link."""

    __slots__ = ()


def encode(value: Any) -> bytes:
    """The canonical bytes. `bytes` that read as a CID become links. Raises Contradiction `cbor`."""
    try:
        encoded: bytes = libipld.encode_dag_cbor(value)
    except (*_UNREADABLE, TypeError) as error:
        raise refusal("cbor", f"A value has no DAG-CBOR form: {error}") from error
    return encoded


def decode(block: bytes) -> Any:
    """The value of a block: dict, list, str, int, float, bool, None, and `bytes` for links and byte strings.

    Raises Contradiction: `cbor` for what is none, `cbor_form` for what is not canonical."""
    try:
        value = libipld.decode_dag_cbor(block)
    except _UNREADABLE as error:
        raise refusal("cbor", f"A block is not DAG-CBOR: {error}") from error
    try:
        if libipld.encode_dag_cbor(value) == block:
            return value
    except _UNREADABLE:
        pass  # the slow decoder says what is wrong
    return decode_slowly(block)


def is_link(value: bytes) -> bool:
    """Whether `bytes` out of `decode` were a link, not a byte string."""
    if type(value) is ByteString:
        return False
    encoded: bytes = libipld.encode_dag_cbor(value)
    return encoded.startswith(_LINK_LEAD)


def decode_slowly(block: bytes) -> Any:
    """The same as `decode`, by a plain decoder of the specification (DAG-CBOR, section "Strictness")."""
    try:
        value, end = _item(block, 0, 0)
    except IndexError as error:
        raise refusal("cbor", "A block is DAG-CBOR cut short") from error
    if end != len(block):
        raise refusal("cbor", f"{len(block) - end} bytes follow a block's value")
    return value


def _head(block: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument and where the item goes on."""
    first = block[at]
    major, short = first >> 5, first & 31
    at += 1
    if short < 24:
        return major, short, at
    if short > 27:
        raise refusal("cbor", "An item of indefinite or reserved length")
    width = 1 << (short - 24)
    if at + width > len(block):
        raise IndexError(at)
    argument = int.from_bytes(block[at : at + width], "big")
    if major != 7 and argument < (24 if width == 1 else 1 << (4 * width)):
        raise refusal("cbor_form", f"The number {argument} is not written in its shortest form")
    return major, argument, at + width


def _item(block: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > NESTING_MAX:
        raise refusal("cbor", f"Lists and maps lie more than {NESTING_MAX} deep in each other")
    start = at
    major, argument, at = _head(block, at)
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major == 2:
        data = _take(block, at, argument)
        return (ByteString(data) if is_link(data) else data), at + argument
    if major == 3:
        return _text(_take(block, at, argument)), at + argument
    if major == 4:
        items = []
        for _ in range(min(argument, len(block))):
            value, at = _item(block, at, depth + 1)
            items.append(value)
        if len(items) < argument:
            raise IndexError(at)
        return items, at
    if major == 5:
        return _map(block, at, argument, depth)
    if major == 6:
        return _link(block, at, argument)
    return _simple(block, start, at)


def _take(block: bytes, at: int, length: int) -> bytes:
    if at + length > len(block):
        raise IndexError(at)
    return block[at : at + length]


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise refusal("cbor", "Text that is not UTF-8") from error


def _map(block: bytes, at: int, length: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    before = b""
    for index in range(min(length, len(block))):
        major, size, at = _head(block, at)
        if major != 3:
            raise refusal("cbor", "A map's key is not text")
        key = _take(block, at, size)
        at += size
        if index and (len(key), key) <= (len(before), before):
            raise refusal("cbor_form", "A map's keys are not in order, or one comes twice")
        before = key
        name = _text(key)
        found[name], at = _item(block, at, depth + 1)
    if len(found) < length:
        raise IndexError(at)
    return found, at


def _link(block: bytes, at: int, tag: int) -> tuple[bytes, int]:
    if tag != _LINK_TAG:
        raise refusal("cbor", f"The tag {tag}, where only links ({_LINK_TAG}) may be tagged")
    major, length, at = _head(block, at)
    data = _take(block, at, length)
    if major != 2 or data[:1] != b"\0" or not is_link(data[1:]):
        raise refusal("cbor", "A link is not a CID")
    return data[1:], at + length


def _simple(block: bytes, start: int, end: int) -> tuple[Any, int]:
    first = block[start]
    if first == 0xF4 or first == 0xF5:
        return first == 0xF5, end
    if first == 0xF6:
        return None, end
    if first != 0xFB:
        raise refusal("cbor", f"The simple value or short float 0x{first:02x}")
    try:
        return libipld.decode_dag_cbor(block[start:end]), end
    except _UNREADABLE as error:
        raise refusal("cbor", "A float that is infinite or no number") from error


def readable(block: bytes) -> bool:
    """Whether `decode` takes it."""
    try:
        decode(block)
    except Contradiction:
        return False
    return True
