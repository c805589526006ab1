"""The source where blocks are not there, or move while it looks."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from gapless.errors import (
    HistoryPruned,
    NotYetAvailable,
    SourceUnavailable,
    WrongChain,
)
from gapless.model import Head
from gapless.sources.evm.fetch import Part
from gapless.sources.evm.reader import Reader
from gapless.sources.evm.types import Wants
from gapless.testing.behaviour import Behaviour
from gapless.testing.block_lies import (
    GoesBackwards,
    OtherChainId,
    OtherGenesis,
    StaleReplica,
)
from gapless.testing.chain import ScriptedChain
from gapless.testing.faults import (
    Late,
    Refusal,
)
from gapless.testing.methods import Limits
from gapless.testing.node import FakeNode
from servers.evm_source import ALL_LOGS, TRANSFERS, WHOLE, evm_source, found, labels, settled, truth
from unit.evm.source_scene import HEIGHT, run

# --- what is not there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wants", [TRANSFERS, ALL_LOGS, WHOLE], ids=["filter", "all logs", "whole"])
@pytest.mark.parametrize("silent", [False, True], ids=["error 4444", "null"])
def test_pruned_history_is_named(chain: ScriptedChain, wants: Wants, silent: bool) -> None:
    """A node without the old blocks' contents: an error an operator can act on, unless another node has them."""

    async def main() -> None:
        limits = Limits(pruned_below=100, pruned_is_null=silent)
        async with FakeNode(chain, limits=limits) as pruned, FakeNode(chain) as archive:
            async with evm_source([pruned], wants) as source:
                head = await settled(source)
                with pytest.raises(HistoryPruned) as caught:
                    await source.fetch(80, 120, head=head)
                assert caught.value.todo
                assert found(await source.fetch(110, 120, head=head)) == truth(chain, 110, 120)
            async with evm_source([pruned, archive], wants) as source:
                assert found(await source.fetch(80, 120, head=await settled(source))) == truth(chain, 80, 120)
                assert source.take_liars() <= frozenset(labels(pruned) if silent and wants is ALL_LOGS else [])

    run(main)


def test_old_blocks_refused_for_no_reason_are_called_pruned_only_where_new_ones_are_given(chain: ScriptedChain) -> None:
    """Providers word it in a hundred ways: that the newest block comes without ado is what tells."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node]) as source:
            head = await source.head()
            node.behave(Refusal(-32000, "missing trie node"), first=0, last=100, methods=["eth_getLogs"])
            with pytest.raises(HistoryPruned, match="missing trie node"):
                await source.fetch(80, 120, head=head)
            node.behave(Refusal(-32000, "come back later"), methods=["eth_getLogs", "eth_getBlockReceipts"])
            with pytest.raises(SourceUnavailable):
                await source.fetch(80, 120, head=head)

    run(main)


def test_a_position_beyond_the_head_is_not_yet_available(chain: ScriptedChain) -> None:
    """Retried a little, then told; nobody is blamed."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], request_attempts_max=2) as source:
            head = await settled(source)
            with pytest.raises(NotYetAvailable):
                await source.fetch(HEIGHT - 5, HEIGHT + 5, head=head)
            assert source.statistics().contradictions == {}

    run(main)


@pytest.mark.parametrize("wants", [TRANSFERS, ALL_LOGS, WHOLE], ids=["filter", "all logs", "whole"])
def test_a_lagging_replica_is_passed_over(chain: ScriptedChain, wants: Wants) -> None:
    """It has not got the newest blocks; it is asked for the old ones."""

    async def main() -> None:
        async with FakeNode(chain) as lagging, FakeNode(chain) as current:
            lagging.behave(StaleReplica(50))
            async with evm_source([lagging, current], wants) as source:
                head = await settled(source)
                assert head.latest.position in (HEIGHT - 50, HEIGHT)
                top = Head(type(head.latest)(HEIGHT, chain.head.hash), HEIGHT - 64, head.time_us)
                segment = await source.fetch(300, HEIGHT, head=top)
                assert found(segment) == truth(chain, 300, HEIGHT)
                assert source.take_liars() == frozenset()
                assert source.statistics().contradictions == {}

    run(main)


def test_a_lagging_partner_is_not_called_a_liar_by_an_audit(chain: ScriptedChain) -> None:
    """It does not have the blocks: there is nothing to compare."""

    async def main() -> None:
        async with FakeNode(chain) as current, FakeNode(chain) as lagging:
            lagging.behave(Late(0.01))
            async with evm_source([current, lagging], audit_share=1.0) as source:
                head = await settled(source)
                await source.fetch(0, 10, head=head)
                lagging.behave(StaleReplica(200))
                segment = await source.fetch(150, 300, head=head)
                assert not any(e.audited for e in segment.entries)
                assert source.take_liars() == frozenset()

    run(main)


