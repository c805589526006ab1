"""The bytes of a segment: a LevelDB write-ahead log, as LevelDB's and RocksDB's own tools read it.

Source: LevelDB `doc/log_format.md` and `db/write_batch.cc`. A file is a row of blocks of 32 KiB. A block holds
fragments: masked CRC-32C of type and data (4 bytes), length (2), type (1: FULL, FIRST, MIDDLE, LAST), data; fewer
than 7 bytes left in a block are zeros. The fragments of one record joined are a write batch: sequence number (8),
count (4), then for each entry a tag (1 = put), key and value with their lengths as varints.

Here the sequence number is the position, and each batch has one put: the key is the message's id, the value its
time (8 bytes), its index within its append (4 bytes) and the payload. A batch without entries is a seal.

The index is what tells a torn tail from damage. An append begins only after the sync of the one before it, so a
record at position p with index i proves that everything before p - i was durable; a seal at p proves that of
everything before p. What is missing below the highest proof was acknowledged once, and is lost: damage. What is
missing above it belongs to the last append, which nobody was told of.

A reader that meets a bad fragment believes its length only if that leads to a good one, and else goes on at the next
block, which begins at a known place. It does not search for something that looks like a record: a payload is written
by strangers, and may hold anything. `traces` does search, where only the question is whether something is missing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google_crc32c import extend, value

from gapless.journal import Message
from gapless.journal.disk import File

BLOCK_BYTES = 32_768
READ_BYTES = 8 * BLOCK_BYTES
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
_HEADER = struct.Struct("<IHB")
_BATCH = struct.Struct("<QI")
_BATCH_PUT = struct.Struct("<QIB")
_VALUE = struct.Struct("<QI")
_HEADER_BYTES = _HEADER.size
_TYPE_CRC = tuple(value(bytes([kind])) for kind in range(5))
_MASK_DELTA = 0xA282EAD8
_PUT = 1
_FULL_TYPE = re.compile(rb"\x01")


class Piece(NamedTuple):
    """A record or, without an id, a seal."""

    start: int
    """Its first byte in the segment, and the byte after its last."""
    end: int
    position: int
    behind: int
    """Records of the same append before it."""
    id: str | None
    received_us: int
    payload: bytes

    @property
    def proved(self) -> int:
        """Everything before this position was durable when it was written."""
        return self.position - self.behind


class Hole(NamedTuple):
    """Bytes that are no record."""

    start: int
    end: int
    why: str


def encode(messages: Sequence[Message], first: int, offset: int, *, seal: bool = False) -> tuple[bytes, list[int]]:
    """The bytes that hold one append of consecutive positions from `first`, to be written at `offset`; and the offset
    of each record. With `seal` a seal follows."""
    parts: list[bytes] = []
    starts: list[int] = []
    for index, message in enumerate(messages):
        starts.append(offset)
        key = message.id.encode()
        payload = message.payload
        body = b"".join(
            (
                _BATCH_PUT.pack(first + index, 1, _PUT),
                _varint(len(key)),
                key,
                _varint(len(payload) + _VALUE.size),
                _VALUE.pack(message.received_us, index),
                payload,
            )
        )
        offset = _fragment(parts, body, offset)
    if seal:
        _fragment(parts, _BATCH.pack(first + len(messages), 0), offset)
    return b"".join(parts), starts


def pieces(file: File, start: int, end: int) -> Iterator[Piece | Hole]:
    """Everything between two offsets in order; `start` is that of a record."""
    for begin, stop, data in _records(file, start, end):
        if isinstance(data, str):
            yield Hole(begin, stop, data)
        else:
            yield _piece(begin, stop, data) or Hole(begin, stop, "is no write batch of one message")


def traces(file: File, start: int, end: int) -> Iterator[Piece]:
    """What looks like the beginning of a record, anywhere between two offsets, if it is whole within its block. To
    learn that something durable is missing, never to serve it."""
    at = start
    while at < end:
        block = at - at % BLOCK_BYTES
        limit = min(block + BLOCK_BYTES, end)
        window = file.read_at(at, limit - at)
        for match in _FULL_TYPE.finditer(window, _HEADER_BYTES - 1):
            begin = match.start() - _HEADER_BYTES + 1
            data = _good(window, begin, len(window))
            piece = data and _piece(at + begin, at + begin + _HEADER_BYTES + len(data), data)
            if piece:
                yield piece
        at = limit


def _fragment(parts: list[bytes], body: bytes, offset: int) -> int:
    left = BLOCK_BYTES - offset % BLOCK_BYTES
    if _HEADER_BYTES + len(body) <= left:  # most records lie within a block
        parts += (_header(body, FULL), body)
        return offset + _HEADER_BYTES + len(body)
    at, begun = 0, False
    while True:
        left = BLOCK_BYTES - offset % BLOCK_BYTES
        if left < _HEADER_BYTES:
            parts.append(bytes(left))
            offset += left
            continue
        data = body[at : at + left - _HEADER_BYTES]
        at += len(data)
        ended = at == len(body)
        kind = (LAST if ended else MIDDLE) if begun else (FULL if ended else FIRST)
        parts += (_header(data, kind), data)
        offset += _HEADER_BYTES + len(data)
        begun = True
        if ended:
            return offset


def _header(data: bytes, kind: int) -> bytes:
    return _HEADER.pack(_masked(extend(_TYPE_CRC[kind], data)), len(data), kind)


def _masked(crc: int) -> int:
    """A checksum of data that holds checksums is a poor one: they are stored rotated and moved."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _records(file: File, start: int, end: int) -> Iterator[tuple[int, int, bytes | str]]:
    """(first byte, byte after the last, joined fragments, or what is wrong)."""
    chain: list[bytes] = []
    chain_start = start
    hole: tuple[int, str] | None = None
    for at, stop, kind, data in _fragments(file, start, end):
        if kind in (FULL, FIRST):
            if chain:
                hole = hole or (chain_start, "a record without its end")
            if hole is not None:
                yield hole[0], at, hole[1]
                hole = None
            chain, chain_start = [data], at
            if kind == FULL:
                yield at, stop, data
                chain = []
        elif kind and chain:
            chain.append(data)
            if kind == LAST:
                yield chain_start, stop, b"".join(chain)
                chain = []
        else:
            why = "a fragment without its beginning" if kind else data.decode()
            hole = hole or (chain_start if chain else at, why)
            chain = []
    if chain:
        hole = hole or (chain_start, "a record without its end")
    if hole is not None:
        yield hole[0], end, hole[1]


