"""The source against nodes that lie, fail, lag and forget."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gapless.clock import SystemClock
from gapless.errors import (
    ConfigError,
    Contradiction,
    HistoryPruned,
    InvariantViolation,
    SourceUnavailable,
)
from gapless.model import Evidence
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.source import EvmSource
from gapless.sources.evm.types import LogClause, Verify, Wants
from gapless.testing.behaviour import Behaviour
from gapless.testing.block_lies import (
    ForeignBlock,
    ForeignReceipts,
    NullBlock,
    NullReceipt,
    NullReceipts,
    ReceiptsMiscounted,
    TamperedHeader,
    TamperedReceipt,
    TamperedTransaction,
    Unlinked,
    WrongNumber,
)
from gapless.testing.chain import ScriptedChain
from gapless.testing.faults import (
    BatchIncomplete,
    BatchReversed,
    CloseConnection,
    CutBody,
    Html,
    InvalidJson,
    Late,
    Refusal,
    ServerError,
    Stall,
    TooManyRequests,
    WrongId,
)
from gapless.testing.log_lies import (
    Carrier,
    DuplicateLog,
    EmptyLogs,
    ForeignLogs,
    InventedLog,
    NotAskedFor,
    OmitLog,
    OutOfRangeLog,
    TamperedLog,
)
from gapless.testing.methods import Limits
from gapless.testing.node import FakeNode
from servers.evm_source import ALL_LOGS, CLAUSE, HEADERS, TRANSFERS, WHOLE, evm_source, found, labels, settled, truth
from unit.evm.source_scene import DEEP, HEIGHT, NEAR, run

RECEIPTS: frozenset[Carrier] = frozenset({"receipts"})
RANGE: frozenset[Carrier] = frozenset({"range"})
NULLS = {"null_block", "null_receipt"}


# --- lies -----------------------------------------------------------------------------------------------------------

BY_FILTER: list[tuple[Behaviour, Wants, str, set[str]]] = [
    (EmptyLogs(), TRANSFERS, "checked", {"empty_for_bloom"}),
    (ForeignLogs(), TRANSFERS, "linked", {"foreign_log"}),
    (ForeignLogs(), TRANSFERS, "checked", {"foreign_log"}),
    (ForeignLogs(disguised=True), TRANSFERS, "checked", {"not_in_bloom"}),
    (DuplicateLog(), TRANSFERS, "checked", {"duplicate_log"}),
    (DuplicateLog(), TRANSFERS, "off", {"duplicate_log"}),
    (InventedLog(), TRANSFERS, "checked", {"not_in_bloom"}),
    (NotAskedFor("address"), TRANSFERS, "checked", {"not_asked_for"}),
    (NotAskedFor("topic"), TRANSFERS, "checked", {"not_asked_for"}),
    (OutOfRangeLog(), TRANSFERS, "checked", {"out_of_range_log"}),
    (TamperedLog("removed", True), TRANSFERS, "checked", {"removed_log"}),
    (TamperedLog("transactionHash"), TRANSFERS, "checked", {"transaction_mixed"}),
    (TamperedLog("blockNumber", "0x1"), TRANSFERS, "checked", {"foreign_log", "out_of_range_log"}),
    (TamperedLog("data", "0xZZ"), TRANSFERS, "checked", {"malformed"}),
    (NullBlock(), TRANSFERS, "checked", {"null_block"}),
    (WrongNumber(), TRANSFERS, "off", {"wrong_number"}),
    (ForeignBlock(), TRANSFERS, "linked", {"unlinked"}),
    (Unlinked(), TRANSFERS, "checked", {"unlinked"}),
    (TamperedHeader("logsBloom", "0x" + "00" * 256), TRANSFERS, "checked", {"not_in_bloom"}),
    (TamperedHeader("hash", "0xAB"), TRANSFERS, "checked", {"malformed"}),
    (TamperedHeader("gasUsed"), HEADERS, "proved", {"block_hash"}),
]
UNFILTERED: list[tuple[Behaviour, Wants, str, set[str]]] = [
    (OmitLog(), ALL_LOGS, "checked", {"bloom_mismatch", "index_gap"}),
    (EmptyLogs(), ALL_LOGS, "checked", {"empty_for_bloom"}),
    (DuplicateLog(), ALL_LOGS, "linked", {"duplicate_log"}),
    (OmitLog(), WHOLE, "checked", {"receipt_mismatch", "bloom_mismatch", "index_gap"}),
    (NullReceipts(), WHOLE, "off", {"null_receipt"}),
    (ForeignReceipts(), WHOLE, "checked", {"receipt_mismatch"}),
    (ForeignReceipts(disguised=True), WHOLE, "checked", {"receipt_mismatch", "bloom_mismatch", "not_in_bloom"}),
    (ReceiptsMiscounted(-1), WHOLE, "linked", {"receipt_count"}),
    (ReceiptsMiscounted(1), WHOLE, "checked", {"receipt_count"}),
    (TamperedReceipt("gasUsed"), WHOLE, "checked", {"receipt_mismatch"}),
    (TamperedTransaction("hash"), WHOLE, "checked", {"receipt_mismatch"}),
    (TamperedTransaction("blockHash"), WHOLE, "checked", {"transaction_mismatch"}),
]
PROVED: list[tuple[Behaviour, Wants, str, set[str]]] = [
    (TamperedHeader("gasUsed"), TRANSFERS, "proved", {"block_hash"}),
    (TamperedTransaction("value"), TRANSFERS, "proved", {"transaction_hash"}),
    (TamperedReceipt("status", "0x0"), TRANSFERS, "proved", {"receipts_root"}),
    (TamperedLog("data", where=RECEIPTS), TRANSFERS, "proved", {"receipts_root"}),
    (OmitLog("covered", where=RECEIPTS, mend_bloom=True), TRANSFERS, "proved", {"receipts_root", "index_gap"}),
    (NullReceipts(), TRANSFERS, "proved", {"null_receipt"}),
]
STRICT: list[tuple[Behaviour, Wants, str, set[str]]] = [
    (OmitLog(), TRANSFERS, "checked", {"receipt_mismatch", "index_gap", "receipts_root"}),
    (OmitLog("covered", mend_bloom=True), TRANSFERS, "checked", {"receipts_root", "receipt_mismatch"}),
    (TamperedLog("data"), TRANSFERS, "checked", {"receipts_root"}),
    (TamperedLog("data"), ALL_LOGS, "checked", {"receipts_root"}),
    (TamperedReceipt("status", "0x0"), WHOLE, "checked", {"receipts_root"}),
    (ReceiptsMiscounted(-1), TRANSFERS, "checked", {"receipt_count"}),
    (ForeignReceipts(disguised=True), TRANSFERS, "checked", {"receipt_mismatch", "receipts_root"}),
    (NullReceipts(), TRANSFERS, "checked", {"null_receipt"}),
    (NullBlock(), TRANSFERS, "checked", {"null_block"}),
    (Unlinked(), TRANSFERS, "checked", {"unlinked"}),
]
LIES = [(*case, DEEP) for case in BY_FILTER + UNFILTERED + PROVED] + [(*case, NEAR) for case in STRICT]
lies = pytest.mark.parametrize(
    ("lie", "wants", "level", "kinds", "place"), LIES, ids=[f"{c[0]!r}-{c[2]}-{c[4][0]}" for c in LIES]
)


@lies
def test_a_lie_is_refused_and_the_truth_got_elsewhere(
    chain: ScriptedChain, lie: Behaviour, wants: Wants, level: str, kinds: set[str], place: tuple[int, int]
) -> None:
    """The answer that contradicts is counted and refused, the liar named once, and the range comes from the other."""

    async def main() -> None:
        async with FakeNode(chain) as liar, FakeNode(chain) as honest:
            liar.behave(lie, first=place[0], last=place[1])
            async with evm_source([liar, honest], wants, verify=Verify(level)) as source:
                head = await settled(source)
                segment = await source.fetch(21, HEIGHT, head=head)
                if wants is not HEADERS:
                    assert found(segment) == truth(chain, 21, HEIGHT)
                assert {e.served_by for e in segment.entries} == set(labels(honest))
                said = source.statistics()
                assert set(said.contradictions) <= kinds
                assert said.contradictions
                named = set() if kinds <= NULLS else set(labels(liar))
                assert source.take_liars() == named
                assert source.take_liars() == frozenset()
                assert [report.lies for report in said.endpoints] == [len(named), 0]
                assert said.endpoints[0].last_error

    run(main)


@lies
def test_a_single_endpoint_that_lies_at_first_is_asked_again(
    chain: ScriptedChain, lie: Behaviour, wants: Wants, level: str, kinds: set[str], place: tuple[int, int]
) -> None:
    """With nobody else to ask, the same endpoint is asked after a pause, and its truth is taken."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            node.behave(lie, first=place[0], last=place[1], times=2)
            async with evm_source([node], wants, verify=Verify(level), request_attempts_max=40) as source:
                segment = await source.fetch(21, HEIGHT, head=await settled(source))
                if wants is not HEADERS:
                    assert found(segment) == truth(chain, 21, HEIGHT)
                assert set(source.statistics().contradictions) <= kinds
                assert source.statistics().contradictions

    run(main)


