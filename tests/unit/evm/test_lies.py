"""Every lie is refused under its own name: real blocks, tampered with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from gapless.errors import Contradiction, InvariantViolation
from gapless.sources.evm import bloom, verify
from gapless.sources.evm.lies import LIES, lie
from gapless.sources.evm.types import Log, LogClause, Verify
from gapless.sources.evm.verify import ChainHashing
from unit.evm.answers import FIRST, LAST, OTHER_HASH, Answer

USDC = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"
replace = msgspec.structs.replace

Liar = Callable[[Answer], object]
TOLD: list[tuple[str, Liar]] = []


def tells(kind: str) -> Callable[[Liar], Liar]:
    """Marks a function that tampers with an answer and lets it be checked, which must end in this kind of lie."""

    def told(liar: Liar) -> Liar:
        TOLD.append((kind, liar))
        return liar

    return told


# --- headers and blocks --------------------------------------------------------------------------------------------


@tells("null_block")
def a_header_is_null(answer: Answer) -> None:
    answer.headers[1] = None
    answer.check_headers()


@tells("null_block")
def a_header_is_missing(answer: Answer) -> None:
    answer.headers.pop()
    answer.check_headers()


@tells("wrong_number")
def headers_come_in_another_order(answer: Answer) -> None:
    answer.headers.reverse()
    answer.check_headers()


@tells("unlinked")
def a_header_of_another_branch(answer: Answer) -> None:
    answer.headers[1].parent_hash = OTHER_HASH
    answer.check_headers()


@tells("unlinked")
def the_first_header_does_not_continue_ours(answer: Answer) -> None:
    answer.check_headers(parent_id=OTHER_HASH)


@tells("malformed")
def a_block_hash_of_31_bytes(answer: Answer) -> None:
    answer.headers[1].hash = answer.headers[1].hash[:-2]
    answer.check_headers()


@tells("malformed")
def a_short_bloom(answer: Answer) -> None:
    answer.headers[1].logs_bloom = "0x00"
    answer.check_headers()


@tells("malformed")
def a_number_without_0x(answer: Answer) -> None:
    answer.headers[0].number = str(FIRST)
    answer.check_headers()


@tells("block_hash")
def a_header_with_another_state(answer: Answer) -> None:
    answer.level = Verify.PROVED
    answer.headers[0].state_root = OTHER_HASH
    answer.check_headers()


@tells("block_hash")
def a_block_with_another_time(answer: Answer) -> None:
    answer.level = Verify.PROVED
    answer.block.timestamp = "0x1"
    answer.check_block()


@tells("transaction_mismatch")
def a_transaction_of_another_fork(answer: Answer) -> None:
    answer.block.transactions[3]["blockHash"] = OTHER_HASH
    answer.check_block()


@tells("transaction_mismatch")
def transactions_in_another_order(answer: Answer) -> None:
    transactions = answer.block.transactions
    transactions[3], transactions[4] = transactions[4], transactions[3]
    answer.check_block()


@tells("transaction_mismatch")
def a_transaction_twice(answer: Answer) -> None:
    answer.block.transactions[4] = {**answer.block.transactions[3], "transactionIndex": "0x4"}
    answer.check_block()


@tells("malformed")
def a_transaction_without_hash(answer: Answer) -> None:
    del answer.block.transactions[3]["hash"]
    answer.check_block()


@tells("malformed")
def a_transaction_without_fields(answer: Answer) -> None:
    answer.level = Verify.PROVED
    del answer.block.transactions[3]["gas"]
    answer.check_block()


@tells("transactions_root")
def no_transactions_at_all(answer: Answer) -> None:
    answer.block.transactions.clear()
    answer.check_block()


@tells("transaction_hash")
def a_transaction_of_more_value(answer: Answer) -> None:
    answer.level = Verify.PROVED
    answer.block.transactions[3]["value"] = "0x123456"
    answer.check_block()


@tells("unknown_transaction_type")
def a_transaction_whose_type_hides_it(answer: Answer) -> None:
    answer.level = Verify.PROVED
    answer.block.transactions[3]["type"] = "0x7a"
    answer.check_block()


@tells("transactions_root")
def the_last_transaction_left_out(answer: Answer) -> None:
    answer.level = Verify.PROVED
    answer.block.transactions.pop()
    answer.check_block()


@tells("withdrawals_root")
def a_larger_withdrawal(answer: Answer) -> None:
    answer.level = Verify.PROVED
    assert answer.block.withdrawals
    answer.block.withdrawals[0]["amount"] += "0"
    answer.check_block()


@tells("withdrawals_root")
def no_withdrawals(answer: Answer) -> None:
    answer.level = Verify.PROVED
    answer.block.withdrawals = []
    answer.check_block()


@tells("uncles_hash")
def an_invented_uncle(answer: Answer) -> None:
    answer.level = Verify.PROVED
    answer.block.uncles.append(OTHER_HASH)
    answer.check_block()


# --- receipts ------------------------------------------------------------------------------------------------------


@tells("null_receipt")
def a_receipt_is_null(answer: Answer) -> None:
    answer.receipts[1][5] = None
    answer.check_receipts()


@tells("receipt_count")
def the_last_receipt_left_out(answer: Answer) -> None:
    answer.receipts[1].pop()
    answer.check_receipts()


@tells("receipt_count")
def no_receipts(answer: Answer) -> None:
    answer.receipts[1].clear()
    answer.check_receipts()


def _with_receipt(answer: Answer, index: int = 5, **fields: Any) -> None:
    answer.replace_receipt(index, **fields)
    answer.check_receipts()


@tells("receipt_mismatch")
def a_receipt_of_another_fork(answer: Answer) -> None:
    _with_receipt(answer, block_hash=OTHER_HASH)


@tells("receipt_mismatch")
def a_receipt_of_another_block(answer: Answer) -> None:
    _with_receipt(answer, block_number=hex(FIRST))


@tells("receipt_mismatch")
def a_receipt_of_another_transaction(answer: Answer) -> None:
    _with_receipt(answer, transaction_hash=OTHER_HASH)


@tells("receipt_mismatch")
def a_receipt_of_another_index(answer: Answer) -> None:
    _with_receipt(answer, transaction_index="0x6")


@tells("receipt_mismatch")
def receipts_in_another_order(answer: Answer) -> None:
    answer.receipts[1].reverse()
    answer.check_receipts()


@tells("receipt_mismatch")
def gas_that_does_not_grow(answer: Answer) -> None:
    _with_receipt(answer, cumulative_gas_used=answer.receipts[1][4].cumulative_gas_used)


@tells("receipt_mismatch")
def gas_that_does_not_add_up(answer: Answer) -> None:
    _with_receipt(answer, gas_used="0x5209")


@tells("receipt_mismatch")
def a_receipt_whose_bloom_is_not_of_its_logs(answer: Answer) -> None:
    _with_receipt(answer, logs_bloom="0x" + "00" * 255 + "01")


@tells("receipt_mismatch")
def a_log_in_the_receipt_of_another_transaction(answer: Answer) -> None:
    index = next(i for i, receipt in enumerate(answer.receipts[1]) if receipt.logs)
    answer.receipts[1][index].logs[0].transaction_hash = OTHER_HASH
    answer.check_receipts()


@tells("receipt_mismatch")
def logs_of_a_receipt_in_another_order(answer: Answer) -> None:
    index = next(i for i, receipt in enumerate(answer.receipts[1]) if len(receipt.logs) > 1)
    answer.receipts[1][index].logs.reverse()
    answer.check_receipts()


@tells("malformed")
def a_receipt_whose_bloom_is_short(answer: Answer) -> None:
    _with_receipt(answer, logs_bloom="0x")


@tells("malformed")
def a_receipt_whose_gas_is_no_number(answer: Answer) -> None:
    _with_receipt(answer, gas_used="0x")


@tells("receipts_root")
def a_failed_transaction_made_to_succeed(answer: Answer) -> None:
    answer.level = Verify.PROVED
    status = answer.receipts[1][5].status
    _with_receipt(answer, status="0x0" if status == "0x1" else "0x1")


# --- logs ----------------------------------------------------------------------------------------------------------


@tells("out_of_range_log")
def a_log_of_the_next_block(answer: Answer) -> None:
    answer.logs.append(replace(answer.logs[-1], block_number=hex(LAST + 1)))
    answer.check_filtered()


@tells("foreign_log")
def a_log_of_another_fork(answer: Answer) -> None:
    answer.logs[7].block_hash = OTHER_HASH
    answer.check_filtered()


@tells("foreign_log")
def a_log_of_another_fork_among_all(answer: Answer) -> None:
    answer.all_logs[1][7].block_hash = OTHER_HASH
    answer.check_all()


@tells("removed_log")
def a_log_that_a_fork_removed(answer: Answer) -> None:
    answer.logs[7].removed = True
    answer.check_filtered()


@tells("duplicate_log")
def a_log_twice(answer: Answer) -> None:
    answer.logs.insert(7, answer.logs[7])
    answer.check_filtered()


@tells("duplicate_log")
def two_logs_of_one_index_among_all(answer: Answer) -> None:
    answer.all_logs[1][7].log_index = "0x8"
    answer.check_all()


@tells("transaction_mixed")
def a_log_of_a_transaction_at_another_index(answer: Answer) -> None:
    answer.logs[7].transaction_hash = answer.logs[-1].transaction_hash
    answer.check_filtered()


@tells("not_asked_for")
def a_log_with_another_topic(answer: Answer) -> None:
    answer.logs[7].topics = [OTHER_HASH]
    answer.check_filtered()


@tells("not_asked_for")
def a_log_without_topics(answer: Answer) -> None:
    answer.logs[7].topics = []
    answer.check_filtered()


@tells("not_asked_for")
def a_log_of_another_address(answer: Answer) -> None:
    answer.clauses = (LogClause(frozenset({USDC}), None),)
    answer.check_filtered()


@tells("not_in_bloom")
def an_invented_receiver(answer: Answer) -> None:
    answer.logs[7].topics[2] = OTHER_HASH
    answer.check_filtered()


@tells("not_in_bloom")
def an_invented_emitter(answer: Answer) -> None:
    answer.logs[7].address = "0x00000000000000000000000000000000deadbeef"
    answer.check_filtered()


@tells("empty_for_bloom")
def no_logs_at_all(answer: Answer) -> None:
    answer.all_logs[1].clear()
    answer.check_all()


@tells("empty_for_bloom")
def no_filtered_logs_where_the_receipts_hold_some(answer: Answer) -> None:
    answer.logs.clear()
    grouped, suspects = answer.check_filtered()
    assert grouped == [[], []]
    assert suspects == [FIRST, LAST]
    verify.check_emptiness(answer.block, answer.receipts[1], answer.clauses, answer.level)


@tells("bloom_mismatch")
def the_last_log_left_out(answer: Answer) -> None:
    answer.all_logs[1].pop()
    answer.check_all()


@tells("index_gap")
def a_log_left_out_of_the_middle(answer: Answer) -> None:
    del answer.all_logs[1][7]
    answer.check_all()


@tells("index_gap")
def a_log_left_out_of_a_receipt(answer: Answer) -> None:
    index, receipt = next((i, receipt) for i, receipt in enumerate(answer.receipts[1]) if len(receipt.logs) > 1)
    kept = receipt.logs[1:]
    _with_receipt(answer, index, logs=kept, logs_bloom=f"0x{bloom.of_logs(kept):0512x}")


def misshapen_logs() -> Iterator[tuple[str, Callable[[Log], None]]]:
    def setting(name: str, change: Callable[[str], str]) -> Callable[[Log], None]:
        return lambda log: setattr(log, name, change(getattr(log, name)))

    yield "data of half bytes", setting("data", lambda text: text[:-1])
    yield "data that is no hex", setting("data", lambda text: text[:-1] + "g")
    yield "data without 0x", setting("data", lambda text: text[2:])
    yield "data with a blank", setting("data", lambda text: text[:10] + " " + text[11:])
    yield "data in capitals", setting("data", lambda text: "0x" + "AB" * 32)
    yield "data that hides its 0x", setting("data", lambda text: text[2:10] + ",0x" + text[13:])
    yield "a transaction hash of 31 bytes", setting("transaction_hash", lambda text: text[:-2])
    yield "a log index that is no number", setting("log_index", lambda text: "0x-1")
    yield "a block number that is no number", setting("block_number", lambda text: text[2:])
    yield "a topic of 31 bytes", lambda log: log.topics.__setitem__(1, log.topics[1][:-2])
    yield "a topic in capitals", lambda log: log.topics.__setitem__(1, "0x" + "AB" * 32)
    yield "five topics", lambda log: log.topics.extend([log.topics[0]] * 4)


@pytest.mark.parametrize(("shape", "misshape"), [pytest.param(*item, id=item[0]) for item in misshapen_logs()])
def test_misshapen_logs_are_malformed(shape: str, misshape: Callable[[Log], None]) -> None:
    """A log whose values cannot be what they should be is refused, whether blooms are looked at or not."""
    for hashing in (verify.ETHEREUM, ChainHashing(bloom=False)):
        answer = Answer(hashing=hashing)
        misshape(answer.logs[7])
        with pytest.raises(Contradiction) as caught:
            answer.check_filtered()
        assert caught.value.kind == "malformed", shape


def test_a_misshapen_address_is_malformed() -> None:
    """Addresses of every kind of wrong, where any address was asked for."""
    for address in ("0x12", "0x" + "ab" * 32, "0x" + "AB" * 20, "ab" * 21, "0x" + "zz" * 20):
        for hashing in (verify.ETHEREUM, ChainHashing(bloom=False)):
            answer = Answer(hashing=hashing)
            answer.logs[7].address = address
            with pytest.raises(Contradiction) as caught:
                answer.check_filtered()
            assert caught.value.kind == "malformed"


# --- the lies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "liar"), TOLD, ids=[f"{kind}:{liar.__name__}" for kind, liar in TOLD])
def test_lies_are_refused_under_their_name(kind: str, liar: Liar) -> None:
    """Each way of lying is refused with its own stable word, and says in which block."""
    with pytest.raises(Contradiction) as caught:
        liar(Answer())
    assert caught.value.kind == kind
    assert caught.value.retryable
    if "without_0x" not in liar.__name__:
        assert caught.value.position in (FIRST, LAST, LAST + 1)


def test_every_kind_of_lie_has_a_liar() -> None:
    """No word without a test, and no test of a word that is not in the table."""
    by_comparing = {"audit_mismatch"}  # takes two endpoints: see test_source.py
    assert {kind for kind, _ in TOLD} == set(LIES) - by_comparing


def test_a_kind_that_is_not_in_the_table_cannot_be_raised() -> None:
    """Metric labels and docs stay complete."""
    with pytest.raises(InvariantViolation):
        lie("invented", "something")
