"""What a source is, and where it stands."""

from __future__ import annotations

from gapless.clock import SystemClock
from gapless.model import Cursor
from gapless.testing.source_contract.scene import SourceCase, SourceScene

SHORT_SECONDS = 0.3
_REAL = SystemClock()


class StandingContract(SourceCase):
    """What `identity`, `head` and `wait_head` promise."""

    def test_it_says_who_it_is_and_stays_it(self) -> None:
        """Kind, chain and genesis, the same each time it is asked."""

        async def act(scene: SourceScene) -> None:
            identity = await self.soon(scene.source.identity())
            assert identity.kind
            assert identity.chain
            assert identity.genesis
            assert scene.source.name
            first = scene.truth()[0]
            if first.position == 0:
                assert identity.genesis == first.id
            for _ in range(3):
                assert await self.soon(scene.source.identity()) == identity

        self.play(act)

    def test_the_head_is_the_newest_entry(self) -> None:
        """By position and id, with its own time; what is final lies at or below it, and -1 means nothing."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            newest = scene.truth()[-1]
            assert head.latest == newest.cursor
            assert -1 <= head.finalized <= head.latest.position
            segment = await self.soon(scene.source.fetch(newest.position, newest.position, head=head))
            assert segment.last.time_us == head.time_us

        self.play(act)

    def test_waiting_ends_at_once_for_another_head(self) -> None:
        """Whoever believes in an older head, or in another one at this height, is told without waiting."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            older = scene.truth()[-2].cursor
            for known in (older, Cursor(head.latest.position, "another")):
                began = _REAL.monotonic()
                found = await self.soon(scene.source.wait_head(known, self.patience_seconds * 0.9))
                assert found.latest == scene.truth()[-1].cursor
                assert _REAL.monotonic() - began < self.patience_seconds / 2, "it waited though the head is another"

        self.play(act)

    def test_waiting_ends_when_the_time_is_over(self) -> None:
        """Where nothing new comes, the head as it is."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            found = await self.soon(scene.source.wait_head(head.latest, SHORT_SECONDS))
            assert found.latest == scene.truth()[-1].cursor

        self.play(act)

    def test_it_proposes_a_span(self) -> None:
        """At least one position, before anything was fetched and after."""

        async def act(scene: SourceScene) -> None:
            assert scene.source.span() >= 1
            first = scene.truth()[0].position
            await self.fetched(scene, first, first + 5)
            assert scene.source.span() >= 1

        self.play(act)
