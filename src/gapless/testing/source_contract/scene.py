"""Where a source is tested: what is true of its chain, what can be done to it, and a bound on everything."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from gapless.errors import SourceError
from gapless.model import Cursor, Segment
from gapless.sources import AnySource

ENTRIES_MIN = 20
"""A scene's chain has so many entries at least."""


@dataclass(frozen=True, slots=True)
class Known:
    """An entry as it truly is. `contents`: what it holds, in whatever form `SourceScene.contents` gives it too."""

    position: int
    id: str
    parent_id: str
    contents: Any = None

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.position, self.id)


class SourceScene(ABC):
    """One test's source over one test's chain."""

    source: AnySource

    @abstractmethod
    def truth(self) -> list[Known]:
        """The chain as it is now: consecutive entries, at least 20, up to the newest."""

    @abstractmethod
    def contents(self, segment: Segment[Any]) -> list[Any]:
        """What each entry of a segment holds, comparable with what is `Known`."""

    async def grow(self, entries: int) -> None:  # noqa: ARG002 - for those who override it
        """Append so many entries to the chain."""
        pytest.fail("a scene of MovingSourceContract says how its chain grows")

    async def fork(self, depth: int, entries: int) -> None:  # noqa: ARG002 - for those who override it
        """Replace the newest `depth` entries, which are not final, by `entries` others."""
        pytest.fail("a scene of MovingSourceContract says how its chain forks")

    async def cut(self) -> None:
        """From now on nothing answers the source."""
        pytest.fail("a scene of FailingSourceContract says how it is cut off")

    async def restore(self) -> None:
        """It can be reached again."""
        pytest.fail("a scene of FailingSourceContract says how it is restored")


class SourceCase:
    """What the parts of the contract share."""

    patience_seconds = 20.0
    """In real time: for one call of the source, whatever happens, its own retries included."""

    def scene(self) -> AbstractAsyncContextManager[SourceScene]:
        """A new scene; when it ends the source is closed."""
        pytest.fail("a subclass of SourceContract says how its scenes are made")

    def play(self, act: Callable[[SourceScene], Awaitable[None]]) -> None:
        """Let something happen in a scene of its own."""

        async def main() -> None:
            async with self.scene() as scene:
                assert len(scene.truth()) >= ENTRIES_MIN, "a scene's chain is long enough to be cut into ranges"
                await act(scene)

        asyncio.run(main())

    async def soon(self, call: Awaitable[Any]) -> Any:
        """The call's answer; fails the test where none comes in time."""
        try:
            async with asyncio.timeout(self.patience_seconds):
                return await call
        except TimeoutError as error:
            pytest.fail(f"no answer and no error within {self.patience_seconds:g} s: {error!r}")

    async def fetched(self, scene: SourceScene, first: int, last: int) -> list[Known]:
        """A fetched range, which must be what was asked for and hang together."""
        head = await self.soon(scene.source.head())
        segment: Segment[Any] = await self.soon(scene.source.fetch(first, last, head=head))
        return self.checked(scene, segment, first, last)

    def checked(self, scene: SourceScene, segment: Segment[Any], first: int, last: int) -> list[Known]:
        entries = segment.entries
        assert segment.source == scene.source.name
        assert [e.position for e in entries] == list(range(first, last + 1)), "all of the range, in order, and no more"
        assert all(child.parent_id == parent.id for parent, child in pairwise(entries)), "each entry links to the next"
        assert segment.size_bytes >= 0
        contents = scene.contents(segment)
        assert len(contents) == len(entries)
        return [Known(e.position, e.id, e.parent_id, c) for e, c in zip(entries, contents, strict=True)]


def must_pass(error: SourceError) -> None:
    """It must be an error after which the engine tries again."""
    assert error.retryable, f"the engine gives up after {error!r}"
