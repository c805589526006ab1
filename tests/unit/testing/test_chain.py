"""The scripted chain is a real chain: hashes, links, forks; and its oracle counts right."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from gapless.errors import Contradiction, UsageError
from gapless.sources.evm import bloom, prove
from gapless.sources.evm.types import FullBlock, Header, Receipt
from gapless.testing.block import (
    NOBODY,
    TOKEN,
    ScriptedBlock,
    ScriptedLog,
    ScriptedTransaction,
    holder,
    transfer,
    word,
)
from gapless.testing.chain import ScriptedChain
from gapless.testing.fold import fold


def served(block: ScriptedBlock) -> tuple[FullBlock, list[Receipt]]:
    """A block and its receipts as a client decodes them from the JSON."""
    return (
        msgspec.json.decode(block.json(full=True), type=FullBlock),
        msgspec.json.decode(block.receipts_json(), type=list[Receipt]),
    )


def prove_block(block: ScriptedBlock) -> None:
    """Everything the header commits to, recomputed from the JSON."""
    full, receipts = served(block)
    logs = [log for receipt in receipts for log in receipt.logs]
    assert prove.header_hash(full) == full.hash == block.hash
    assert prove.transactions_root(full.transactions) == full.transactions_root
    assert prove.receipts_root(receipts) == full.receipts_root
    assert prove.withdrawals_root(full.withdrawals or []) == full.withdrawals_root
    assert bloom.of_logs(logs) == int(full.logs_bloom, 16)
    assert [int(log.log_index, 16) for log in logs] == list(range(len(logs)))
    assert all(log.block_hash == block.hash and log.block_number == full.number for log in logs)
    for transaction, receipt in zip(full.transactions, receipts, strict=True):
        assert transaction["hash"] == prove.transaction_hash(transaction) == receipt.transaction_hash


def test_every_block_proves() -> None:
    """Header, transactions, receipts and bloom are what the hashes say, and each block links to its parent."""
    chain = ScriptedChain(seed=7)
    chain.mine(5)
    chain.mine(20, logs=60)
    chain.mine(2, logs=1)

    for block in chain.blocks():
        prove_block(block)
    for parent, child in itertools.pairwise(chain.blocks()):
        assert child.parent_hash == parent.hash
        assert child.number == parent.number + 1
        assert child.timestamp == parent.timestamp + 12


def test_a_tampered_block_does_not_prove() -> None:
    """The proof above would notice one changed digit."""
    chain = ScriptedChain()
    chain.mine(logs=3)
    full, receipts = served(chain.head)
    receipts[0].logs[1].data = word(1)

    assert prove.receipts_root(receipts) != full.receipts_root
    full.gas_used = "0x1"
    assert prove.header_hash(full) != full.hash


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 0x7E])
def test_every_known_transaction_type_proves(kind: int) -> None:
    """Types 0 to 4 and deposits have the hashes their standards give them."""
    chain = ScriptedChain()
    chain.mine(transactions=[ScriptedTransaction((transfer(holder(1), holder(2), 5),), type=kind)])

    prove_block(chain.head)
    assert chain.head.transactions[0]["type"] == hex(kind)


def test_unknown_transaction_types_pass_but_cannot_be_proved() -> None:
    """A chain's own type has a hash nobody else can compute; receipts and header still prove."""
    chain = ScriptedChain()
    chain.mine(transactions=[ScriptedTransaction((transfer(holder(1), holder(2), 5),), type=0x71)])
    full, receipts = served(chain.head)

    assert prove.header_hash(full) == full.hash
    assert prove.receipts_root(receipts) == full.receipts_root
    with pytest.raises(Contradiction, match="0x71"):
        prove.transactions_root(full.transactions)


