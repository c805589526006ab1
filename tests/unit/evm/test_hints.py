"""WebSocket hints: they wake, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gapless.clock import SystemClock
from gapless.errors import ConfigError
from gapless.sources.evm import hints as module
from gapless.sources.evm.hints import NewHeads
from gapless.sources.evm.options import EvmOptions
from gapless.testing.behaviour import Behaviour
from gapless.testing.chain import ScriptedChain
from gapless.testing.faults import Late
from gapless.testing.node import FakeNode
from gapless.testing.pushes import (
    DroppedSocket,
    DuplicatedHeads,
    GarbageHeads,
    OutOfOrderHeads,
    RefusedSocket,
    SilentHeads,
)
from servers.evm_source import TRANSFERS, evm_source


@pytest.fixture
def chain() -> ScriptedChain:
    chain = ScriptedChain(seed=2)
    chain.mine(20)
    return chain


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RECONNECT_SECONDS", 0.02)


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await main()

    return asyncio.run(bounded())


def new_heads(node: FakeNode, **options: Any) -> NewHeads:
    return NewHeads(node.ws_url, EvmOptions(**options), SystemClock())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_push_is_seen_long_before_the_poll(chain: ScriptedChain) -> None:
    """With a poll of ten seconds, a new head is there in a moment."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            hints = new_heads(node)
            async with evm_source([node], TRANSFERS, [hints], poll_seconds=10.0) as source:
                known = (await source.head()).latest
                waiting = asyncio.create_task(source.wait_head(known, 15.0))
                await until(lambda: hints.connections == 1)
                await asyncio.sleep(0.05)
                began = asyncio.get_running_loop().time()
                chain.mine(1)
                head = await waiting
                assert head.latest.position == 21
                assert asyncio.get_running_loop().time() - began < 1.0

    run(main)


@pytest.mark.parametrize(
    "failure",
    [SilentHeads(), DroppedSocket(), RefusedSocket(), RefusedSocket("subscribe"), GarbageHeads()],
    ids=repr,
)
def test_a_dead_channel_does_not_delay_the_head(chain: ScriptedChain, failure: Behaviour) -> None:
    """Silent, dropped, refused or garbled: polling sees the block in its own time."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            node.behave(failure)
            hints = new_heads(node)
            async with evm_source([node], TRANSFERS, [hints], poll_seconds=0.1) as source:
                known = (await source.head()).latest
                waiting = asyncio.create_task(source.wait_head(known, 15.0))
                await asyncio.sleep(0.1)
                began = asyncio.get_running_loop().time()
                chain.mine(1)
                assert (await waiting).latest.position == 21
                assert asyncio.get_running_loop().time() - began < 0.5

    run(main)


@pytest.mark.parametrize("failure", [DuplicatedHeads(), OutOfOrderHeads()], ids=repr)
def test_what_is_pushed_is_never_believed(chain: ScriptedChain, failure: Behaviour) -> None:
    """Heads that come twice or backwards only make the source look: what it finds counts."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            node.behave(failure)
            hints = new_heads(node)
            async with evm_source([node], TRANSFERS, [hints], poll_seconds=10.0) as source:
                known = (await source.head()).latest
                for position in range(21, 26):
                    waiting = asyncio.create_task(source.wait_head(known, 15.0))
                    await until(lambda: hints.connections == 1)
                    await asyncio.sleep(0.02)
                    chain.mine(1)
                    known = (await waiting).latest
                    assert known.position == position

    run(main)


def test_a_dropped_channel_is_connected_again(chain: ScriptedChain) -> None:
    """For ever, with growing pauses while it fails."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            dropping = node.behave(DroppedSocket(), times=2)
            hints = new_heads(node)
            hints.start()
            for connection in (1, 2, 3):
                await until(lambda n=connection: hints.connections == n)  # type: ignore[misc]
                await asyncio.sleep(0.05)
                chain.mine(1)
            await until(lambda: hints.rings >= 1)
            assert dropping.used == 2
            await hints.close()

    run(main)


def test_a_silent_channel_is_connected_again(chain: ScriptedChain) -> None:
    """A channel without a message for too long may be dead without knowing."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            hints = new_heads(node, hint_silence_seconds=0.1)
            hints.start()
            await until(lambda: hints.connections >= 3)
            assert hints.last_error == "TimeoutError"
            await hints.close()

    run(main)


def test_a_node_that_is_not_there_is_tried_again(chain: ScriptedChain) -> None:
    """The channel comes to life with the node."""

    async def main() -> None:
        node = FakeNode(chain)
        async with node:
            port = node.port
        hints = NewHeads(f"ws://127.0.0.1:{port}", EvmOptions(), SystemClock())
        hints.start()
        await asyncio.sleep(0.1)
        assert hints.connections == 0
        async with FakeNode(chain, port=port):
            await until(lambda: hints.connections == 1)
            await hints.close()

    run(main)


def test_closing_ends_it_at_once(chain: ScriptedChain) -> None:
    """Connected, connecting or never begun; twice as well."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            node.behave(Late(10.0))
            hints = new_heads(node)
            await hints.close()
            hints.start()
            hints.start()
            await until(lambda: hints.connections == 1)
            began = asyncio.get_running_loop().time()
            await hints.close()
            await hints.close()
            assert asyncio.get_running_loop().time() - began < 1.0

    run(main)


def test_only_websocket_addresses_are_taken() -> None:
    """And no key stands in the label."""
    with pytest.raises(ConfigError):
        NewHeads("http://127.0.0.1:1", EvmOptions(), SystemClock())
    assert NewHeads("wss://u:p@node.example/v3/0123456789abcdef?k=1", EvmOptions(), SystemClock()).label == (
        "node.example/v3/…"
    )