@lies
def test_a_single_endpoint_that_always_lies_is_refused_in_the_end(
    chain: ScriptedChain, lie: Behaviour, wants: Wants, level: str, kinds: set[str], place: tuple[int, int]
) -> None:
    """After a bounded number of attempts the error says what was wrong with the answers."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            node.behave(lie, first=place[0], last=place[1])
            async with evm_source([node], wants, verify=Verify(level), request_attempts_max=3) as source:
                head = await settled(source)
                deep_null = kinds <= NULLS and place is DEEP
                with pytest.raises(HistoryPruned if deep_null else Contradiction) as caught:
                    await source.fetch(21, HEIGHT, head=head)
                assert caught.value.source == "chain"
                if isinstance(caught.value, Contradiction):
                    assert caught.value.kind in kinds
                assert sum(source.statistics().contradictions.values()) == 3

    run(main)


@pytest.mark.parametrize("omit", [OmitLog(where=RANGE), TamperedLog("data", where=RANGE)])
def test_what_only_a_second_endpoint_can_show_is_caught_by_an_audit(chain: ScriptedChain, omit: Behaviour) -> None:
    """A matching log left out of a filtered answer passes every check alone; compared, the receipts tell who lied."""

    async def main() -> None:
        async with FakeNode(chain) as liar, FakeNode(chain) as honest:
            liar.behave(omit, first=40, last=60)
            async with evm_source([liar], audit_share=1.0) as alone:
                head = await alone.head()
                assert found(await alone.fetch(20, 100, head=head)) != truth(chain, 20, 100)
                assert alone.statistics().audits == 0
            async with evm_source([liar, honest], audit_share=1.0) as source:
                segment = await source.fetch(20, 100, head=await settled(source))
                assert found(segment) == truth(chain, 20, 100)
                assert source.take_liars() == frozenset(labels(liar))
                assert source.statistics().contradictions == {"audit_mismatch": 1}
                assert source.statistics().audits == 1
                assert {e.served_by for e in segment.entries} == set(labels(honest))

    run(main)


def test_an_audit_that_catches_the_other_endpoint_keeps_the_answer(chain: ScriptedChain) -> None:
    """The liar may be the one that was asked second; the range is then audited by what was decided."""

    async def main() -> None:
        async with FakeNode(chain) as honest, FakeNode(chain) as liar:
            liar.behave(OmitLog(where=RANGE), first=40, last=60)
            async with evm_source([honest, liar], audit_share=1.0) as source:
                segment = await source.fetch(20, 100, head=await settled(source))
                assert found(segment) == truth(chain, 20, 100)
                assert source.take_liars() == frozenset(labels(liar))
                assert {e.served_by for e in segment.entries} == set(labels(honest))
                assert all(e.audited for e in segment.entries)

    run(main)


def test_audits_take_their_share_of_ranges(chain: ScriptedChain) -> None:
    """A tenth of the ranges is fetched twice, and only their entries are marked as audited."""

    async def main() -> None:
        async with FakeNode(chain) as one, FakeNode(chain) as two, evm_source([one, two], audit_share=0.1) as source:
            head = await settled(source)
            segments = [await source.fetch(n, n + 1, head=head) for n in range(0, 300, 2)]
            audited = [all(e.audited for e in s.entries) for s in segments]
            assert 5 <= sum(audited) == source.statistics().audits <= 30
            assert source.take_liars() == frozenset()

    run(main)


def test_entries_near_the_head_are_audited_by_their_receipts_root(chain: ScriptedChain) -> None:
    """There every log is fetched and its root recomputed; below, the filtered answer stands as it is."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node]) as source:
            segment = await source.fetch(300, HEIGHT, head=await settled(source))
            assert [e.audited for e in segment.entries] == [n > HEIGHT - 64 for n in range(300, HEIGHT + 1)]
            assert {e.evidence for e in segment.entries} == {Evidence.CHECKED}

    run(main)


