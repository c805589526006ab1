"""Which requests a range is read with, and how answers become parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.errors import Contradiction, SourceUnavailable
from gapless.model import Evidence
from gapless.sources.evm.fetch import Part
from gapless.sources.evm.filtered import merged
from gapless.sources.evm.reader import plan_requests, together
from gapless.sources.evm.types import Log, LogClause, Verify, Wants
from gapless.testing.behaviour import AnswerBehaviour
from gapless.testing.block import ScriptedTransaction, transfer
from gapless.testing.chain import ScriptedChain
from gapless.testing.faults import Html
from gapless.testing.methods import Limits
from gapless.testing.node import FakeNode
from servers.evm_source import ALL_LOGS, CLAUSE, HEADERS, TRANSFERS, WHOLE, evm_source, found, truth

HEIGHT = 300


@pytest.fixture(scope="module")
def template() -> ScriptedChain:
    chain = ScriptedChain(seed=3)
    chain.mine(100, logs=2)
    chain.mine(100)
    chain.mine(100, logs=30)
    return chain


@pytest.fixture
def chain(template: ScriptedChain) -> ScriptedChain:
    return template.copy()


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await main()

    return asyncio.run(bounded())


# --- filters --------------------------------------------------------------------------------------------------------

names = st.none() | st.frozensets(st.sampled_from("abcdef"), min_size=1)
clauses = st.lists(st.builds(LogClause, names, names), max_size=6)


def wants(clause: LogClause, address: str, topic: str | None) -> bool:
    return (clause.addresses is None or address in clause.addresses) and (
        clause.topics is None or topic in clause.topics
    )


@given(clauses, st.integers(1, 3))
def test_the_requests_ask_for_exactly_the_clauses(asked: list[LogClause], addresses_max: int) -> None:
    """Neither more nor less, however clauses are joined and addresses cut."""
    requests = plan_requests(asked, addresses_max)
    for address in "abcdefz":
        for topic in ("a", "f", "z", None):
            wanted = any(wants(c, address, topic) for c in asked)
            assert any(wants(r.clause, address, topic) for r in requests) == wanted
    assert all(len(r.fields.get("address", ())) <= addresses_max for r in requests)


def test_clauses_share_requests() -> None:
    """Ten contracts with the same events are one filter; one contract with ten events is one too."""
    same_topics = [LogClause(frozenset({f"a{n}"}), frozenset({"t"})) for n in range(10)]
    assert [r.fields for r in plan_requests(same_topics, 500)] == [
        {"address": [f"a{n}" for n in range(10)], "topics": [["t"]]}
    ]
    same_address = [LogClause(frozenset({"a"}), frozenset({f"t{n}"})) for n in range(3)]
    assert [r.fields for r in plan_requests(same_address, 500)] == [{"address": ["a"], "topics": [["t0", "t1", "t2"]]}]
    assert [r.fields for r in plan_requests([LogClause(None, None)], 500)] == [{}]
    assert len(plan_requests(same_topics, 4)) == 3
    assert plan_requests([LogClause(frozenset(), None), LogClause(None, frozenset())], 5) == ()


def log(block: int, index: int, data: str = "0x") -> Log:
    return Log("0xa", [], data, hex(block), "0xb", "0xc", "0x0", hex(index))


def test_answers_to_several_filters_are_merged_in_index_order() -> None:
    """Each log once, though two filters found it."""
    one = [[log(1, 0), log(1, 11)], []]
    two = [[log(1, 2), log(1, 11)], [log(2, 0)]]
    assert merged([one, two]) == [[log(1, 0), log(1, 2), log(1, 11)], [log(2, 0)]]
    with pytest.raises(Contradiction) as caught:
        merged([one, [[log(1, 11, "0x01")], []]])
    assert caught.value.kind == "duplicate_log"


def test_the_first_failure_cancels_the_other_requests() -> None:
    """Nothing goes on in the background after a fetch has failed."""
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("slow")

    async def fail() -> None:
        raise SourceUnavailable("down")

    async def main() -> None:
        with pytest.raises(SourceUnavailable):
            await together([slow(), fail()])
        assert ended == ["slow"]

    run(main)


# --- ways to fetch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", list(Verify))
@pytest.mark.parametrize("wanted", [TRANSFERS, ALL_LOGS, WHOLE], ids=["filter", "all logs", "whole"])
def test_every_way_finds_the_same(chain: ScriptedChain, wanted: Wants, level: Verify) -> None:
    """All levels and ways give the chain's own logs, links and times, with the evidence they have."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], wanted, verify=level) as source:
            segment = await source.fetch(0, HEIGHT, head=await source.head())
            assert found(segment) == truth(chain, 0, HEIGHT)
            blocks = chain.blocks(0, HEIGHT)
            assert [e.parent_id for e in segment.entries] == [b.parent_hash for b in blocks]
            assert [e.time_us for e in segment.entries] == [b.timestamp * 1_000_000 for b in blocks]
            expected = {Verify.CHECKED: Evidence.CHECKED, Verify.PROVED: Evidence.PROVED}
            assert {e.evidence for e in segment.entries} == {expected.get(level, Evidence.TRUSTED)}
            if wanted.whole_blocks:
                assert [len(t) for t in segment.payload.transactions] == [len(b.transactions) for b in blocks]
                assert [len(r) for r in segment.payload.receipts] == [len(b.transactions) for b in blocks]
            else:
                assert not segment.payload.transactions
                assert not segment.payload.receipts

    run(main)