def test_endpoints_to_avoid_are_not_asked(chain: ScriptedChain) -> None:
    """Not for the range, and not to compare."""

    async def main() -> None:
        async with FakeNode(chain) as one, FakeNode(chain) as two, evm_source([one, two], audit_share=1.0) as source:
            head = await settled(source)
            for node in (one, two):
                node.reset_statistics()
            segment = await source.fetch(20, 100, head=head, avoid=frozenset(labels(one)))
            assert {e.served_by for e in segment.entries} == set(labels(two))
            assert "eth_getLogs" not in one.statistics().calls
            with pytest.raises(SourceUnavailable, match="no endpoint may be asked"):
                await source.fetch(20, 100, head=head, avoid=frozenset(labels(one, two)))

    run(main)


# --- a chain that moves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wants", [TRANSFERS, ALL_LOGS, WHOLE], ids=["filter", "all logs", "whole"])
def test_a_reorg_between_two_requests_is_no_lie(chain: ScriptedChain, wants: Wants) -> None:
    """The range is read again as a whole and fits together; the endpoint stays trusted."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], wants, request_attempts_max=20) as source:
            head = await settled(source)
            for _ in range(10):
                fetching = asyncio.create_task(source.fetch(HEIGHT - 40, HEIGHT - 5, head=head))
                await asyncio.sleep(0.002)
                chain.reorg(30, 30)
                segment = await fetching
                entries = segment.entries
                assert all(b.parent_id == a.id for a, b in pairwise(entries))
                for entry, logs in zip(entries, segment.payload.logs, strict=True):
                    assert {log.block_hash for log in logs} <= {entry.id}
            assert source.take_liars() == frozenset()
            assert found(await source.fetch(HEIGHT - 40, HEIGHT, head=head)) == truth(chain, HEIGHT - 40, HEIGHT)

    run(main)


def test_cursors_follow_the_present_chain(chain: ScriptedChain) -> None:
    """For finding the common ancestor: the ids the chain has now, None beyond its head."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node]) as source:
            positions = [HEIGHT - 40, HEIGHT - 10, HEIGHT, HEIGHT + 1]
            before = await source.cursors(positions)
            chain.reorg(20)
            after = await source.cursors(positions)
            assert after[0] == before[0]
            assert after[1] != before[1]
            assert [c and c.id for c in after[:3]] == [b.hash for b in (chain.block(p) for p in positions[:3]) if b]
            assert after[3] is None

    run(main)


def test_a_node_that_went_backwards_is_reported_when_it_stays_there(chain: ScriptedChain) -> None:
    """First the head stands, then it is the lower one."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], poll_seconds=0.01, regression_polls=5) as source:
            head = await source.head()
            node.behave(GoesBackwards(300))
            assert (await source.head()).latest == head.latest
            lower = await source.wait_head(head.latest, 5.0)
            assert lower.latest.position == 300

    run(main)


@pytest.mark.parametrize("other", [OtherChainId(), OtherGenesis()], ids=repr)
def test_another_chain_at_the_address_stops_everything(chain: ScriptedChain, other: Behaviour) -> None:
    """At the start and while running, by chain id and by genesis."""

    async def main() -> None:
        async with FakeNode(chain) as one, FakeNode(chain) as two:
            async with evm_source([one, two], identity_check_seconds=0.0) as source:
                head = await settled(source)
                await source.fetch(20, 30, head=head)
                one.behave(other)
                two.behave(other)
                with pytest.raises(WrongChain) as caught:
                    await source.fetch(31, 40, head=head)
                assert caught.value.source == "chain"
            one.calm()
            async with evm_source([one, two]) as source:
                with pytest.raises(WrongChain):
                    await source.identity()

    run(main)


def test_another_node_in_the_middle_of_a_fetch_is_refused(
    chain: ScriptedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a connection was made anew while a range was read, nothing of it is used before it is known who answers."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node]) as source:
            head = await settled(source)
            fetch = source._fetcher.fetch

            async def fetched(reader: Reader, first: int, last: int, head: Head) -> Part:
                part = await fetch(reader, first, last, head)
                node.behave(OtherGenesis())
                reader.endpoint.identity_checked_at = None  # as a new connection does
                return part

            monkeypatch.setattr(source._fetcher, "fetch", fetched)
            with pytest.raises(WrongChain):
                await source.fetch(20, 30, head=head)

    run(main)
