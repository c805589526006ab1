"""The journal in a folder keeps the contract: on a real disk, and on one that loses what was not synced."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gapless.journal import Journal, Limits
from gapless.journal.file import FileLog
from gapless.journal.shell import Shell
from gapless.testing.journal_contract import DamageContract, DurableJournalContract
from gapless.testing.power_cut import PowerCutDisk


class TestFileJournal(DurableJournalContract, DamageContract):
    """On the operating system's disk. A kill leaves the page cache; real power cuts are for the other class."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "deep" / "journal"

    async def make_journal(self, limits: Limits) -> Journal:
        journal = Shell(FileLog(self.folder, limits), self.clock)
        await journal.open()
        return journal

    async def kill(self, journal: Journal) -> None:
        assert isinstance(journal, Shell)
        assert isinstance(journal._log, FileLog)
        journal._log._release()  # what the system does for a process that is gone: its files are closed

    async def lose_power(self, journal: Journal) -> None:
        await self.kill(journal)

    def damage(self, position: int) -> None:
        key = f"host.example:{position}".encode()
        for path in self.folder.glob("*.log"):
            data = path.read_bytes()
            # The id stands before the length of its value, whose first byte is no digit.
            found = [at for at in _all(data, key) if not data[at + len(key) : at + len(key) + 1].isdigit()]
            if found:
                descriptor = os.open(path, os.O_RDWR)
                os.pwrite(descriptor, bytes([data[found[0] + 100] ^ 1]), found[0] + 100)
                os.close(descriptor)
                return
        pytest.fail(f"position {position} is in no segment")


def _all(data: bytes, key: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(key), data)]


class TestFileJournalInMemory(DurableJournalContract):
    """On a disk that forgets: whatever was not synced is lost in a power cut."""

    @pytest.fixture(autouse=True)
    def _disk(self) -> None:
        self.disk = PowerCutDisk(seed=1)

    async def make_journal(self, limits: Limits) -> Journal:
        journal = Shell(FileLog(Path("/journal"), limits, self.disk), self.clock)
        await journal.open()
        return journal

    async def kill(self, journal: Journal) -> None:
        self.disk.crash()

    async def lose_power(self, journal: Journal) -> None:
        self.disk.cut()
