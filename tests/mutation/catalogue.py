"""All mutants."""

from tests.mutation.atproto import ATPROTO
from tests.mutation.engine import ENGINE
from tests.mutation.evm import EVM
from tests.mutation.journal import JOURNAL
from tests.mutation.mutant import Mutant
from tests.mutation.stores import STORES
from tests.mutation.values import VALUES_AND_EDGES

MUTANTS: tuple[Mutant, ...] = (*STORES, *JOURNAL, *ENGINE, *EVM, *ATPROTO, *VALUES_AND_EDGES)
