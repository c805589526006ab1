"""Segments are LevelDB logs: LevelDB's own bytes are ours, and ours are read as they were written."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from gapless.journal import Message
from gapless.journal.blocks import BLOCK_BYTES, Hole, Piece, encode, pieces
from gapless.testing.power_cut import PowerCutDisk

WRITTEN_BY_LEVELDB = Path(__file__).resolve().parents[2] / "data" / "journal" / "leveldb.log.gz"
"""LevelDB 1.23 by plyvel 1.5.1: a new database, one `put` for each message of `golden()`, its log before closing."""


def golden() -> list[list[Message]]:
    """Messages in groups of 1, 2, 3, 4, 5, 1 …: sizes at and around the ends of blocks, and over several of them."""
    sizes = [0, 1, 100, 700, 5000, 32_700, 32_720, 32_730, 32_745, 70_000, 3, 200_000, 1, 2, 3]
    sizes += [n * 37 % 3000 for n in range(200)]
    messages = [Message(f"host.example:{n}", bytes([n % 251]) * size, n * 1000) for n, size in enumerate(sizes, 1)]
    groups, count = [], 1
    while messages:
        groups.append(messages[:count])
        del messages[:count]
        count = count % 5 + 1
    return groups


def written(groups: list[list[Message]]) -> bytes:
    data, first = b"", 1
    for group in groups:
        data += encode(group, first, len(data))[0]
        first += len(group)
    return data


def read(data: bytes, start: int = 0) -> list[Piece | Hole]:
    disk = PowerCutDisk()
    file = disk.create(Path("/segment"))
    file.write_at(0, data)
    return list(pieces(file, start, len(data)))


def test_a_segment_is_what_leveldb_writes() -> None:
    """The same puts give the same bytes, to the last: whatever reads LevelDB's logs reads ours."""
    assert written(golden()) == gzip.decompress(WRITTEN_BY_LEVELDB.read_bytes())


def test_a_log_of_leveldb_is_read() -> None:
    """Positions, ids, times, payloads and places in their append come back."""
    found = read(gzip.decompress(WRITTEN_BY_LEVELDB.read_bytes()))
    flat = [(m, behind) for group in golden() for behind, m in enumerate(group)]
    assert len(found) == len(flat)
    for position, (piece, (m, behind)) in enumerate(zip(found, flat, strict=True), 1):
        assert isinstance(piece, Piece)
        assert (piece.position, piece.behind, piece.proved) == (position, behind, position - behind)
        assert (piece.id, piece.received_us, piece.payload) == (m.id, m.received_us, m.payload)


def test_records_of_any_size_at_any_place() -> None:
    """At every distance from the end of a block, a record of any size comes back, and the next begins where it ends."""
    for left in range(40):
        data, starts = encode([Message("a", bytes(BLOCK_BYTES - 47 - left), 1)], 1, 0)
        for size in (0, 1, 6, 7, 8, 60, BLOCK_BYTES, 3 * BLOCK_BYTES + left):
            more, where = encode([Message("b", b"\x01" * size, 2), Message("c", b"z", 3)], 2, len(data))
            found = read(data + more)
            assert [p.id for p in found if isinstance(p, Piece)] == ["a", "b", "c"]
            tail = [p for p in read(data + more, where[1]) if isinstance(p, Piece)]
            assert [p.id for p in tail] == ["c"]
            assert starts == [0]


def test_a_seal_says_that_all_before_it_was_durable() -> None:
    """A batch without entries: it takes no position."""
    data, _ = encode([Message("a", b"x", 1)], 7, 0, seal=True)
    record, seal = read(data)
    assert isinstance(record, Piece)
    assert isinstance(seal, Piece)
    assert (record.position, record.id) == (7, "a")
    assert (seal.position, seal.id, seal.proved, seal.end) == (8, None, 8, len(data))


def test_noise_is_never_a_record() -> None:
    """Random bytes, also after real records and instead of them, give holes and nothing else."""
    drawn = random.Random(1)
    for _ in range(200):
        data = drawn.randbytes(drawn.randrange(1, 3 * BLOCK_BYTES))
        assert all(isinstance(p, Hole) for p in read(data))
        good, _ = encode([Message("a", b"x" * 50, 1)], 1, 0)
        found = read(good + data)
        assert isinstance(found[0], Piece)
        assert all(isinstance(p, Hole) for p in found[1:])
        assert found[-1].end == len(good + data)
