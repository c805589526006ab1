"""Ids by position, opinions by endpoint, and what is known of endpoints."""

from __future__ import annotations

from gapless.testing.source_contract.scene import SourceCase, SourceScene


class CursorContract(SourceCase):
    """What `cursors`, `opinions`, `doubt`, `take_liars` and `statistics` promise."""

    def test_ids_come_in_the_order_asked_for(self) -> None:
        """Any positions, also one twice; None beyond the head."""

        async def act(scene: SourceScene) -> None:
            await self.soon(scene.source.head())
            truth = scene.truth()
            chosen = [truth[-1], truth[3], truth[-1], truth[0], truth[7]]
            top = truth[-1].position
            asked = [top + 100, *(known.position for known in chosen), top + 101]
            expected = [None, *(known.cursor for known in chosen), None]
            assert await self.soon(scene.source.cursors(asked)) == expected
            assert await self.soon(scene.source.cursors([])) == []

        self.play(act)

    def test_opinions_are_those_of_the_endpoints(self) -> None:
        """At least one, under the labels that entries are served by; None beyond the head."""

        async def act(scene: SourceScene) -> None:
            head = await self.soon(scene.source.head())
            truth = scene.truth()
            segment = await self.soon(scene.source.fetch(truth[0].position, truth[2].position, head=head))
            opinions = await self.soon(scene.source.opinions(truth[5].position))
            assert opinions
            assert set(opinions.values()) == {truth[5].cursor}
            assert {e.served_by for e in segment.entries} <= opinions.keys()
            beyond = await self.soon(scene.source.opinions(truth[-1].position + 100))
            assert set(beyond.values()) <= {None}

        self.play(act)

    def test_doubt_delays_nobody_for_ever(self) -> None:
        """Labels that nobody has do nothing; where every endpoint is doubted, they are asked all the same."""

        async def act(scene: SourceScene) -> None:
            await self.soon(scene.source.head())
            truth = scene.truth()
            opinions = await self.soon(scene.source.opinions(truth[5].position))
            scene.source.doubt(frozenset({"nobody"}))
            scene.source.doubt(frozenset(opinions))
            first, last = truth[4].position, truth[9].position
            assert await self.fetched(scene, first, last) == scene.truth()[4:10]

        self.play(act)

    def test_who_is_honest_is_not_accused(self) -> None:
        """Reading everything catches no liar, and counts no contradiction."""

        async def act(scene: SourceScene) -> None:
            await self.soon(scene.source.head())
            truth = scene.truth()
            await self.fetched(scene, truth[0].position, truth[-1].position)
            assert scene.source.take_liars() == frozenset()
            statistics = scene.source.statistics()
            assert not statistics.contradictions
            assert all(endpoint.lies == 0 for endpoint in statistics.endpoints)

        self.play(act)

    def test_counters_only_grow_and_labels_are_public(self) -> None:
        """What metrics read never goes back, and holds no credentials."""

        async def act(scene: SourceScene) -> None:
            before = scene.source.statistics()
            truth = scene.truth()
            await self.fetched(scene, truth[0].position, truth[10].position)
            after = scene.source.statistics()
            for name in ("requests", "bytes_received", "retries", "audits"):
                assert getattr(after, name) >= getattr(before, name), name
            assert all("@" not in endpoint.label for endpoint in after.endpoints)

        self.play(act)
