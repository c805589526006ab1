"""What every `gapless.sources.Source` must do, as pytest classes to subclass. Needs pytest.

    class TestMySource(SourceContract, MovingSourceContract, FailingSourceContract):
        @asynccontextmanager
        async def scene(self) -> AsyncIterator[SourceScene]:
            async with my_node() as node:
                yield MyScene(node)          # a source over the node, and what is true of its chain

`SourceContract` is for every source; `MovingSourceContract` for those whose chain can be made to grow and to fork, and
`FailingSourceContract` for those that can be cut off. Every test is one sentence of the contract. The suite is itself
tested: sources broken on purpose must fail it.
"""

from gapless.testing.source_contract.closing import ClosingContract
from gapless.testing.source_contract.cursors import CursorContract
from gapless.testing.source_contract.failing import FailingSourceContract
from gapless.testing.source_contract.fetching import FetchContract
from gapless.testing.source_contract.moving import MovingSourceContract
from gapless.testing.source_contract.scene import Known, SourceScene
from gapless.testing.source_contract.standing import StandingContract

__all__ = ["FailingSourceContract", "Known", "MovingSourceContract", "SourceContract", "SourceScene"]


class SourceContract(StandingContract, FetchContract, CursorContract, ClosingContract):
    """What every source promises."""