def test_a_receipt_root_is_not_recomputed_where_the_chain_hashes_otherwise(chain: ScriptedChain) -> None:
    """With the switch off, strictness near the head stops at blooms and indices."""

    async def main() -> None:
        async with FakeNode(chain) as node:
            node.behave(TamperedHeader("receiptsRoot"), first=390, last=400)
            hashing = replace(EvmOptions().hashing, receipts=False)
            async with evm_source([node], hashing=hashing) as source:
                segment = await source.fetch(380, HEIGHT, head=await settled(source))
                assert found(segment) == truth(chain, 380, HEIGHT)
                assert not any(e.audited for e in segment.entries)
            async with evm_source([node]) as source:
                with pytest.raises(Contradiction):
                    await source.fetch(380, HEIGHT, head=await settled(source))

    run(main)


def test_a_range_from_an_endpoint_caught_meanwhile_is_not_returned(chain: ScriptedChain) -> None:
    """Two ranges are under way when one catches the liar: the other is fetched again elsewhere."""

    async def main() -> None:
        async with FakeNode(chain) as liar, FakeNode(chain) as honest:
            liar.behave(EmptyLogs(), first=40, last=60)
            async with evm_source([liar, honest]) as source:
                head = await settled(source)
                liar.behave(Late(0.3), first=100, last=120)
                segments = await asyncio.gather(
                    source.fetch(20, 99, head=head),
                    source.fetch(100, 120, head=head),
                    source.fetch(121, 150, head=head),
                )
                assert {e.served_by for e in segments[1].entries} == set(labels(honest))
                assert source.take_liars() == frozenset(labels(liar))

    run(main)


