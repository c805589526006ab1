"""Ids asked for to find where branches part."""

from __future__ import annotations

import pytest

from gapless.errors import SourceError
from gapless.model import Cursor
from gapless.testing.block_lies import Unlinked
from gapless.testing.chain import ScriptedChain
from gapless.testing.node import FakeNode
from servers.evm_source import evm_source
from unit.evm.source_scene import run


def test_ids_that_do_not_link_place_no_fork() -> None:
    """Whoever makes the ids of a chain up, each right in itself, is not believed that the chain was replaced: asked for
    neighbours it contradicts itself. Another endpoint is asked; where there is none it is tried again later."""
    chain = ScriptedChain(seed=1)
    chain.mine(60)
    wanted = [Cursor(n, chain.blocks(n, n)[0].hash) for n in range(20, 40)]

    async def scene() -> None:
        async with FakeNode(chain) as liar, FakeNode(chain) as honest:
            liar.behave(Unlinked(), first=1)
            async with evm_source([liar, honest]) as source:
                assert await source.cursors(range(20, 40)) == wanted
                assert await source.cursors([5, 9, 70]) is not None
            async with evm_source([liar]) as alone:
                with pytest.raises(SourceError) as caught:
                    await alone.cursors(range(20, 40))
                assert caught.value.retryable

    run(scene)