def test_without_wants_only_headers_are_read(chain: ScriptedChain) -> None:
    """For apps that keep blocks only."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], HEADERS) as source:
            segment = await source.fetch(0, HEIGHT, head=await source.head())
            assert len(segment.entries) == HEIGHT + 1
            assert set(node.statistics().calls) == {"eth_chainId", "eth_getBlockByNumber"}

    run(main)


def test_blocks_without_transactions_cost_no_receipts(chain: ScriptedChain) -> None:
    """Whole-block mode and the strict way skip what their headers say is empty."""

    async def main() -> None:
        for wanted in (WHOLE, TRANSFERS):
            async with FakeNode(chain) as node, evm_source([node], wanted, strict_positions_max=300) as source:
                head = await source.head()
                node.reset_statistics()
                await source.fetch(101, 200, head=head)
                assert node.statistics().calls.get("eth_getBlockReceipts", 0) == 0

    run(main)


def test_a_filter_that_finds_nothing_asks_for_receipts_only_where_the_bloom_hits(chain: ScriptedChain) -> None:
    """A rare event: the bloom's false alarms are settled, the other blocks are believed."""
    rare = Wants((LogClause(frozenset({"0x" + "77" * 20}), frozenset({"0x" + "88" * 32})),))

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], rare) as source:
            head = await source.head()
            segment = await source.fetch(0, 236, head=head)
            assert not any(segment.payload.logs)
            assert node.statistics().calls.get("eth_getBlockReceipts", 0) < 20
            assert source.statistics().contradictions == {}

    run(main)


def test_only_matching_logs_are_kept_where_more_was_read(chain: ScriptedChain) -> None:
    """The strict way and `proved` read everything and keep what the filter wants."""
    other = "0x" + "77" * 20
    mixed = [
        transfer("0x" + "01" * 20, "0x" + "02" * 20, 5),
        transfer("0x" + "01" * 20, "0x" + "02" * 20, 5, token=other),
    ]
    chain.mine(3, transactions=[ScriptedTransaction(tuple(mixed))])

    async def main() -> None:
        for level in (Verify.CHECKED, Verify.PROVED):
            async with FakeNode(chain) as node, evm_source([node], TRANSFERS, verify=level) as source:
                segment = await source.fetch(HEIGHT + 1, HEIGHT + 3, head=await source.head())
                assert [{log.address for log in logs} for logs in segment.payload.logs] == [
                    set(CLAUSE.addresses or ())
                ] * 3
            async with FakeNode(chain) as node, evm_source([node], ALL_LOGS, verify=level) as source:
                segment = await source.fetch(HEIGHT + 1, HEIGHT + 3, head=await source.head())
                assert [len(logs) for logs in segment.payload.logs] == [2, 2, 2]

    run(main)


