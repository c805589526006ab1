"""Recursive Length Prefix encoding (yellow paper, appendix B): only encoding, only what block hashes need.

Two forms of the same rules. Trie nodes are built from bytes. What arrives as JSON is `0x…` text, and for that the
encoding is built as hex *text* (functions named `…_text`, results without `0x`) and turned into bytes once per
transaction or receipt: one conversion in place of one per field.

Text is not checked to be hex here, only its prefix and length: the one conversion at the end refuses anything else.
Lengths must be checked before: text of a wrong length could shift into a neighbouring field and still give the
bytes that were hashed.
"""

from __future__ import annotations

EMPTY_TEXT = "80"
"""Nothing, or zero."""
EMPTY_LIST_TEXT = "c0"

_SHORT_MAX = 55
"""Longest payload whose length fits into the first byte."""


def _prefix(short: int, size: int) -> bytes:
    if size <= _SHORT_MAX:
        return bytes((short + size,))
    width = (size.bit_length() + 7) >> 3
    return bytes((short + _SHORT_MAX + width,)) + size.to_bytes(width, "big")


_TABLED_MAX = 1023
"""Prefixes of payloads up to this many bytes are looked up, not computed."""
_STRING = tuple(_prefix(0x80, size) for size in range(_TABLED_MAX + 1))
_LIST = tuple(_prefix(0xC0, size) for size in range(_TABLED_MAX + 1))
_STRING_TEXT = tuple(prefix.hex() for prefix in _STRING)
_LIST_TEXT = tuple(prefix.hex() for prefix in _LIST)


def string_prefix(size: int) -> bytes:
    """What stands before a string of `size` bytes (one byte below 0x80 stands for itself: not for this function)."""
    return _STRING[size] if size <= _TABLED_MAX else _prefix(0x80, size)


def list_prefix(size: int) -> bytes:
    """What stands before the encoded items of a list, `size` bytes in all."""
    return _LIST[size] if size <= _TABLED_MAX else _prefix(0xC0, size)


def encode_bytes(value: bytes) -> bytes:
    """A byte string."""
    size = len(value)
    if size == 1 and value < b"\x80":
        return value
    return string_prefix(size) + value


def encode_int(value: int) -> bytes:
    """A non-negative integer: big-endian without leading zeros."""
    return encode_bytes(value.to_bytes((value.bit_length() + 7) >> 3, "big"))


def encode_list(items: list[bytes]) -> bytes:
    """A list of items that are encoded already."""
    payload = b"".join(items)
    return list_prefix(len(payload)) + payload


def quantity_text(value: str) -> str:
    """A JSON-RPC quantity (`0x1f`); leading zeros are dropped. Raises ValueError without the `0x`."""
    digits = value[2:]
    if value[:2] != "0x":
        raise ValueError(f"{value!r} is not 0x text")
    if digits[:1] == "0":
        digits = digits.lstrip("0")
    size = len(digits)
    if size & 1:
        digits = "0" + digits
        size += 1
    if size > 2:
        return (_STRING_TEXT[size >> 1] if size <= _TABLED_MAX else _prefix(0x80, size >> 1).hex()) + digits
    if not size:
        return EMPTY_TEXT
    return digits if digits < "80" else "81" + digits


def data_text(value: str) -> str:
    """JSON-RPC data of any length (`0x`, `0x00ff…`). Raises ValueError without the `0x`, and for half bytes."""
    size = len(value) - 2
    if size & 1 or value[:2] != "0x":
        raise ValueError(f"{value[:80]!r} is not 0x text of whole bytes")
    digits = value[2:]
    size >>= 1
    if size == 1 and digits < "80":
        return digits
    return (_STRING_TEXT[size] if size <= _TABLED_MAX else _prefix(0x80, size).hex()) + digits


def address_text(value: str) -> str:
    """JSON-RPC data of 20 bytes. Raises ValueError for any other length."""
    if len(value) != 42 or value[:2] != "0x":
        raise ValueError(f"{value[:80]!r} is not a 0x address")
    return "94" + value[2:]


def hash_text(value: str) -> str:
    """JSON-RPC data of 32 bytes. Raises ValueError for any other length."""
    if len(value) != 66 or value[:2] != "0x":
        raise ValueError(f"{value[:80]!r} is not a 0x hash")
    return "a0" + value[2:]


def list_text(payload: str) -> str:
    """A list, from the joined text of its encoded items."""
    size = len(payload) >> 1
    return (_LIST_TEXT[size] if size <= _TABLED_MAX else _prefix(0xC0, size).hex()) + payload
