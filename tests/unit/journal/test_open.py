"""Opening a journal by its URL, and what a file journal says about a folder that is not as it should be."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from gapless.clock import SystemClock
from gapless.errors import ConfigError, InvariantViolation, JournalError, JournalLocked, JournalUnavailable
from gapless.journal import Limits, open_journal
from gapless.journal.disk import SystemDisk
from gapless.journal.file import FileLog
from unit.journal.scene import FOLDER, Files, closed_journal, everything, messages, opened

LIMITS = Limits(segment_bytes=2**16)


def test_a_url_names_a_journal(tmp_path: Path) -> None:
    """Absolute, relative to the configuration's folder, with blanks; what is appended is in that folder."""

    async def main() -> None:
        for url, folder in (
            ("memory:", None),
            ((tmp_path / "absolute").as_uri(), tmp_path / "absolute"),
            ((tmp_path / "with blank").as_uri(), tmp_path / "with blank"),
            ("file:below/this", tmp_path / "below" / "this"),
        ):
            journal = await open_journal(url, clock=SystemClock(), base=tmp_path)
            assert await journal.append(messages(3)) == [1, 2, 3]
            assert journal.url == (url if folder is None else f"file://{folder}")
            await journal.close()
            if folder is not None:
                assert sorted(p.name for p in folder.iterdir()) == [f"{1:020d}.log", "books", "lock"]

    asyncio.run(main())


@pytest.mark.parametrize("url", ["", "memory", "memory:x", "file:", "file://host/path", "file:a?b=c", "kafka://x"])
def test_what_is_no_journal_is_refused(url: str) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigError, match="memory:"):
        asyncio.run(open_journal(url, clock=SystemClock()))


def test_a_folder_has_one_process(tmp_path: Path) -> None:
    """A second handle is refused, and the first goes on."""
    first = FileLog(tmp_path, LIMITS)
    first.open()
    with pytest.raises(JournalLocked, match="one process"):
        FileLog(tmp_path, LIMITS).open()
    assert first.append(messages(1)) == [1]
    first.close()
    second = FileLog(tmp_path, LIMITS)
    second.open()
    assert second.state().last == 1
    second.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    """And nothing stays locked or open."""
    tmp_path.chmod(0o500)
    with pytest.raises(JournalUnavailable, match="Permission"):
        FileLog(tmp_path / "journal", LIMITS).open()


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    """As trouble of the disk, with the reason."""
    (tmp_path / "journal").write_text("x")
    with pytest.raises(JournalUnavailable, match="journal"):
        FileLog(tmp_path / "journal", LIMITS).open()


def test_no_thread_and_no_lock_is_left_behind(tmp_path: Path) -> None:
    """After close, and after an opening that failed."""

    async def main() -> None:
        journal = await open_journal(tmp_path.as_uri(), clock=SystemClock())
        await journal.append(messages(2))
        with pytest.raises(JournalLocked):
            await open_journal(tmp_path.as_uri(), clock=SystemClock())
        await journal.close()

    asyncio.run(main())
    for thread in [t for t in threading.enumerate() if t.name.startswith("gapless-journal")]:
        thread.join(timeout=10)
        assert not thread.is_alive()
    log = FileLog(tmp_path, LIMITS)
    log.open()
    log.close()


def test_damaged_books_are_refused_and_nothing_is_touched() -> None:
    """Without them nobody knows for whom records are kept. Once they are moved away, everything is there."""
    files, sent = closed_journal()
    whole = files.contents[FOLDER / "books"]
    for at in range(len(whole)):
        disk = files.disk()
        disk.content(FOLDER / "books")[at] ^= 1
        with pytest.raises(JournalError, match="books"):
            opened(disk)
        assert {p: bytes(disk.content(p)) for p in files.segments} == {p: files.contents[p] for p in files.segments}
    del files.contents[FOLDER / "books"]
    records, damages = everything(opened(files.disk()))
    assert not damages
    assert len(records) == len(sent)


def test_books_of_a_newer_format_are_refused() -> None:
    """What they mean is not known here."""
    from google_crc32c import value

    files, _ = closed_journal()
    text = b'{"format":2}'
    files.contents[FOLDER / "books"] = text + b"\n%08x" % value(text)
    with pytest.raises(JournalError, match="newer"):
        opened(files.disk())


def test_other_files_in_the_folder_are_left_alone() -> None:
    """What is not ours is neither read nor removed."""
    files, sent = closed_journal()
    strange = {FOLDER / n: b"mine" for n in ("notes.txt", "1.log", "x" * 20 + ".log", "copy.log.bak")}
    ours = files.segments
    files.contents.update(strange)
    disk = files.disk()
    log = opened(disk)
    log.subscribe("reader")
    log.acknowledge("reader", len(sent))
    log.trim(None)
    log.close()
    left = Files(disk).contents
    assert {p: left.get(p) for p in strange} == strange
    assert not [p for p in left if p in ours]


def test_limits_that_cannot_work_are_refused() -> None:
    """Low water above high water, or too low for whole segments."""
    for wrong in ({"records_low": 10, "records_high": 10}, {"bytes_low": 5, "bytes_high": 4}, {"recent_ids": 0}):
        with pytest.raises(InvariantViolation):
            Limits(**wrong)
    with pytest.raises(InvariantViolation):
        FileLog(FOLDER, Limits(segment_bytes=100, bytes_low=150, bytes_high=900))


def test_the_real_disk_does_what_the_port_says(tmp_path: Path) -> None:
    """Short reads at the end, writes at any offset, names in order, replaced files."""
    disk = SystemDisk()
    disk.make_folder(tmp_path / "a" / "b")
    disk.make_folder(tmp_path / "a" / "b")
    file = disk.create(tmp_path / "a" / "b" / "one")
    file.write_at(3, b"defgh")
    file.sync()
    assert (file.size(), file.read_at(0, 100), file.read_at(4, 2), file.read_at(9, 5)) == (
        8,
        b"\0\0\0defgh",
        b"ef",
        b"",
    )
    file.close()
    file.close()
    disk.create(tmp_path / "a" / "b" / "two").close()
    disk.rename(tmp_path / "a" / "b" / "one", tmp_path / "a" / "b" / "two")
    assert disk.names(tmp_path / "a" / "b") == ["two"]
    found = disk.open(tmp_path / "a" / "b" / "two")
    assert found.size() == 8
    found.close()
    with pytest.raises(FileNotFoundError):
        disk.open(tmp_path / "a" / "b" / "one")


@pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="another call is used here")
def test_the_real_disk_is_asked_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sync of the file for each append, after its bytes were written and before it returns; and one of the folder
    for a new segment. What a real disk does then cannot be seen from here."""
    seen: list[tuple[str, int]] = []
    data, names = os.fdatasync, os.fsync

    def sync_data(descriptor: int) -> None:
        seen.append(("data", os.fstat(descriptor).st_size))
        data(descriptor)

    def sync_names(descriptor: int) -> None:
        seen.append(("names", len(list(tmp_path.glob("*.log")))))
        names(descriptor)

    log = FileLog(tmp_path, LIMITS)
    log.open()
    monkeypatch.setattr(os, "fdatasync", sync_data)
    monkeypatch.setattr(os, "fsync", sync_names)
    sizes = []
    for at in (1, 11, 21):
        log.append(messages(10, at))
        sizes.append(log.state().bytes_held)
    assert seen == [("names", 1), *(("data", size) for size in sizes)]
    log.close()