@pytest.mark.parametrize("wants", [TRANSFERS, ALL_LOGS, WHOLE, HEADERS], ids=["filter", "all logs", "whole", "headers"])
@pytest.mark.parametrize("position", [50, 385], ids=["deep", "near"])
def test_a_single_block_that_links_to_nothing_is_refused(chain: ScriptedChain, wants: Wants, position: int) -> None:
    """The parent's header is read too: whoever gave a block that does not link to it is the one to blame."""

    async def main() -> None:
        async with FakeNode(chain) as liar, FakeNode(chain) as honest:
            liar.behave(Unlinked(), first=position, last=position)
            async with evm_source([liar, honest], wants) as source:
                segment = await source.fetch(position, position, head=await settled(source))
                assert segment.first.parent_id == chain.blocks(position - 1, position - 1)[0].hash
                assert source.take_liars() == frozenset(labels(liar))

    run(main)


def test_a_difference_that_nothing_decides_is_not_committed(chain: ScriptedChain) -> None:
    """On a chain whose receipts cannot be proved, two endpoints that differ in logs and receipts leave no answer."""

    async def main() -> None:
        hashing = replace(EvmOptions().hashing, receipts=False, bloom=False)
        async with FakeNode(chain) as one, FakeNode(chain) as two:
            one.behave(TamperedLog("data"), first=40, last=60)
            async with evm_source([one, two], audit_share=1.0, hashing=hashing) as source:
                with pytest.raises(Contradiction) as caught:
                    await source.fetch(21, 100, head=await settled(source))
                assert caught.value.kind == "audit_mismatch"
                assert source.take_liars() == frozenset()
                assert found(await source.fetch(61, 100, head=await settled(source))) == truth(chain, 61, 100)

    run(main)


