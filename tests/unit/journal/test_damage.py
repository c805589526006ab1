"""Torn tails are cut, damage in the middle is named, and nothing is passed over or thrown away."""

from __future__ import annotations

import random

import pytest

from gapless.errors import JournalDamaged
from gapless.journal import Message, Record
from gapless.journal.blocks import BLOCK_BYTES, Piece, encode
from gapless.journal.segment import Segment
from unit.journal.scene import FOLDER, Files, closed_journal, everything, killed_journal, messages, opened, positions

FLIPS = 5_000
GROUP = 4


def sent_as(records: list[Record]) -> list[Message]:
    return [Message(r.id, r.payload, r.received_us) for r in records]


def flips(files: Files, seed: int, count: int) -> list[tuple[int, int, int]]:
    """(segment, offset, bit) drawn over all bytes of all segments."""
    drawn = random.Random(seed)
    sizes = [len(files.contents[p]) for p in files.segments]
    return [
        ((number := drawn.choices(range(len(sizes)), sizes)[0]), drawn.randrange(sizes[number]), drawn.randrange(8))
        for _ in range(count)
    ]


def is_padding(data: bytes, offset: int) -> bool:
    """The last bytes of a block, where no header fits."""
    left = BLOCK_BYTES - offset % BLOCK_BYTES
    return left < 7 and not any(data[offset : offset + left])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("half", range(2))
