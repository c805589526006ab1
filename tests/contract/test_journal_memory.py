"""The journal in memory keeps the contract."""

from __future__ import annotations

from gapless.journal import Journal, Limits
from gapless.journal.memory import MemoryLog
from gapless.journal.shell import Shell
from gapless.testing.journal_contract import JournalContract


class TestMemoryJournal(JournalContract):
    """The whole contract of what is not durable."""

    async def make_journal(self, limits: Limits) -> Journal:
        journal = Shell(MemoryLog(limits), self.clock)
        await journal.open()
        return journal