def test_a_head_that_nobody_has_is_not_waited_for(chain: ScriptedChain) -> None:
    """An endpoint that names a head far above and cannot serve it is not counted for a while."""

    async def main() -> None:
        beyond = chain.copy()
        beyond.mine(500)
        async with FakeNode(beyond) as boaster, FakeNode(chain) as honest:
            boaster.behave(NullBlock(), first=HEIGHT + 1, last=HEIGHT + 499)
            async with evm_source([boaster, honest], request_attempts_max=3) as source:
                head = await settled(source)
                await source.fetch(380, HEIGHT, head=head, avoid=frozenset(labels(honest)))
                assert (await source.head()).latest.position == HEIGHT + 500
                with pytest.raises(SourceUnavailable):
                    await source.fetch(HEIGHT - 5, HEIGHT + 20, head=await source.head())
                source._pool.endpoints[0].standing.quick.mean = 1000.0
                assert (await source.head()).latest.position == HEIGHT

    run(main)


# --- failures of delivery -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Html(502), "http"),
        (Html(200), "bad_answer"),
        (ServerError(500), "http"),
        (CutBody(), "bad_answer"),
        (CutBody(honest_length=True), "bad_answer"),
        (InvalidJson(), "bad_answer"),
        (CloseConnection(), "http"),
        (Stall(), "timeout"),
        (TooManyRequests(retry_after=30), "rate_limited"),
        (Refusal(-32000, "header not found"), "refused"),
        (WrongId(), "bad_answer"),
        (BatchIncomplete(), "bad_answer"),
    ],
    ids=lambda value: repr(value) if not isinstance(value, str) else "",
)
def test_an_endpoint_that_fails_is_passed_over(chain: ScriptedChain, fault: Behaviour, kind: str) -> None:
    """The other one serves the range; the failure is counted by kind; nobody is called a liar."""

    async def main() -> None:
        async with (
            FakeNode(chain) as failing,
            FakeNode(chain) as good,
            evm_source([failing, good], request_timeout_seconds=0.3) as source,
        ):
            head = await settled(source)
            failing.behave(fault, methods=["eth_getLogs", "eth_getBlockByNumber", "eth_getBlockReceipts"])
            segment = await source.fetch(21, HEIGHT, head=head)
            assert found(segment) == truth(chain, 21, HEIGHT)
            assert kind in source.statistics().errors
            assert source.take_liars() == frozenset()

    run(main)


