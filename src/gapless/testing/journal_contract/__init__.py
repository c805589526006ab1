"""What every `gapless.journal.Journal` must do, as pytest classes to subclass. Needs pytest.

    class TestMyJournal(DurableJournalContract):
        async def make_journal(self, limits: Limits) -> Journal:
            return await MyJournal.open(...)     # one journal for each test, another handle at every call

`JournalContract` is for any journal; `DurableJournalContract` also for what a restart, a killed process and a power
cut leave; `DamageContract` for journals whose bytes can be damaged by a test. Every test is one sentence of the
contract. The suite is itself tested: journals broken on purpose must fail it.
"""

from gapless.testing.journal_contract.appending import AppendContract
from gapless.testing.journal_contract.consuming import ConsumerContract
from gapless.testing.journal_contract.damage import DamageContract
from gapless.testing.journal_contract.durability import DurabilityContract
from gapless.testing.journal_contract.reading import ReadContract
from gapless.testing.journal_contract.water import WaterContract

__all__ = ["DamageContract", "DurableJournalContract", "JournalContract"]


class JournalContract(AppendContract, ReadContract, ConsumerContract, WaterContract):
    """The contract of every journal."""


class DurableJournalContract(JournalContract, DurabilityContract):
    """The contract of a journal that outlives its process and its machine's power."""
