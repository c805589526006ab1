"""What is true is accepted, at every level and of every chain; and what cannot be seen is known."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest

from gapless.errors import Contradiction
from gapless.model import Evidence
from gapless.sources.evm import bloom, prove, verify
from gapless.sources.evm.types import LogClause, Receipt, Verify
from gapless.sources.evm.verify import ChainHashing
from unit.evm.answers import LAST, OTHER_HASH, Answer
from unit.evm.real_blocks import TRANSFER, TRANSFERS, RealBlock, all_carried, blocks_in, carried, shared

ALL_LEVELS = tuple(Verify)
replace = msgspec.structs.replace


@pytest.mark.parametrize("level", ALL_LEVELS)
def test_the_truth_is_accepted(level: Verify) -> None:
    """The same answers, untampered, at every level and through every check."""
    answer = Answer(level=level)
    before, block = answer.headers[0].parent_hash, answer.block
    assert answer.check_headers(parent_id=before) == answer.headers
    answer.check_block()
    assert answer.check_receipts() == answer.all_logs[1]
    assert answer.check_all() == answer.all_logs[1]
    grouped, suspects = answer.check_filtered()
    assert [log for group in grouped for log in group] == answer.logs
    assert suspects == []
    hashes = [transaction["hash"] for transaction in block.transactions]
    assert verify.check_receipts(block, hashes, answer.receipts[1], level) == answer.all_logs[1]
    assert verify.check_receipts(block, None, answer.receipts[1], level) == answer.all_logs[1]


@pytest.mark.parametrize("level", [Verify.CHECKED, Verify.PROVED])
@pytest.mark.parametrize("real", all_carried(), ids=lambda real: real.origin)
def test_carried_blocks_are_accepted(real: RealBlock, level: Verify) -> None:
    """Every header generation and transaction type, Base and Arbitrum among them, without a switch."""
    real.accept(level)


@pytest.mark.parametrize(
    "folder",
    [
        "mainnet-run-17686110",
        "mainnet-run-22431080",
        "mainnet-fork-boundaries",
        "mainnet-forks",
        "mainnet-2026-blocks",
        "chain-blocks",
        "era1",
        "rpc-fixtures/ethereum",
        "rpc-fixtures/polygon",
        "rpc-fixtures/arbitrum",
    ],
)
def test_real_blocks_are_proved(folder: str) -> None:
    """All of the collection that follows Ethereum passes the strictest level."""
    for real in blocks_in(f"evm/{folder}"):
        real.accept(Verify.PROVED)


def test_long_runs_are_linked() -> None:
    """8,192 consecutive headers, proved in one call, and refused with one of them gone."""
    headers = [real.full for real in blocks_in("evm/era1") if real.origin.startswith("mainnet")]
    assert len(verify.check_headers(headers, 0, 8191, "0x" + "00" * 32, Verify.PROVED)) == 8192
    headers[4000] = headers[4001]
    with pytest.raises(Contradiction, match="4000"):
        verify.check_headers(headers, 0, 8191)


# --- other chains --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "kind", "hashing"),
    [
        ("cronos/10000", "block_hash", ChainHashing(headers=False, transactions=False, receipts=False)),
        ("cronos/6542", "block_hash", ChainHashing(headers=False, transactions=False, receipts=False)),
        ("tempo-mainnet", "block_hash", ChainHashing(headers=False)),
        ("tempoModerato", "block_hash", ChainHashing(headers=False)),
    ],
)
def test_chains_that_hash_otherwise_have_a_switch(folder: str, kind: str, hashing: ChainHashing) -> None:
    """Refused at `proved` as they are, accepted with the switch, and then never called proved."""
    for real in blocks_in(f"evm/rpc-fixtures/{folder}"):
        real.accept(Verify.CHECKED)
        with pytest.raises(Contradiction) as caught:
            real.accept(Verify.PROVED)
        assert caught.value.kind == kind
        real.accept(Verify.PROVED, hashing)
        assert verify.evidence(Verify.PROVED, hashing, whole=True) is Evidence.CHECKED


@pytest.mark.parametrize("height", [6541, 68216])
def test_blocks_with_too_few_receipts_are_refused(height: int) -> None:
    """Real blocks of Cronos list transactions that have no receipt: refused from `off` on."""
    shared("evm/rpc-fixtures")
    (real,) = blocks_in(f"evm/rpc-fixtures/cronos/{height}")
    for level in ALL_LEVELS:
        with pytest.raises(Contradiction) as caught:
            verify.check_receipts(real.full, real.full.transactions, real.typed_receipts, level)
        assert caught.value.kind == "receipt_count"


def test_without_blooms_no_bloom_is_looked_at() -> None:
    """A chain that leaves its blooms zero passes with the switch, and has no suspects."""
    answer = Answer(hashing=ChainHashing(bloom=False))
    answer.headers = [replace(header, logs_bloom="0x" + "00" * 256) for header in answer.headers]
    answer.receipts[1] = [replace(receipt, logs_bloom="0x" + "00" * 256) for receipt in answer.receipts[1]]
    assert answer.check_headers()
    assert answer.check_receipts() == answer.check_all() == answer.all_logs[1]
    assert answer.check_filtered()[1] == []
    answer.logs.clear()
    assert answer.check_filtered()[1] == []
    answer.hashing = verify.ETHEREUM
    with pytest.raises(Contradiction):
        answer.check_receipts()


def test_receipts_whose_gas_starts_anew_have_a_switch() -> None:
    """Polygon lists state-sync receipts with no gas behind the others; the root does not hold them either."""
    answer = Answer()
    answer.replace_receipt(len(answer.receipts[1]) - 1, cumulative_gas_used="0x0", gas_used="0x0")
    with pytest.raises(Contradiction):
        answer.check_receipts()
    for level in (Verify.CHECKED, Verify.PROVED):
        answer.level, answer.hashing = level, ChainHashing(receipts=False)
        assert answer.check_receipts() == answer.all_logs[1]


def test_evidence_says_no_more_than_was_seen() -> None:
    """`proved` only for whole blocks of a chain with every switch on; `trusted` where nothing would show a lie."""
    verdict = verify.evidence
    assert verdict(Verify.OFF, whole=True) is verdict(Verify.LINKED, whole=True) is Evidence.TRUSTED
    assert verdict(Verify.CHECKED, whole=True) is verdict(Verify.CHECKED, whole=False) is Evidence.CHECKED
    assert verdict(Verify.PROVED, whole=True) is Evidence.PROVED
    assert verdict(Verify.PROVED, whole=False) is Evidence.CHECKED
    for name in ("headers", "transactions", "receipts", "withdrawals", "bloom"):
        assert verdict(Verify.PROVED, ChainHashing(**{name: False}), whole=True) is Evidence.CHECKED
    assert verdict(Verify.CHECKED, ChainHashing(bloom=False), whole=False) is Evidence.TRUSTED


# --- logs, in order and by clause ----------------------------------------------------------------------------------


def test_logs_may_come_in_any_order() -> None:
    """Order is repaired by index: nodes may answer unordered, blocks mixed."""
    answer = Answer()
    expected = answer.check_filtered()
    random.Random(7).shuffle(answer.logs)
    assert answer.check_filtered() == expected
    shuffled = list(answer.all_logs[1])
    random.Random(7).shuffle(shuffled)
    assert verify.check_all_logs(answer.block, shuffled) == answer.all_logs[1]


def test_indices_and_numbers_may_be_padded() -> None:
    """`0x07` is 7: not a lie, and not another log."""
    answer = Answer()
    expected = [[log.log_index for log in group] for group in answer.check_filtered()[0]]
    for log in answer.logs[:5]:
        log.log_index = "0x00" + log.log_index[2:]
        log.block_number = "0x0" + log.block_number[2:]
    grouped = [[hex(int(log.log_index, 16)) for log in group] for group in answer.check_filtered()[0]]
    assert grouped == expected


def test_a_false_alarm_of_the_bloom_is_settled_by_receipts() -> None:
    """A suspect whose receipts hold no matching log is no lie; a block whose bloom denies the clause is no suspect."""
    answer = Answer()
    whole = int(answer.block.logs_bloom, 16)
    invented = [f"0x{number:040x}" for number in range(1000)]
    falsely_admitted = next(address for address in invented if bloom.contains(whole, bloom.bits(address)))
    denied = next(address for address in invented if not bloom.contains(whole, bloom.bits(address)))
    for address, expected in ((falsely_admitted, [LAST]), (denied, [])):
        clauses = (LogClause(frozenset({address}), frozenset({TRANSFER})),)
        assert verify.check_filtered_logs([answer.block], [], clauses) == ([[]], expected)
        for level in (Verify.CHECKED, Verify.PROVED):
            verify.check_emptiness(answer.block, answer.receipts[1], clauses, level)


def test_matching_keeps_what_a_clause_wants() -> None:
    """Address and first topic of one clause, any of several clauses, anonymous logs only where any topic will do."""
    logs = Answer().all_logs[0]
    anonymous = replace(logs[0], topics=[])
    emitters = {log.address for log in logs if log.topics[:1] == [TRANSFER]}
    one = min(emitters)
    wanted: Sequence[LogClause] = (LogClause(frozenset({one}), frozenset({TRANSFER, OTHER_HASH})),)
    assert verify.matching(logs, wanted) == [x for x in logs if x.address == one and x.topics[:1] == [TRANSFER]]
    assert verify.matching(logs, (LogClause(None, None),)) == logs
    assert verify.matching(logs, ()) == []
    both = (LogClause(frozenset({one}), frozenset({OTHER_HASH})), *TRANSFERS)
    assert verify.matching(logs, both) == verify.matching(logs, TRANSFERS)
    assert verify.matching([anonymous], (LogClause(frozenset({anonymous.address}), None),)) == [anonymous]
    assert verify.matching([anonymous], TRANSFERS) == []


# --- what cannot be seen -------------------------------------------------------------------------------------------


def covered(receipts: list[Receipt]) -> tuple[int, int]:
    """Receipt and place of a log all of whose bits are set by others of its block too."""
    logs = [log for receipt in receipts for log in receipt.logs]
    whole = bloom.of_logs(logs)
    return next(
        (index, place)
        for index, receipt in enumerate(receipts)
        for place, left_out in enumerate(receipt.logs)
        if bloom.of_logs([log for log in logs if log is not left_out]) == whole
    )


def test_only_the_root_shows_a_covered_log_left_out() -> None:
    """The limit of `checked` that its docs state: with the indices mended and its bits set by others, a left-out log
    passes as all logs of the block and in its receipt; at `proved` it does not."""
    answer = Answer()
    index, place = covered(answer.receipts[1])
    receipt = answer.receipts[1][index]
    left_out = receipt.logs.pop(place)
    receipt.logs_bloom = f"0x{bloom.of_logs(receipt.logs):0512x}"
    remaining = [log for other in answer.receipts[1] for log in other.logs]
    for number, log in enumerate(remaining):
        log.log_index = hex(number)
    assert left_out not in verify.check_all_logs(answer.block, remaining)
    assert answer.check_receipts() == remaining
    answer.level = Verify.PROVED
    with pytest.raises(Contradiction) as caught:
        answer.check_receipts()
    assert caught.value.kind == "receipts_root"


def test_a_root_that_no_block_hash_holds_proves_nothing() -> None:
    """Receipts proved against a header whose own hash was not recomputed still have their blooms compared: a node that
    exchanges receipts and root together is seen where the bloom is the honest one."""
    answer = Answer(level=Verify.PROVED)
    receipt = next(receipt for receipt in answer.receipts[1] if receipt.logs)
    receipt.logs[-1].address = "0x00000000000000000000000000000000deadbeef"
    answer.block.receipts_root = prove.receipts_root(answer.receipts[1])
    with pytest.raises(Contradiction) as caught:
        answer.check_receipts()
    assert caught.value.kind == "receipt_mismatch"
    receipt.logs_bloom = f"0x{bloom.of_logs(receipt.logs):0512x}"
    answer.block.receipts_root = prove.receipts_root(answer.receipts[1])
    with pytest.raises(Contradiction) as caught:
        answer.check_receipts()
    assert caught.value.kind == "not_in_bloom"


def test_some_logs_left_out_of_a_filtered_answer_are_not_seen() -> None:
    """The other limit: audits and `proved` are there for it."""
    answer = Answer()
    del answer.logs[7]
    grouped, suspects = answer.check_filtered()
    assert sum(map(len, grouped)) == len(answer.logs)
    assert suspects == []


def test_levels_below_checked_look_at_what_they_say() -> None:
    """`off` takes a log of another fork, `linked` does not; both refuse what no table can hold."""
    answer = Answer(level=Verify.OFF)
    answer.logs[7].block_hash = OTHER_HASH
    answer.check_filtered()
    answer.level = Verify.LINKED
    with pytest.raises(Contradiction):
        answer.check_filtered()
    for level in (Verify.OFF, Verify.LINKED):
        answer = Answer(level=level)
        answer.logs.append(answer.logs[0])
        with pytest.raises(Contradiction):
            answer.check_filtered()
    answer = Answer(level=Verify.OFF)
    answer.headers[1].parent_hash = OTHER_HASH
    answer.check_headers()
    answer = Answer(level=Verify.LINKED)
    answer.block.transactions.clear()
    answer.check_block()


def test_an_old_receipt_has_its_root_compared() -> None:
    """Before EIP-658 the outcome of a transaction is a state root, and hashed as such."""
    real = carried("mainnet-468179")
    assert real.receipts
    real.receipts[0]["root"] = OTHER_HASH
    real.accept(Verify.CHECKED)
    with pytest.raises(Contradiction) as caught:
        real.accept(Verify.PROVED)
    assert caught.value.kind == "receipts_root"