@pytest.mark.parametrize(
    "fault",
    [
        Html(502),
        CutBody(),
        InvalidJson(),
        CloseConnection(),
        TooManyRequests(retry_after=0.1),
        TooManyRequests(),
        Refusal(-32005, "limit exceeded"),
        Refusal(-32000, "range too large"),
        BatchIncomplete(missing=3),
        Stall(),
    ],
    ids=repr,
)
def test_a_single_endpoint_that_fails_for_a_while_is_enough(chain: ScriptedChain, fault: Behaviour) -> None:
    """Bounded retries, smaller requests and pauses get the whole range from it."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node], request_timeout_seconds=0.2) as source:
            head = await settled(source)
            node.behave(fault, times=3, methods=["eth_getLogs", "eth_getBlockByNumber"])
            assert found(await source.fetch(21, HEIGHT, head=head)) == truth(chain, 21, HEIGHT)

    run(main)


def test_an_unreachable_source_says_so_in_time(chain: ScriptedChain) -> None:
    """The retry budget ends in an error that names every endpoint and what to do."""

    async def main() -> None:
        async with (
            FakeNode(chain) as one,
            FakeNode(chain) as two,
            evm_source([one, two], deadline_seconds=3.0) as source,
        ):
            head = await settled(source)
            one.behave(CloseConnection())
            two.behave(Html(502))
            with pytest.raises(SourceUnavailable) as caught:
                await source.fetch(20, 40, head=head)
            assert all(label in str(caught.value) for label in labels(one, two))
            assert "chain" in str(caught.value)
            assert caught.value.todo

    run(main)


def test_answers_in_any_order_are_put_in_order(chain: ScriptedChain) -> None:
    """JSON-RPC batches may be answered in any order."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node]) as source:
            node.behave(BatchReversed())
            assert found(await source.fetch(21, HEIGHT, head=await settled(source))) == truth(chain, 21, HEIGHT)

    run(main)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(range_blocks_max=7, batch_max=3),
        Limits(results_max=10),
        Limits(batch_max=1),
        Limits(answer_bytes_max=9_000),
        Limits(request_bytes_max=600),
        Limits(missing_methods=frozenset({"eth_getBlockReceipts"})),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wants", [TRANSFERS, ALL_LOGS, WHOLE], ids=["filter", "all logs", "whole"])
def test_tiny_limits_are_learned(chain: ScriptedChain, limits: Limits, wants: Wants) -> None:
    """Whatever an endpoint refuses, the range comes whole, and later ranges run into fewer refusals."""

    async def main() -> None:
        async with FakeNode(chain, limits=limits) as node, evm_source([node], wants) as source:
            head = await settled(source)
            assert found(await source.fetch(0, 200, head=head)) == truth(chain, 0, 200)
            before = source.statistics()
            assert found(await source.fetch(201, HEIGHT, head=head)) == truth(chain, 201, HEIGHT)
            after = source.statistics()
            assert sum(after.errors.values()) - sum(before.errors.values()) <= 0.2 * (after.requests - before.requests)

    run(main)


def test_an_endpoint_that_wants_no_requests_does_not_hold_the_other_up(chain: ScriptedChain) -> None:
    """Its 429 for everything costs a moment, not its pauses."""

    async def main() -> None:
        async with FakeNode(chain) as limited, FakeNode(chain) as free, evm_source([limited, free]) as source:
            head = await settled(source)
            limited.behave(TooManyRequests())
            began = asyncio.get_running_loop().time()
            await asyncio.gather(*(source.fetch(n, n + 9, head=head) for n in range(0, 400, 10)))
            assert asyncio.get_running_loop().time() - began < 5.0
            assert source.statistics().errors["rate_limited"] <= 20

    run(main)


def test_what_a_limit_exceeded_means_is_learned(chain: ScriptedChain) -> None:
    """The same code means rate to some endpoints and size to others: one pause tells, and is not repeated."""

    async def main() -> None:
        async with FakeNode(chain, limits=Limits(results_max=100)) as node, evm_source([node]) as source:
            head = await settled(source)
            began = asyncio.get_running_loop().time()
            assert found(await source.fetch(0, 300, head=head)) == truth(chain, 0, 300)
            assert asyncio.get_running_loop().time() - began < 1.5
            assert source._pool.endpoints[0].standing.rate is None

    run(main)


def test_suspects_are_settled_without_receipts_by_block(chain: ScriptedChain) -> None:
    """Where a node lacks the method, all logs of the suspect block decide."""

    async def main() -> None:
        limits = Limits(missing_methods=frozenset({"eth_getBlockReceipts"}))
        async with FakeNode(chain, limits=limits) as liar, FakeNode(chain) as honest:
            liar.behave(EmptyLogs(where=RANGE), first=40, last=60)
            async with evm_source([liar, honest]) as source:
                assert found(await source.fetch(20, 100, head=await settled(source))) == truth(chain, 20, 100)
                assert source.statistics().contradictions == {"empty_for_bloom": 1}

    run(main)