def test_unknown_transaction_types_pass_near_the_head(chain: ScriptedChain) -> None:
    """Nobody but their chain knows their encoding: the root of their receipts is not recomputed, so not refused."""
    chain.mine(2, transactions=[ScriptedTransaction((transfer("0x" + "01" * 20, "0x" + "02" * 20, 5),), type=0x64)])

    async def main() -> None:
        for wanted in (TRANSFERS, WHOLE):
            async with FakeNode(chain) as node, evm_source([node], wanted) as source:
                segment = await source.fetch(HEIGHT - 1, HEIGHT + 2, head=await source.head())
                assert found(segment) == truth(chain, HEIGHT - 1, HEIGHT + 2)
                assert [e.audited for e in segment.entries] == [True, True, False, False]

    run(main)


class ByNumberOnly(AnswerBehaviour):
    """A node that takes no hash in `eth_getBlockReceipts`."""

    def alter(self, call: Any, result: Any, scene: Any) -> Any:
        from gapless.testing.calls import RpcFault

        if call.method == "eth_getBlockReceipts" and len(call.params[0]) == 66:
            raise RpcFault(-32602, "invalid block number")
        return result


def test_receipts_are_asked_by_number_where_hashes_are_not_taken(chain: ScriptedChain) -> None:
    """Found out with the first question, remembered afterwards."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], WHOLE) as source:
            refusing = node.behave(ByNumberOnly())
            head = await source.head()
            assert found(await source.fetch(0, 50, head=head)) == truth(chain, 0, 50)
            assert found(await source.fetch(51, 99, head=head)) == truth(chain, 51, 99)
            assert refusing.used == 1

    run(main)


def test_pieces_of_a_range_are_linked(chain: ScriptedChain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the chain is replaced between two pieces, the range is read again: no segment joins two branches."""
    extend = Part.extend
    pieces = 0

    def extended(part: Part, other: Part) -> None:
        nonlocal pieces
        extend(part, other)
        pieces += 1
        if pieces == 1:
            chain.reorg(100)

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], span_start=8, strict_positions_max=0) as source:
            head = await source.head()
            monkeypatch.setattr(Part, "extend", extended)
            segment = await source.fetch(HEIGHT - 50, HEIGHT - 30, head=head)
            assert pieces > 2
            assert all(b.parent_id == a.id for a, b in pairwise(segment.entries))
            assert found(segment) == truth(chain, HEIGHT - 50, HEIGHT - 30)

    run(main)


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_ranges_grow_on_a_fast_node_and_shrink_where_it_is_dense(chain: ScriptedChain) -> None:
    """By what came: bytes and logs per range are held near their targets."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], answer_bytes_target=200_000) as source:
            head = await source.head()
            await source.fetch(101, 200, head=head)
            await source.fetch(101, 200, head=head)
            sparse = source.span()
            await source.fetch(201, HEIGHT, head=head)
            dense = source.span()
            assert dense < sparse

    run(main)


def test_an_answer_that_is_too_large_is_asked_for_in_parts(chain: ScriptedChain) -> None:
    """The bound on one answer holds, and the range still comes whole."""

    async def main() -> None:
        limits = Limits(answer_bytes_max=30_000)
        async with FakeNode(chain, limits=limits) as node, evm_source([node], ALL_LOGS) as source:
            assert found(await source.fetch(0, 236, head=await source.head())) == truth(chain, 0, 236)

    run(main)


def test_a_broken_answer_makes_the_next_attempt_smaller(chain: ScriptedChain) -> None:
    """A proxy that fails on large answers is got the better of by attempts."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node]) as source:
            head = await source.head()
            before = source._pool.endpoints[0].ranges.size
            node.behave(Html(200), times=2, methods=["eth_getLogs"])
            await source.fetch(0, 200, head=head)
            first_ranges = [last - first + 1 for first, last in node.statistics().ranges[:3]]
            assert first_ranges == [before, before // 2, before // 4]

    run(main)
