"""File journals on a disk in memory, ready to be damaged."""

from __future__ import annotations

from pathlib import Path

from gapless.journal import Damage, Message, Record
from gapless.journal.file import FileLog
from gapless.journal.limits import Limits
from gapless.testing.power_cut import PowerCutDisk

FOLDER = Path("/journal")
LIMITS = Limits(segment_bytes=40_000, bytes_low=2**20, bytes_high=2**21)


def messages(count: int, first: int = 1, size: int = 700) -> list[Message]:
    """Of different sizes and contents."""
    return [Message(f"id-{n}", bytes([n % 251]) * (size + n % 97), n * 1000) for n in range(first, first + count)]


def opened(disk: PowerCutDisk, limits: Limits = LIMITS) -> FileLog:
    log = FileLog(FOLDER, limits, disk)
    log.open()
    return log


def everything(log: FileLog) -> tuple[list[Record], list[Damage]]:
    """All records that can be read, and the damage in the place of the rest."""
    found = list(log._walk(log.state().first - 1))
    return [f for f in found if isinstance(f, Record)], [f for f in found if isinstance(f, Damage)]


def positions(records: list[Record], damages: list[Damage]) -> list[int]:
    """Every position that is accounted for, in order."""
    return sorted([r.position for r in records] + [p for d in damages for p in range(d.first, d.last + 1)])


class Files:
    """The files of a journal as they lay, to be put on any number of disks."""

    def __init__(self, disk: PowerCutDisk) -> None:
        self.contents = {path: bytes(disk.content(path)) for path in disk.files() if path.name != "lock"}

    @property
    def segments(self) -> list[Path]:
        return [p for p in self.contents if p.suffix == ".log"]

    def disk(self) -> PowerCutDisk:
        disk = PowerCutDisk()
        for path, data in self.contents.items():
            file = disk.create(path)
            file.write_at(0, data)
            file.sync()
        disk.sync_folder(FOLDER)
        return disk


def closed_journal(groups: int = 16, group: int = 4, size: int = 700) -> tuple[Files, list[Message]]:
    """A journal of several segments that was closed in order."""
    return _journal(groups, group, size, close=True)


def killed_journal(groups: int = 16, group: int = 4, size: int = 700) -> tuple[Files, list[Message]]:
    """A journal whose process was killed after its last append."""
    return _journal(groups, group, size, close=False)


def _journal(groups: int, group: int, size: int, *, close: bool) -> tuple[Files, list[Message]]:
    disk = PowerCutDisk()
    log = opened(disk)
    log.subscribe("reader")
    sent = messages(groups * group, size=size)
    for at in range(0, len(sent), group):
        log.append(sent[at : at + group])
    if close:
        log.close()
    return Files(disk), sent
