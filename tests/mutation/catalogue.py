"""All mutants."""

from tests.mutation.atproto import ATPROTO
from tests.mutation.engine import ENGINE
from tests.mutation.evm import EVM
from tests.mutation.mutant import Mutant
from tests.mutation.stores import STORES
from tests.mutation.values import VALUES_AND_EDGES

MUTANTS: tuple[Mutant, ...] = (*STORES, *ENGINE, *EVM, *ATPROTO, *VALUES_AND_EDGES)