def test_scripted_transactions() -> None:
    """Failed transactions keep no logs, creations name a contract, custom logs come as written."""
    odd = ScriptedLog(TOKEN, (), "0x0102")
    chain = ScriptedChain()
    chain.mine(
        transactions=[
            ScriptedTransaction((odd,)),
            ScriptedTransaction((odd, odd), status=0),
            ScriptedTransaction(to=None),
            ScriptedTransaction((transfer(holder(1), holder(2), 1),)),
        ]
    )
    _, receipts = served(chain.head)

    assert [receipt.status for receipt in receipts] == ["0x1", "0x0", "0x1", "0x1"]
    assert [len(receipt.logs) for receipt in receipts] == [1, 0, 0, 1]
    assert receipts[0].logs[0].topics == []
    assert receipts[0].logs[0].data == "0x0102"
    assert receipts[2].contract_address is not None
    assert receipts[3].logs[0].log_index == "0x1"
    prove_block(chain.head)


def test_the_seed_makes_the_chain() -> None:
    """The same calls give the same hashes on any machine; another seed or chain id gives others."""

    def head(seed: int, chain_id: int = 1) -> str:
        chain = ScriptedChain(seed, chain_id=chain_id)
        chain.mine(3, logs=4)
        chain.reorg(2)
        return chain.head.hash

    assert head(1) == head(1)
    assert len({head(1), head(2), head(1, chain_id=2)}) == 3
    assert head(1) == "0xf1bf475e8efd9364b34c60dbcc8fad14dfa6f087878c93f2b71b8d434d2cf4d0", (
        "pinned: a changed hash means that recorded seeds mean other chains now"
    )


def test_a_reorg_replaces_blocks() -> None:
    """New hashes and transfers above the ancestor, the same number of logs; the old block stays known by its hash."""
    chain = ScriptedChain()
    chain.mine(10, logs=5)
    before = chain.blocks()
    new = chain.reorg(3, 4)
    after = chain.blocks()

    assert chain.height == 11
    assert before[:8] == after[:8]
    assert after[8:] == new
    assert new[0].parent_hash == before[7].hash
    assert all(old.hash != block.hash for old, block in zip(before[8:], after[8:], strict=False))
    assert [len(block.logs) for block in new] == [5, 5, 5, 0]
    assert chain.by_hash(before[9].hash) is before[9]
    assert chain.stale(9) == [before[9]]
    assert chain.transaction(before[9].transactions[0]["hash"]) is None
    for block in new:
        prove_block(block)


def test_a_reorg_may_keep_transactions() -> None:
    """As in reality most of the time: the same transactions, with the same hashes, in another block and place."""
    chain = ScriptedChain(logs_per_transaction=2)
    [old] = chain.mine(logs=6)
    [new] = chain.reorg(1, keep_transactions=True)

    assert [t["hash"] for t in new.transactions] == [t["hash"] for t in reversed(old.transactions)]
    assert new.hash != old.hash
    found = chain.transaction(old.transactions[0]["hash"])
    assert found == (new, 2)
    prove_block(new)


def test_stale_blocks_can_vanish() -> None:
    """A chain that keeps no stale blocks does not know the old hash."""
    chain = ScriptedChain(keep_stale=False)
    [old] = chain.mine()
    chain.reorg(1)

    assert chain.by_hash(old.hash) is None


def test_a_rollback_brings_the_same_blocks_back() -> None:
    """The head goes backwards; what is mined again is what was there, and nothing counts as stale."""
    chain = ScriptedChain()
    chain.mine(5, logs=2)
    top = chain.head
    chain.rollback(3)
    assert chain.height == 2
    assert chain.by_hash(top.hash) is None
    assert chain.stale(5) == []
    chain.mine(3, logs=2)

    assert chain.head == top
    with pytest.raises(UsageError, match="cannot lose 6"):
        chain.rollback(6)


def test_a_copy_goes_its_own_way() -> None:
    """Two nodes of one network share the past and nothing else."""
    one = ScriptedChain()
    one.mine(5, logs=1)
    two = one.copy()
    two.mine(logs=1)
    assert one.height == 5
    one.mine(logs=1)
    assert one.head.hash == two.head.hash
    one.reorg(2)

    assert one.block(4) is two.block(4)
    assert one.head.hash != two.head.hash
    assert two.stale(6) == []


