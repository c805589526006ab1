"""Whole repositories: read in pieces, verified, in bounded memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.errors import Contradiction
from gapless.sources.atproto.car import CarReader, read_car, write_car
from gapless.sources.atproto.cid import cid_of
from gapless.sources.atproto.repository import BlockFile, read_repository
from unit.atproto.forge import Forge


@pytest.fixture(scope="module")
def forge() -> Forge:
    forge = Forge(21)
    for _ in range(4):
        forge.commit(creates=60, updates=5, deletes=5)
    return forge


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 100, 5000, 10_000_000])
@pytest.mark.parametrize("memory", [0, 1 << 24])
def test_a_repository_reads_in_any_pieces(forge: Forge, size: int, memory: int) -> None:
    """Whatever the pieces, and whether blocks lie in memory or in a file: all records, in order, with their blocks."""
    car = forge.car()
    with read_repository(pieces(car, size), forge.did, forge.key, memory_bytes_max=memory) as repo:
        assert {record.path: record.cid for record in repo.records()} == forge.records
        assert all(cid_of(record.block) == record.cid for record in repo.records())
        assert [path for path, _ in repo.paths()] == sorted(forge.records)
        assert repo.check_whole() == len(forge.records)
        assert (repo.did, repo.rev, repo.data, repo.bytes_read) == (forge.did, forge.rev, forge.root, len(car))


def refused(car: bytes, forge: Forge, **more: int) -> str:
    with pytest.raises(Contradiction) as error, read_repository([car], forge.did, forge.key, **more) as repo:
        repo.check_whole()
    return error.value.kind


def test_a_car_cut_between_blocks_is_found(forge: Forge) -> None:
    """It reads to its end without complaint: only the walk shows what is missing."""
    whole = read_car(forge.car())
    for victim, expected in (
        (min(forge.tree), "incomplete"),
        (next(iter(forge.records.values())), "record_missing"),
    ):
        rest = {cid: block for cid, block in whole.blocks.items() if cid != victim}
        assert refused(write_car(whole.root, rest), forge) == expected


def test_what_is_wrong_with_a_car_is_named(forge: Forge) -> None:
    """A cut, a wrong length, another account or key, a missing commit, too much of it."""
    car = forge.car()
    whole = read_car(car)
    assert refused(car[:-1], forge) == "car"
    assert refused(b"", forge) == "car"
    assert refused(car + b"\x01", forge) == "car"
    assert refused(b"<html>502 Bad Gateway</html>", forge) == "car"
    assert refused(car + b"\xff\xff\xff\xff\xff\x7f", forge) == "car_size"
    assert refused(car + b"\xff\xff\xff\x7f", forge) == "car_size"
    assert refused(car, forge, bytes_max=len(car) - 1) == "car_size"
    assert refused(car, Forge(1)) == "signature"
    assert refused(car, Forge(1, did="did:plc:other")) == "wrong_did"
    assert (
        refused(write_car(whole.root, {c: b for c, b in whole.blocks.items() if c != whole.root}), forge)
        == "commit_missing"
    )
    assert refused(car + b"\x26" + b"\x01\x70\x12\x20" + bytes(34), forge) == "cid_form"
    assert refused(car + b"\x03abc", forge) == "cid_form"


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_changed_byte_of_a_car_is_taken(forge: Forge, data: st.DataObject) -> None:
    """Every byte is covered by a hash that leads to the signature."""
    car = bytearray(forge.car())
    car[data.draw(st.integers(0, len(car) - 1))] ^= data.draw(st.integers(1, 255))
    assert refused(bytes(car), forge)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.integers(1, 40))
def test_both_readers_of_cars_agree(data: bytes, size: int) -> None:
    """What one reads the other reads, what one refuses the other refuses."""
    for candidate in (data, write_car(cid_of(data), {cid_of(data): data, cid_of(b"\xa0"): b"\xa0"})):
        try:
            car = read_car(candidate)
        except Contradiction:
            with pytest.raises(Contradiction):
                streamed(candidate, size)
        else:
            assert streamed(candidate, size) == (car.root, car.blocks)


def streamed(data: bytes, size: int) -> tuple[bytes, dict[bytes, bytes]]:
    reader = CarReader(bytes_max=10_000)
    blocks = {}
    for piece in pieces(data, size):
        for section in reader.feed(piece):
            blocks[section.cid] = section.block
            assert data[section.at : section.at + len(section.block)] == section.block
    return reader.finish(), blocks


def test_raw_blocks_and_duplicates_are_tolerated(forge: Forge) -> None:
    """A CAR may hold blobs and blocks twice; they change nothing."""
    car = forge.car()
    raw = b"picture"
    section = cid_of(raw).replace(b"\x71", b"\x55", 1) + raw
    twice = car + bytes((len(section),)) + section + car[59:]
    with read_repository([twice], forge.did, forge.key) as repo:
        assert repo.check_whole() == len(forge.records)


def test_the_index_of_a_block_file_survives_equal_prefixes() -> None:
    """The index sorts by eight bytes of the hash: blocks that share them are still told apart."""
    file = BlockFile(0)
    cids = [b"\x01\x71\x12\x20" + b"same8byt" + bytes((n,)) * 24 for n in range(5)]
    for n, cid in enumerate(cids):
        file.append(cid, b"%d" % n)
    file.append(b"\x01\x71\x12\x20" + b"\xff" * 32, b"last")
    file.seal()
    assert [file[cid] for cid in cids] == [b"0", b"1", b"2", b"3", b"4"]
    assert sorted(file)[:5] == cids
    assert len(file) == 6
    with pytest.raises(KeyError):
        file[b"\x01\x71\x12\x20" + b"same8byt" + b"x" * 24]
    file.close()


def test_memory_does_not_grow_with_the_repository() -> None:
    """A CAR of 8 MB is read with two: blocks wait in a file."""
    import tracemalloc

    rng = random.Random(5)
    forge = Forge(5)
    forge.commit(creates=200)
    path_blocks = {
        forge.path(): forge.record({"$type": "com.example.note", "x": rng.randbytes(400_000)}) for _ in range(20)
    }
    forge.records |= {path: cid_of(block) for path, block in path_blocks.items()}
    forge.commit(creates=1)
    car = forge.car()
    assert len(car) > 8_000_000
    tracemalloc.start()
    try:
        with read_repository(
            (car[at : at + 65_536] for at in range(0, len(car), 65_536)), forge.did, forge.key, memory_bytes_max=0
        ) as repo:
            assert repo.check_whole() == len(forge.records)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000