def test_a_flipped_bit_is_named_wherever_it_is(half: int) -> None:
    """In a journal that was closed, every record is read as it was written or its position is named, with the segment
    and an offset at or before the flip; no byte of a segment changes."""
    files, sent = closed_journal()
    for number, offset, bit in flips(files, half, FLIPS // 2):
        path = files.segments[number]
        disk = files.disk()
        disk.content(path)[offset] ^= 1 << bit
        damaged = bytes(disk.content(path))
        records, damages = everything(opened(disk))
        assert positions(records, damages) == list(range(1, len(sent) + 1))
        assert sent_as(records) == [sent[r.position - 1] for r in records]
        if damages:
            assert [d.segment for d in damages] == [path.name]
            assert damages[0].offset <= offset < damages[0].offset + 2 * BLOCK_BYTES
        else:
            last = number == len(files.segments) - 1
            assert is_padding(files.contents[path], offset) or (last and offset > len(damaged) - 20), "the seal"
        kept = [disk.content(p) for p in disk.files() if p == path or p.suffix == ".torn"]
        assert any(damaged.endswith(bytes(k)) and len(k) > 0 for k in kept), "the damaged bytes are still there"


def test_a_flip_after_a_kill_spares_what_was_proved() -> None:
    """Where the process was killed, only the very last append can be taken for torn; before it, all is named."""
    files, sent = killed_journal()
    for number, offset, bit in flips(files, 2, 1_000):
        path = files.segments[number]
        disk = files.disk()
        disk.content(path)[offset] ^= 1 << bit
        log = opened(disk)
        records, damages = everything(log)
        assert sent_as(records) == [sent[r.position - 1] for r in records]
        assert positions(records, damages) == list(range(1, log.state().last + 1))
        assert log.state().last >= len(sent) - GROUP
        if log.state().last < len(sent):
            assert any("last whole record" in note for note in log.state().notes)


def test_a_damaged_header_does_not_hide_what_is_behind_it() -> None:
    """Where a length cannot be believed, the rest of the block cannot be read; but it shows that there was something
    durable, so it is lost and named, and not taken for a torn tail."""
    files, sent = killed_journal(10, 2, size=300)
    path = files.segments[-1]
    starts = encode(sent[:2], 1, 0)[1]
    assert len(files.segments) == 1
    for group in range(1, 9):
        starts += encode(sent[2 * group : 2 * group + 2], 2 * group + 1, _end_of(files, 2 * group))[1]
    for start in starts:
        for byte in range(7):
            disk = files.disk()
            disk.content(path)[start + byte] ^= 0x40
            log = opened(disk)
            records, damages = everything(log)
            assert log.state().last == len(sent)
            assert positions(records, damages) == list(range(1, len(sent) + 1))
            assert sent_as(records) == [sent[r.position - 1] for r in records]
            assert damages[0].offset == start


def _end_of(files: Files, position: int) -> int:
    """The offset behind the record at this position."""
    path = files.segments[-1]
    segment = Segment(path, 1, len(files.contents[path]))
    return next(p.end for p in segment._pieces(files.disk(), 0) if isinstance(p, Piece) and p.position == position)


def test_a_reader_is_stopped_at_damage_and_goes_on_only_when_it_says_so() -> None:
    """Records before the damage are given first; then the error names what is lost; behind it reading goes on."""
    files, sent = closed_journal()
    disk = files.disk()
    path = files.segments[0]
    disk.content(path)[10_000] ^= 4
    log = opened(disk)
    (damage,) = log.verify()
    before = log.read(damage.first - 4, 1000, 10**9)
    assert [r.position for r in before] == [damage.first - 3, damage.first - 2, damage.first - 1]
    with pytest.raises(JournalDamaged, match=f"{damage.first} to {damage.last}.*{path.name}.*offset") as error:
        log.read(damage.first - 1, 1000, 10**9)
    assert (error.value.first, error.value.last) == (damage.first, damage.last)
    after = log.read(error.value.last, 1000, 10**9)
    assert sent_as(after) == sent[damage.last :]


def _last_three(files: Files) -> tuple[int, list[tuple[int, int]]]:
    """Where the newest segment's last three records begin, with how many records are whole before each."""
    disk = files.disk()
    path = files.segments[-1]
    segment = Segment(path, int(path.stem), len(files.contents[path]))
    found = [p for p in segment._pieces(disk, 0) if hasattr(p, "id") and p.id is not None]
    return found[-1].end, [(p.start, p.position - 1) for p in found[-3:]]


@pytest.mark.parametrize("group", [1, 3, 4])
def test_a_torn_tail_ends_at_the_last_whole_record(group: int) -> None:
    """Cut at every byte of the last three records after a kill: what is whole stays, the rest was never there, and
    the journal goes on at the next position. Cut in what was proved durable, the loss is named instead."""
    files, sent = killed_journal(4, group, size=150)
    path = files.segments[-1]
    end, starts = _last_three(files)
    for length in range(starts[0][0], end):
        whole = max(before for start, before in starts if start <= length)
        disk = files.disk()
        del disk.content(path)[length:]
        log = opened(disk)
        records, damages = everything(log)
        assert not damages
        assert sent_as(records) == sent[:whole]
        new = messages(2, 1000)
        assert log.append(new) == [whole + 1, whole + 2]
        disk.cut()
        again, _ = everything(opened(disk))
        assert sent_as(again) == [*sent[:whole], *new]


def test_a_tail_cut_after_an_orderly_end_is_named() -> None:
    """What was there at the end is missed: the books know how far the journal had come."""
    files, sent = closed_journal(4, size=150)
    path = files.segments[-1]
    end, starts = _last_three(files)
    for length in range(starts[0][0], end):
        whole = max(before for start, before in starts if start <= length)
        disk = files.disk()
        del disk.content(path)[length:]
        log = opened(disk)
        records, damages = everything(log)
        assert sent_as(records) == sent[:whole]
        assert [(d.first, d.last) for d in damages] == [(whole + 1, len(sent))]
        assert log.append(messages(1, 1000)) == [len(sent) + 1], "a lost position is not given to another record"


def test_a_segment_that_is_gone_is_named() -> None:
    """A missing file is a hole, and is reported as one; also the first, and the last."""
    for missing in range(len(closed_journal()[0].segments)):
        files, sent = closed_journal()
        path = files.segments[missing]
        del files.contents[path]
        records, damages = everything(opened(files.disk()))
        assert positions(records, damages) == list(range(1, len(sent) + 1))
        assert len(damages) == 1
        assert damages[0].first == int(path.stem)


def test_zeroed_blocks_are_named() -> None:
    """A block that reads as zeros, or a run of them, is damage like any other."""
    for blocks in (1, 2):
        files, sent = closed_journal()
        path = files.segments[0]
        disk = files.disk()
        disk.content(path)[4096 : 4096 + blocks * 4096] = bytes(blocks * 4096)
        records, damages = everything(opened(disk))
        assert positions(records, damages) == list(range(1, len(sent) + 1))
        assert damages
        assert damages[0].offset <= 4096


def test_a_payload_cannot_pass_for_a_record() -> None:
    """Bytes that look like a whole segment inside a payload are not read as records, also when the header before them
    is damaged."""
    forged = closed_journal(2)[0]
    inner = forged.contents[forged.segments[0]]
    disk = Files(killed_journal(1)[0].disk()).disk()
    log = opened(disk)
    log.append([Message("bearer", inner, 1)])
    log.append([Message("after", b"x", 2)])
    log.close()
    files = Files(disk)
    path = files.segments[-1]
    for offset in range(40):
        for bit in range(8):
            disk = files.disk()
            disk.content(path)[offset] ^= 1 << bit
            records, _ = everything(opened(disk))
            assert {r.id for r in records} <= {"id-1", "id-2", "id-3", "id-4", "bearer", "after"}


def test_torn_bytes_are_kept_where_their_file_is_taken() -> None:
    """When nothing in the newest segment can be kept, its name is used again and its bytes are put aside."""
    files, _ = killed_journal(1)
    path = files.segments[0]
    disk = files.disk()
    disk.content(path)[20] ^= 1
    damaged = bytes(disk.content(path))
    log = opened(disk)
    assert log.state().last == 0
    assert bytes(disk.content(path.with_suffix(".torn"))) == damaged
    log.append(messages(1))
    assert FOLDER / path.name in disk.files()
