"""What every `gapless.store.Store` must do, as a pytest class to subclass. Needs pytest.

    class TestMyStore(StoreContract):
        def make_store(self) -> Store:
            return MyStore(...)          # one database for each test, another handle at every call

`ByHandContract` is for databases that can be written past the store, too. Every test is one sentence of the contract.
The suite is itself tested: stores broken on purpose must fail it.
"""

from gapless.testing.store_contract.books import LedgerContract
from gapless.testing.store_contract.by_hand import ByHandContract
from gapless.testing.store_contract.commits import CommitContract
from gapless.testing.store_contract.histories import HistoryContract
from gapless.testing.store_contract.leadership import LeaseContract
from gapless.testing.store_contract.opening import OpeningContract
from gapless.testing.store_contract.queries import QueryContract
from gapless.testing.store_contract.reading import ReadContract
from gapless.testing.store_contract.replacing import ReplaceContract
from gapless.testing.store_contract.rewinding import RewindContract
from gapless.testing.store_contract.values import ValueContract

__all__ = ["ByHandContract", "StoreContract"]


class StoreContract(
    OpeningContract,
    CommitContract,
    RewindContract,
    ReplaceContract,
    ReadContract,
    ValueContract,
    HistoryContract,
    QueryContract,
    LeaseContract,
    LedgerContract,
):
    """The whole contract."""