def test_a_sibling_is_of_another_fork() -> None:
    """At any height there is a self-consistent block that is not the canonical one, replaced or made up."""
    chain = ScriptedChain()
    chain.mine(5, logs=3)
    for number in range(6):
        block, other = chain.block(number), chain.sibling(number)
        assert block is not None
        assert other is not None
        assert other.hash != block.hash
        assert other.parent_hash == block.parent_hash
        assert chain.by_hash(other.hash) is None
        prove_block(other)
    [old] = [chain.head]
    chain.reorg(1)

    assert chain.sibling(5) is old
    assert chain.sibling(6) is None


def test_tags_stand_below_the_head() -> None:
    """By distance, never below genesis; a chain may not know a tag."""
    chain = ScriptedChain(safe_distance=2, finalized_distance=4)
    chain.mine(3)

    assert [chain.tag(name) for name in ("earliest", "latest", "safe", "finalized")] == [0, 3, 1, 0]
    assert chain.tag("nonsense") is None
    assert ScriptedChain(finalized_distance=None).tag("finalized") is None


def test_listeners_hear_of_every_change() -> None:
    """Once a change, with the blocks it appended; not after they left."""
    heard: list[list[int]] = []
    chain = ScriptedChain()
    leave = chain.on_change(lambda blocks: heard.append([block.number for block in blocks]))
    chain.mine(2)
    chain.reorg(1, 2)
    chain.rollback(1)
    leave()
    chain.mine()

    assert heard == [[1, 2], [2, 3], []]


def test_a_chain_may_hash_differently() -> None:
    """The rule of the block hash can be replaced; links hold, proofs fail."""

    def odd(header: Header) -> str:
        return "0x" + prove.header_hash(header)[:1:-1]

    chain = ScriptedChain(header_hash=odd)
    chain.mine(2)
    full, _ = served(chain.head)

    assert full.parent_hash == chain.blocks()[1].hash
    assert prove.header_hash(full) != full.hash


def test_the_fold_counts_what_was_scripted() -> None:
    """Rows in chain order with their places; balances are their sums; other events and ERC-721 are left out."""
    a, b, other = holder(1), holder(2), "0x" + "11" * 20
    nft = transfer(a, b, 9)
    chain = ScriptedChain()
    chain.mine(logs=[transfer(NOBODY, a, 10), transfer(a, b, 4)])
    chain.mine(
        logs=[
            ScriptedLog(TOKEN, (word(1),), word(5)),
            ScriptedLog(TOKEN, (*nft.topics, word(9)), "0x"),
            transfer(b, b, 2),
            transfer(NOBODY, a, 2**256 - 1, token=other),
        ]
    )
    result = fold(chain)

    assert result.balances == {(TOKEN, a): 6, (TOKEN, b): 4, (other, a): 2**256 - 1}
    assert [(row.block_number, row.log_index, row.from_, row.to_, row.value) for row in result.transfers] == [
        (1, 0, NOBODY, a, 10),
        (1, 1, a, b, 4),
        (2, 2, b, b, 2),
        (2, 3, NOBODY, a, 2**256 - 1),
    ]
    assert len(fold(chain, address=other).transfers) == 1
    assert fold(chain, last=1).balance(TOKEN, b) == 4


def test_the_fold_sees_the_canonical_chain_only() -> None:
    """After reorgs of any kind the rows are those of the final blocks and no balance is negative."""
    chain = ScriptedChain(seed=3, holders=10)
    chain.mine(30, logs=7)
    chain.reorg(5, 6, logs=4)
    chain.rollback(2)
    chain.mine(3, logs=2)
    result = fold(chain)
    hashes: dict[int, Any] = {block.number: block.hash for block in chain.blocks()}

    assert len(result.transfers) == sum(len(block.logs) for block in chain.blocks())
    assert all(hashes[row.block_number] == row.block_hash for row in result.transfers)
    assert all(balance >= 0 for balance in result.balances.values())
    assert any(balance > 0 for balance in result.balances.values())
