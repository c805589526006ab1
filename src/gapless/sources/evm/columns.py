"""Received hex text, a whole column at a time, to canonical text.

A function here takes the values of one column for many logs or transactions and returns the column, or raises
`Irregular`: some value is not what the column holds. It does not say which one: the caller halves the batch until it
knows (`sift`), so that the ordinary case pays nothing for the odd one.

All values of a column are joined into one text and looked at in strides: position k of every value at once. No Python
code runs per value where a slice, a join or a split can do it, which is what makes this ten times as fast as decoding
log by log (docs/decisions/0004-eth-abi-beside-column-slicing.md).
"""

from __future__ import annotations

from binascii import Error as HexError
from binascii import unhexlify
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from struct import iter_unpack
from typing import TypeVar

from gapless.schema import Column_
from gapless.sources.evm.abi import AbiType

T = TypeVar("T")
Columns = list[Column_]
"""Columns of canonical text, of equal length."""

_SIGN = bytes(0xFF if b & 0x80 else 0 for b in range(256))
"""Maps the first byte of a signed number to the padding it must have."""


class Irregular(Exception):
    """A value of the batch is not what its column holds. For a batch of one the message is the reason."""


@dataclass(frozen=True, slots=True)
class Words:
    """Values of equal width: `0x` and whole 32-byte words (or an address), as text and as bytes."""

    text: str
    """All values joined, in lower case."""
    raw: bytes
    """The same as bytes; a value's first byte is the `0x`, as zero."""
    stride: int
    """Characters of a value, `0x` included."""
    count: int
    lowered: bool
    """Whether some value was not in lower case."""


def words(values: Sequence[str], digits: int) -> Words:
    """Check that every value is `0x` and so many hex digits."""
    count, stride = len(values), digits + 2
    if set(map(len, values)) != {stride}:
        raise Irregular(f"{max(len(values[0]) - 2, 0) / 2:g} bytes where {digits // 2} are expected")
    received = "".join(values)
    text = _lower(received)
    try:
        packed = bytearray(text, "ascii")
    except UnicodeEncodeError:
        raise Irregular("not hexadecimal") from None
    zeros = b"0" * count
    if packed[0::stride] != zeros or packed[1::stride] != b"x" * count:
        raise Irregular("does not start with 0x")
    packed[1::stride] = zeros
    return Words(text, unhex(packed), stride, count, text is not received)


def _lower(text: str) -> str:
    """Lower case; six searches are far cheaper than a conversion that is hardly ever needed."""
    return text.lower() if any(c in text for c in "ABCDEFX") else text


def unhex(text: str | bytes | bytearray) -> bytes:
    try:
        return unhexlify(text)
    except (HexError, ValueError):
        raise Irregular("not hexadecimal") from None


def _zero(w: Words, start: int, stop: int, what: str) -> None:
    """Bytes start..stop-1 of every value must be zero."""
    step = w.stride // 2
    nothing = bytes(w.count)
    for k in range(start, stop):
        if w.raw[k::step] != nothing:
            raise Irregular(what)


def _cut(w: Words, start: int, width: int) -> list[str]:
    """`0x` and the characters start..start+width-1 of every value.

    Gathered by stride into one text with commas, which is then split: half the time of a slice per value."""
    step, packed = width + 3, w.text.encode("ascii")
    gathered = bytearray(step * w.count)
    gathered[0::step] = b"0" * w.count
    gathered[1::step] = b"x" * w.count
    for k in range(width):
        gathered[k + 2 :: step] = packed[start + k :: w.stride]
    gathered[step - 1 :: step] = b"," * w.count
    del gathered[-1]
    return gathered.decode("ascii").split(",")


# --- one ABI word a value: the word starts at byte `at` of the value, counting the 0x as one byte ------------------


def address_word(w: Words, at: int) -> list[str]:
    _zero(w, at, at + 12, "an address with bytes before it")
    return _cut(w, 2 * at + 24, 40)


def uint_word(w: Words, at: int, bits: int) -> list[str]:
    first = at + 32 - bits // 8
    _zero(w, at, first, f"more than {bits} bits")
    rest = w.stride // 2 - at - 32
    if bits <= 64:
        return [str(v) for (v,) in iter_unpack(f">{at + 24}xQ{rest}x", w.raw)]
    number = int.from_bytes
    return [str(number(v, "big")) for (v,) in iter_unpack(f">{at}x32s{rest}x", w.raw)]