@pytest.mark.parametrize("wants", [TRANSFERS, ALL_LOGS], ids=["filter", "all logs"])
def test_near_the_head_left_out_logs_are_seen_without_receipts_by_block(chain: ScriptedChain, wants: Wants) -> None:
    """Unfiltered logs by block hash: exact bloom and indices. What these cannot prove is not called audited."""

    async def main() -> None:
        limits = Limits(missing_methods=frozenset({"eth_getBlockReceipts"}))
        async with FakeNode(chain, limits=limits) as liar, FakeNode(chain, limits=limits) as honest:
            liar.behave(OmitLog(), first=380, last=390)
            async with evm_source([liar, honest], wants) as source:
                segment = await source.fetch(370, HEIGHT, head=await settled(source))
                assert found(segment) == truth(chain, 370, HEIGHT)
                assert set(source.statistics().contradictions) <= {"index_gap", "bloom_mismatch"}
                assert source.take_liars() == frozenset(labels(liar))
                assert not any(e.audited for e in segment.entries)

    run(main)


@pytest.mark.parametrize("lie", [NullReceipt(), TamperedReceipt("gasUsed")], ids=repr)
def test_receipts_one_by_one_are_checked_too(chain: ScriptedChain, lie: Behaviour) -> None:
    """For nodes without receipts by block, in whole-block mode."""

    async def main() -> None:
        limits = Limits(missing_methods=frozenset({"eth_getBlockReceipts"}))
        async with FakeNode(chain, limits=limits) as liar, FakeNode(chain, limits=limits) as honest:
            liar.behave(lie, first=380, last=390)
            async with evm_source([liar, honest], WHOLE) as source:
                assert found(await source.fetch(370, HEIGHT, head=await settled(source))) == truth(chain, 370, HEIGHT)
                assert set(source.statistics().contradictions) <= {"null_receipt", "receipt_mismatch"}

    run(main)


# --- the rest -------------------------------------------------------------------------------------------------------


def test_statistics_count_what_happened(chain: ScriptedChain) -> None:
    """Requests, bytes, and a sheet for each endpoint under its label."""

    async def main() -> None:
        async with FakeNode(chain) as one, FakeNode(chain) as two, evm_source([one, two]) as source:
            segment = await source.fetch(20, 100, head=await settled(source))
            said = source.statistics()
            assert said.requests == sum(e.requests for e in said.endpoints)
            assert said.requests == one.statistics().requests + two.statistics().requests
            assert said.bytes_received >= segment.size_bytes > 1000
            assert [e.label for e in said.endpoints] == labels(one, two)
            assert all(e.healthy for e in said.endpoints)

    run(main)


def test_a_source_needs_an_endpoint() -> None:
    """Push channels alone fetch nothing."""
    with pytest.raises(ConfigError):
        EvmSource("chain", EvmOptions(), TRANSFERS, SystemClock(), [])


def test_a_range_goes_upwards(chain: ScriptedChain) -> None:
    """Anything else is a mistake of the caller."""

    async def main() -> None:
        async with FakeNode(chain) as node, evm_source([node]) as source:
            with pytest.raises(InvariantViolation):
                await source.fetch(5, 4, head=await settled(source))

    run(main)


def test_several_clauses_make_one_answer(chain: ScriptedChain) -> None:
    """Logs that two filters find appear once, in index order."""

    async def main() -> None:
        wants = Wants((CLAUSE, LogClause(None, CLAUSE.topics), LogClause(CLAUSE.addresses, None)))
        async with FakeNode(chain) as node, evm_source([node], wants) as source:
            assert found(await source.fetch(20, 100, head=await settled(source))) == truth(chain, 20, 100)

    run(main)