def _fragments(file: File, start: int, end: int) -> Iterator[tuple[int, int, int, bytes]]:
    """(first byte, byte after the last, type, data). Type 0 is no fragment, and its data say why."""
    at, base, window = start, 0, b""
    while at < end:
        block = at - at % BLOCK_BYTES
        if block >= base + len(window):
            base, window = block, file.read_at(block, min(READ_BYTES, end - block))
        limit = min(block + BLOCK_BYTES, end)
        stop = min(limit - base, len(window))
        while limit - at >= _HEADER_BYTES:
            begin = at - base
            data = _good(window, begin, stop)
            if data is not None:
                following = at + _HEADER_BYTES + len(data)
                yield at, following, window[begin + _HEADER_BYTES - 1], data
            else:
                behind = _behind(window, begin, stop)
                following = limit if behind is None else base + behind
                yield at, following, 0, _trouble(window[begin : begin + _HEADER_BYTES], stop < limit - base)
            at = following
        if at < limit and limit < block + BLOCK_BYTES:
            yield at, limit, 0, b"a header without its end"
        at = limit


def _good(window: bytes, begin: int, stop: int) -> bytes | None:
    """The data of the fragment that begins here; None where none does."""
    if begin + _HEADER_BYTES > stop:
        return None
    crc, length, kind = _HEADER.unpack_from(window, begin)
    begin += _HEADER_BYTES
    if not FULL <= kind <= LAST or begin + length > stop:
        return None
    data = window[begin : begin + length]
    return data if _masked(extend(_TYPE_CRC[kind], data)) == crc else None


def _behind(window: bytes, begin: int, stop: int) -> int | None:
    """Where a bad fragment's length leads to the beginning of a good record."""
    if begin + _HEADER_BYTES <= stop:
        length: int = _HEADER.unpack_from(window, begin)[1]
        following = begin + _HEADER_BYTES + length
        if _good(window, following, stop) is not None and window[following + _HEADER_BYTES - 1] in (FULL, FIRST):
            return following
    return None


def _trouble(header: bytes, cut: bool) -> bytes:
    if cut:
        return b"bytes missing"
    return b"bytes that do not match their checksum" if any(header) else b"zeros"


def _piece(start: int, end: int, body: bytes) -> Piece | None:
    if len(body) < _BATCH_PUT.size:
        if len(body) != _BATCH.size:
            return None
        position, count = _BATCH.unpack(body)
        return None if count else Piece(start, end, position, 0, None, 0, b"")
    position, count, tag = _BATCH_PUT.unpack_from(body)
    length, at = _varint_at(body, _BATCH_PUT.size)
    key = body[at : at + length]
    length, at = _varint_at(body, at + length)
    if count != 1 or tag != _PUT or length < _VALUE.size or at + length != len(body):
        return None
    received_us, index = _VALUE.unpack_from(body, at)
    return Piece(start, end, position, index, key.decode(), received_us, body[at + _VALUE.size :])


def _varint_at(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for byte in body[at : at + 5]:
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    return -1, len(body)
