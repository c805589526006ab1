"""Blooms: exact, and never denying what is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.sources.evm import bloom
from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.types import LogClause
from unit.evm.real_blocks import TRANSFER, all_carried, blocks_in, carried

ABSENT_ADDRESS = "0x00000000000000000000000000000000deadbeef"
ABSENT_TOPIC = "0x" + "ab" * 32


@given(st.binary(max_size=40))
def test_masks_are_those_of_the_yellow_paper(value: bytes) -> None:
    """M3:2048, written out: bit B of a 256-byte string counted from its end, for three byte pairs of the hash."""
    digest, expected = keccak256(value), bytearray(256)
    for pair in (0, 2, 4):
        place = int.from_bytes(digest[pair : pair + 2], "big") % 2048
        expected[255 - place // 8] |= 1 << place % 8
    assert bloom.bits(value).to_bytes(256, "big") == bytes(expected)


@given(st.binary(max_size=40))
def test_text_and_bytes_give_one_mask_of_at_most_three_bits(value: bytes) -> None:
    """The same value as bytes and as text is the same value."""
    mask = bloom.bits(value)
    assert mask == bloom.bits("0x" + value.hex())
    assert 1 <= mask.bit_count() <= 3
    assert mask < 1 << 2048


@pytest.mark.parametrize("text", ["", "abcd", "0xabc", "0xzz", "0xAB", "0x1 "])
def test_other_text_is_refused(text: str) -> None:
    """A value is lower-case 0x text of whole bytes."""
    with pytest.raises(ValueError, match=r".+"):
        bloom.bits(text)


def test_blooms_of_real_blocks_are_exact() -> None:
    """The bloom of a receipt is that of its logs, the bloom of a block that of all of them."""
    for real in all_carried():
        if real.receipts is None:
            continue
        assert bloom.of_logs(real.logs) == int(real.block["logsBloom"], 16), real.origin
        for receipt in real.typed_receipts:
            assert bloom.of_logs(receipt.logs) == int(receipt.logs_bloom, 16)


def test_blooms_of_the_mainnet_run_are_exact() -> None:
    """The same over fifteen consecutive mainnet blocks."""
    for real in blocks_in("evm/mainnet-run-17686110"):
        assert bloom.of_logs(real.logs) == int(real.block["logsBloom"], 16), real.number


def test_a_bloom_admits_what_is_there() -> None:
    """Every address and topic of a block's logs is contained, and a clause that a log matches is admitted."""
    real = carried("mainnet-22431084")
    whole = int(real.block["logsBloom"], 16)
    for log in real.logs:
        assert all(bloom.contains(whole, bloom.bits(value)) for value in (log.address, *log.topics))
        for addresses in (None, frozenset({log.address})):
            for topics in (None, frozenset(log.topics[:1])) if log.topics else (None,):
                assert bloom.admits(whole, LogClause(addresses, topics))


def test_a_clause_is_admitted_only_when_all_of_it_can_be_there() -> None:
    """Address and topic must both be possible; nothing is, in a block without logs."""
    real = carried("mainnet-15537393")
    whole, (log,) = int(real.block["logsBloom"], 16), real.logs
    here, elsewhere = frozenset({log.address}), frozenset({ABSENT_ADDRESS})
    topic, other = frozenset({log.topics[0]}), frozenset({ABSENT_TOPIC})
    assert bloom.admits(whole, LogClause(here, topic))
    assert bloom.admits(whole, LogClause(here | elsewhere, topic | other))
    assert not bloom.admits(whole, LogClause(elsewhere, topic))
    assert not bloom.admits(whole, LogClause(here, other))
    assert not bloom.admits(whole, LogClause(frozenset(), None))
    assert not bloom.admits(0, LogClause(None, None))


def test_the_cache_of_masks_is_bounded() -> None:
    """Addresses and topics without end do not grow the process."""
    for number in range(bloom.MASKS_CACHED_MAX + 50):
        bloom.bits(number.to_bytes(20, "big"))
    assert bloom.bits.cache_info().currsize == bloom.MASKS_CACHED_MAX
    assert bloom.bits(TRANSFER) == bloom.bits(bytes.fromhex(TRANSFER[2:]))
