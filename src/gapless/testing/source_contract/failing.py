"""A source that cannot be reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gapless.errors import SourceError
from gapless.model import Head
from gapless.testing.source_contract.scene import SourceCase, SourceScene, must_pass


class FailingSourceContract(SourceCase):
    """What a source promises when nothing answers it."""

    def test_who_cannot_be_reached_raises_what_passes(self) -> None:
        """Every question ends, in time, with a SourceError that the engine tries again after; opinions may be none."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            first = scene.truth()[0].position
            await scene.cut()
            for ask in _questions(scene, head, first):
                with pytest.raises(SourceError) as caught:
                    await self.soon(ask())
                must_pass(caught.value)
                assert str(caught.value)
            try:
                assert await self.soon(scene.source.opinions(first)) == {}
            except SourceError as error:
                must_pass(error)

        self.play(act)

    def test_waiting_does_not_outlast_the_source(self) -> None:
        """A wait for a new head that finds nobody ends too."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            await scene.cut()
            try:
                found = await self.soon(scene.source.wait_head(head.latest, 0.3))
            except SourceError as error:
                must_pass(error)
            else:
                assert found.latest == head.latest, "nothing was heard of another head"

        self.play(act)

    def test_once_it_is_back_it_answers_as_before(self) -> None:
        """No state of the failure stays longer than a rest takes; nobody was accused of lying."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            truth = scene.truth()
            first = truth[0].position
            await scene.cut()
            for ask in _questions(scene, head, first):
                with pytest.raises(SourceError):
                    await self.soon(ask())
            await scene.restore()

            async def back() -> None:
                while True:
                    try:
                        await scene.source.head()
                        await scene.source.fetch(first, first + 2, head=head)
                    except SourceError as error:
                        must_pass(error)
                        continue
                    return

            await self.soon(back())
            assert await self.fetched(scene, first, truth[-1].position) == truth
            assert scene.source.take_liars() == frozenset()

        self.play(act)


def _questions(scene: SourceScene, head: Head, first: int) -> list[Callable[[], Awaitable[Any]]]:
    return [
        scene.source.head,
        lambda: scene.source.fetch(first, first + 5, head=head),
        lambda: scene.source.cursors([first, first + 1]),
    ]
