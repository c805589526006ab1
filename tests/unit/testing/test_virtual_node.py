"""The fake node in virtual time: a whole network scene that takes no real time and is the same in every run."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from gapless.testing import FakeClock, FakeNode, Late, ScriptedChain, SlowDrip, Stall

CALL = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}


async def height(session: aiohttp.ClientSession, node: FakeNode) -> int:
    async with session.post(node.url, json=CALL) as response:
        return int((await response.json())["result"], 16)


def test_slow_answers_take_virtual_time() -> None:
    """Half a minute of waiting for a slow endpoint passes at once, and exactly."""
    clock = FakeClock()

    async def main() -> tuple[float, float]:
        async with FakeNode(ScriptedChain(), clock=clock) as node, aiohttp.ClientSession() as session:
            node.behave(Late(30), times=1)
            await height(session, node)
            late = clock.monotonic()
            node.behave(SlowDrip(1), times=1)
            await height(session, node)
            return late, clock.monotonic() - late

    started = time.monotonic()
    late, drip = clock.run(main())

    assert late == pytest.approx(30)
    assert drip == pytest.approx(40, abs=2)
    assert time.monotonic() - started < 5


def test_timeouts_are_virtual_too() -> None:
    """A client's own timeout on a stalled endpoint runs on the same clock."""
    clock = FakeClock()

    async def main() -> None:
        timeout = aiohttp.ClientTimeout(total=20)
        async with FakeNode(ScriptedChain(), clock=clock) as node, aiohttp.ClientSession(timeout=timeout) as session:
            node.behave(Stall(), times=1)
            with pytest.raises(TimeoutError):
                await height(session, node)
            assert await height(session, node) == 0

    clock.run(main())
    assert 20 <= clock.monotonic() < 22


def test_a_day_of_blocks() -> None:
    """A miner and a poller live through a day in order: every poll sees exactly the blocks of its time."""
    clock = FakeClock()
    seen: list[tuple[float, int]] = []

    async def main() -> None:
        chain = ScriptedChain(block_seconds=600)

        async def mine() -> None:
            while True:
                await clock.sleep(600)
                chain.mine()

        async with FakeNode(chain, clock=clock) as node, aiohttp.ClientSession() as session:
            miner = asyncio.create_task(mine())
            for hour in range(1, 25):
                await clock.sleep(3600 * hour + 1 - clock.monotonic())
                seen.append((clock.monotonic(), await height(session, node)))
            miner.cancel()

    clock.run(main())
    assert seen == [(3600.0 * hour + 1, 6 * hour) for hour in range(1, 25)]
