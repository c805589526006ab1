"""The EVM source keeps the contract, over live nodes and over a recording."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

from contract.source_scenes import RecordedScene, node_scene
from gapless import examples
from gapless.sources.evm.recording import Recording, read_recording
from gapless.sources.evm.types import Verify
from gapless.testing.source_contract import (
    FailingSourceContract,
    MovingSourceContract,
    SourceContract,
    SourceScene,
)
from servers.evm_source import TRANSFERS


class TestTwoNodes(SourceContract, MovingSourceContract, FailingSourceContract):
    """The whole contract, with logs of every block."""

    def scene(self) -> AbstractAsyncContextManager[SourceScene]:
        return node_scene(request_attempts_max=3)


class TestOneNode(SourceContract, MovingSourceContract, FailingSourceContract):
    """With nobody to fail over to, by filter, and everything proved."""

    def scene(self) -> AbstractAsyncContextManager[SourceScene]:
        return node_scene(1, TRANSFERS, request_attempts_max=3, verify=Verify.PROVED)


class TestThatAuditsEverything(SourceContract, MovingSourceContract):
    """Each filtered range is compared with the other node's."""

    def scene(self) -> AbstractAsyncContextManager[SourceScene]:
        return node_scene(2, TRANSFERS, audit_share=1.0, strict_positions_max=4)


@cache
def recorded() -> Recording:
    return read_recording(examples.path())


class TestReplay(SourceContract):
    """Its script decides when it moves, and nothing can cut it off."""

    @asynccontextmanager
    async def scene(self) -> AsyncIterator[SourceScene]:
        scene = RecordedScene(recorded())
        yield scene
        await scene.source.close()
