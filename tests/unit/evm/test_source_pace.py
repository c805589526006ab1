"""The source over endpoints that are in time with every answer, and too slow for the whole."""

from __future__ import annotations

from random import Random

import pytest

from gapless.errors import SourceUnavailable
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.source import EvmSource
from gapless.testing.chain import ScriptedChain
from gapless.testing.methods import Limits
from gapless.testing.simulated_time import SimulatedClock, SimulatedLoop, Timeline
from gapless.testing.simulated_wire import Line, SimulatedNode, SimulatedTransport
from servers.evm_source import TRANSFERS, found, truth


def test_a_range_that_takes_longer_than_one_fetch_may_is_asked_for_in_parts() -> None:
    """Each request is answered within its time, but a range of them is not: the next range is smaller, so that a slow
    endpoint is got on with, slowly, and not asked for the same too much for ever."""
    chain = ScriptedChain(seed=1)
    chain.mine(70, logs=2)
    timeline = Timeline()
    loop = SimulatedLoop.on(timeline)
    clock = SimulatedClock(loop, 1)
    node = SimulatedNode("slow", chain, Limits(), loop.time)
    node.slow_seconds = 0.9
    transport = SimulatedTransport(node, Line(), loop, clock, Random(1), lambda *_: None)
    options = EvmOptions(batch_calls_max=1, batch_calls_start=1, concurrency_max=1, deadline_seconds=12.0)

    async def scene() -> None:
        source = EvmSource("chain", options, TRANSFERS, clock, [transport])
        head = await source.head()
        assert source.span() == 64
        refusals = 0
        while source.span() > 4:
            with pytest.raises(SourceUnavailable):
                await source.fetch(7, 7 + source.span() - 1, head=head)
            refusals += 1
        assert refusals == 4
        last = 7 + source.span() - 1
        assert found(await source.fetch(7, last, head=head)) == truth(chain, 7, last)
        await source.close()

    timeline.run(loop.create_task(scene()), steps_max=1_000_000)
