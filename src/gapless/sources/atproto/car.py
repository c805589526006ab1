"""CAR files, version 1: a header that names the root, then blocks, each with its CID.

A CAR has no length and no checksum: one that was cut between two blocks reads well. Only walking the tree from the
signed root shows that nothing is missing. Order, duplicates and blocks that belong to nothing mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import libipld

from gapless.sources.atproto.cid import DAG_CBOR, LENGTH, RAW, is_block_cid
from gapless.sources.atproto.limits import RECORD_BYTES_MAX
from gapless.sources.atproto.refusals import refusal

_HEADER_LENGTH = 58
_HEADER_HEAD = b"\x3a\xa2eroots\x81\xd8\x2a\x58\x25\x00"
_HEADER_TAIL = b"gversion\x01"
"""The header of a CAR with one root, around that root's CID: with its length, 59 bytes."""
_VARINT_BYTES_MAX = 5
SECTION_BYTES_MAX = RECORD_BYTES_MAX + LENGTH
"""A block and its CID. Nothing in a repository is larger than a record."""
HEADER_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Car:
    """A CAR in memory, every block held against its CID."""

    root: bytes
    blocks: dict[bytes, bytes]


def read_car(data: bytes) -> Car:
    """Read a CAR and hash every block.

    Raises Contradiction: `car`, `cid_form`, `block_hash`, `car_size` (a block larger than any may be)."""
    root, at = _root(data)
    end = len(data)
    blocks: dict[bytes, bytes] = {}
    while at < end:
        length = data[at]
        if length < 0x80:
            at += 1
        elif at + 1 < end and (high := data[at + 1]) < 0x80:
            length = length & 0x7F | high << 7
            at += 2
        else:
            length, at = _varint(data, at)
        stop = at + length
        cid = data[at : at + LENGTH]
        block = data[at + LENGTH : stop]
        if cid != DAG_CBOR + sha256(block).digest() or stop > end:
            _check_block(cid, block, length, missing=stop - end)
        blocks[cid] = block
        at = stop
    return Car(root, blocks)


def _root(data: bytes) -> tuple[bytes, int]:
    """The root and where the blocks begin."""
    at = _HEADER_LENGTH + 1
    root = data[len(_HEADER_HEAD) : len(_HEADER_HEAD) + LENGTH]
    if data[:at] == _HEADER_HEAD + root + _HEADER_TAIL and root.startswith(DAG_CBOR):
        return root, at
    length, at = _varint(data, 0)
    if length > HEADER_BYTES_MAX or at + length > len(data):
        raise refusal("car", "A CAR without its header")
    return header_root(data[at : at + length]), at + length


def header_root(header: bytes) -> bytes:
    """The first root of a CAR's header. Raises Contradiction `car`, `cid_form`."""
    try:
        value = libipld.decode_dag_cbor(header)
        roots, version = value["roots"], value["version"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise refusal("car", f"A CAR whose header cannot be read: {error}") from error
    if version != 1 or type(roots) is not list or not roots:
        raise refusal("car", "A CAR of another version, or without a root")
    root = roots[0]
    if not is_block_cid(root):
        raise refusal("cid_form", "A CAR whose root is no CID of the protocol's kinds")
    return bytes(root)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        if at + index >= len(data):
            raise refusal("car", "A CAR cut short")
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise refusal("car_size", "A length in a CAR is larger than any block may be")


def _check_block(cid: bytes, block: bytes, length: int, missing: int) -> None:
    """What is wrong with a block that is not an ordinary one; nothing where it is a raw one."""
    if length > SECTION_BYTES_MAX:
        raise refusal("car_size", f"A block of {length} bytes")
    if missing > 0:
        raise refusal("car", "A CAR cut short within a block")
    if length < LENGTH or not cid.startswith((DAG_CBOR, RAW)):
        raise refusal("cid_form", f"A block whose CID begins with 0x{cid[:4].hex()}")
    if cid[4:] != sha256(block).digest():
        raise refusal("block_hash", "A block does not hash to its CID")


@dataclass(frozen=True, slots=True)
class Section:
    """A block on its way through a `CarReader`, and where its bytes stand in the CAR."""

    cid: bytes
    block: bytes
    at: int


class CarReader:
    """Reads a CAR that arrives in pieces; holds at most one block and one piece.

    `feed` each piece, then `finish`. `root` is known once `feed` gave a block."""

    def __init__(self, bytes_max: int) -> None:
        self.root = b""
        self.bytes_read = 0
        self._bytes_max = bytes_max
        self._rest = bytearray()

    def feed(self, piece: bytes) -> Iterator[Section]:
        """The blocks that the piece completes, hashed. To be read to its end before the next piece. Raises as
        `read_car`, and `car_size` for a CAR larger than allowed."""
        rest = self._rest
        rest += piece
        base = self.bytes_read
        self.bytes_read += len(piece)
        if self.bytes_read > self._bytes_max:
            raise refusal("car_size", f"A CAR of more than {self._bytes_max} bytes")
        origin = base - (len(rest) - len(piece))
        at = 0
        while (section := self._section(at)) is not None:
            start, stop = section
            if not self.root:
                self.root = header_root(bytes(rest[start:stop]))
            else:
                cid, block = bytes(rest[start : start + LENGTH]), bytes(rest[start + LENGTH : stop])
                _check_block(cid, block, stop - start, missing=0)
                yield Section(cid, block, origin + start + LENGTH)
            at = stop
        del rest[:at]

    def finish(self) -> bytes:
        """The root, at the end of the CAR. Raises Contradiction `car` where it ends within a block."""
        if self._rest or not self.root:
            raise refusal("car", "A CAR cut short within a block")
        return self.root

    def _section(self, at: int) -> tuple[int, int] | None:
        """Where the next section lies, without its length; None where it is not whole yet."""
        rest = self._rest
        value = 0
        for index in range(_VARINT_BYTES_MAX):
            if at + index >= len(rest):
                return None
            byte = rest[at + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                break
        else:
            raise refusal("car_size", "A length in a CAR is larger than any block may be")
        if value > (SECTION_BYTES_MAX if self.root else HEADER_BYTES_MAX):
            raise refusal("car_size", f"A block of {value} bytes")
        start = at + index + 1
        return (start, start + value) if start + value <= len(rest) else None


def write_car(root: bytes, blocks: dict[bytes, bytes]) -> bytes:
    """A CAR of these blocks, as a host would send it."""
    parts = [_HEADER_HEAD, root, _HEADER_TAIL]
    for cid, block in blocks.items():
        parts += (_length(len(cid) + len(block)), cid, block)
    return b"".join(parts)


def _length(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