def int_word(w: Words, at: int, bits: int) -> list[str]:
    step, first = w.stride // 2, at + 32 - bits // 8
    sign = w.raw[first::step].translate(_SIGN)
    for k in range(at, first):
        if w.raw[k::step] != sign:
            raise Irregular(f"more than {bits} bits")
    rest = step - at - 32
    if bits <= 64:
        return [str(v) for (v,) in iter_unpack(f">{at + 24}xq{rest}x", w.raw)]
    number = int.from_bytes
    return [str(number(v, "big", signed=True)) for (v,) in iter_unpack(f">{at}x32s{rest}x", w.raw)]


def bool_word(w: Words, at: int) -> list[str]:
    _zero(w, at, at + 31, "a truth value that is neither 0 nor 1")
    if w.raw[at + 31 :: w.stride // 2].strip(b"\x00\x01"):
        raise Irregular("a truth value that is neither 0 nor 1")
    return list(w.text[2 * at + 63 :: w.stride])


def bytes_word(w: Words, at: int, size: int) -> list[str]:
    _zero(w, at + size, at + 32, f"more than {size} bytes")
    return _cut(w, 2 * at, 2 * size)


def word_column(kind: AbiType) -> Callable[[Words, int], list[str]]:
    """How a column of this elementary type is read; padding is checked strictly, as eth-abi does."""
    base = kind.base
    if base == "address":
        return address_word
    if base == "bool":
        return bool_word
    if kind.integer:
        bits, read = kind.bits, (uint_word if base.startswith("u") else int_word)
        return lambda w, at: read(w, at, bits)
    size = 24 if base == "function" else int(base.removeprefix("bytes"))
    return lambda w, at: bytes_word(w, at, size)


# --- plain JSON-RPC fields -----------------------------------------------------------------------------------------


def fixed_bytes(values: Sequence[str], size: int) -> list[str]:
    """Hashes (32 bytes) and addresses (20)."""
    w = words(values, 2 * size)
    return _cut(w, 2, 2 * size) if w.lowered else list(values)


def any_bytes(values: Sequence[str]) -> list[str]:
    """Bytes of any length, such as a log's data."""
    if not {v[:2] for v in values} <= {"0x", "0X"} or any(len(v) % 2 for v in values):
        raise Irregular("not 0x and pairs of hex digits")
    received = "".join(values)
    text = _lower(received)
    unhex("".join([v[2:] for v in values]))
    return list(values) if text is received else [v.lower() for v in values]


def quantity(text: str, bits: int) -> int:
    """A JSON-RPC quantity of at most so many bits. Leading zeros, which the specification forbids, do no harm."""
    if text.isascii() and text.isalnum() and text[:2] in ("0x", "0X"):
        try:
            value = int(text, 16)
        except ValueError:
            pass
        else:
            if value.bit_length() <= bits:
                return value
            raise Irregular(f"more than {bits} bits")
    raise Irregular(f"{text[:80]!r} is not a quantity")


class _Integers(dict[str, str]):
    """Decimal text of small quantities; larger ones are converted and not kept."""

    def __missing__(self, text: str) -> str:
        return str(quantity(text, 63))


_INTEGERS = _Integers({hex(i): str(i) for i in range(4096)})


def integers(values: Sequence[str]) -> list[str]:
    """Quantities for an INT column: indices and counts, mostly small."""
    return list(map(_INTEGERS.__getitem__, values))


# --- finding the odd ones ------------------------------------------------------------------------------------------


def sift(items: Sequence[T], build: Callable[[Sequence[T]], Columns]) -> tuple[list[Columns], dict[int, str]]:
    """Build columns from all items but the irregular ones: the parts in order, and reasons by index.

    A batch that fails is halved; b odd items among n cost b * log2(n) more calls at most."""
    reasons: dict[int, str] = {}
    return _sift(items, build, 0, reasons), reasons


def joined(parts: Sequence[Columns], width: int) -> Columns:
    """The parts' columns, end to end."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return [[] for _ in range(width)]
    return [list(chain.from_iterable(pieces)) for pieces in zip(*parts, strict=True)]


def _sift(
    items: Sequence[T], build: Callable[[Sequence[T]], Columns], first: int, reasons: dict[int, str]
) -> list[Columns]:
    if not items:
        return []
    try:
        return [build(items)]
    except Irregular as fault:
        if len(items) == 1:
            reasons[first] = str(fault)
            return []
    half = len(items) // 2
    return _sift(items[:half], build, first, reasons) + _sift(items[half:], build, first + half, reasons)
