"""Every lie changes the answer in just the way it says, and leaves everything else true."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import msgspec
import pytest

from gapless.errors import UsageError
from gapless.sources.evm import bloom, prove
from gapless.sources.evm.types import Header, Log, Receipt
from gapless.testing import block_lies, faults, log_lies, pushes
from gapless.testing.behaviour import Behaviour, Switch
from gapless.testing.block import (
    NOBODY,
    TOKEN,
    TRANSFER_TOPIC,
    ScriptedLog,
    ScriptedTransaction,
    holder,
    transfer,
    word,
)
from gapless.testing.block_lies import (
    ForeignBlock,
    ForeignReceipts,
    GoesBackwards,
    NullBlock,
    NullReceipt,
    NullReceipts,
    OtherChainId,
    OtherGenesis,
    ReceiptsMiscounted,
    StaleReplica,
    TamperedHeader,
    TamperedReceipt,
    TamperedTransaction,
    Unlinked,
    WrongNumber,
)
from gapless.testing.chain import ScriptedChain
from gapless.testing.dispatch import Dispatcher
from gapless.testing.log_lies import (
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

OTHER = "0x" + "ab" * 20
A, B, C = holder(1), holder(2), holder(3)


class Node:
    """A dispatcher asked without a network: what it says, and what would be true."""

    def __init__(self, chain: ScriptedChain) -> None:
        self.chain = chain
        self.dispatcher = Dispatcher(chain, Limits(), lambda: 0.0)

    def behave(self, behaviour: Behaviour, **options: Any) -> Switch:
        switch = Switch(behaviour, **options)
        self.dispatcher.switches += (switch,)
        return switch

    def ask(self, method: str, *params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
        return json.loads(self.dispatcher.answer(body).body)["result"]

    def truth(self, method: str, *params: Any) -> Any:
        return Node(self.chain).ask(method, *params)

    def logs(self, first: int = 1, last: int = 4, **more: Any) -> Any:
        return self.ask("eth_getLogs", {"fromBlock": hex(first), "toBlock": hex(last), "address": TOKEN, **more})

    def true_logs(self, first: int = 1, last: int = 4, **more: Any) -> Any:
        return Node(self.chain).logs(first, last, **more)


def places(logs: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(int(log["blockNumber"], 16), int(log["logIndex"], 16)) for log in logs]


def proves(block: dict[str, Any]) -> bool:
    """Whether the block hash is right, and the transactions are where they are whole."""
    header = msgspec.convert(block, Header)
    transactions = block["transactions"]
    if transactions and isinstance(transactions[0], str):
        return prove.header_hash(header) == header.hash
    return (
        prove.header_hash(header) == header.hash and prove.transactions_root(transactions) == header.transactions_root
    )


def receipts_prove(receipts: list[dict[str, Any]], block: dict[str, Any]) -> bool:
    return prove.receipts_root(msgspec.convert(receipts, list[Receipt])) == str(block["receiptsRoot"])


@pytest.fixture
def node() -> Node:
    """Four blocks of four logs in two transactions; one log of another contract (index 1), the last one covered."""
    chain = ScriptedChain(seed=5, logs_per_transaction=2)
    for n in range(4):
        chain.mine(
            logs=[
                transfer(A, B, n),
                ScriptedLog(OTHER, (word(n),), word(n)),
                transfer(B, C, n),
                transfer(A, B, n + 1),
            ]
        )
    return Node(chain)


# --- logs left out -------------------------------------------------------------------------------------------------


def test_omit_any_log(node: Node) -> None:
    """The middle one of each block's answered logs; by range and by block hash alike."""
    node.behave(OmitLog("any"), first=2, last=3)

    assert places(node.logs()) == [(1, 0), (1, 2), (1, 3), (2, 0), (2, 3), (3, 0), (3, 3), (4, 0), (4, 2), (4, 3)]
    block = node.chain.blocks()[2]
    assert places(node.ask("eth_getLogs", {"blockHash": block.hash})) == [(2, 0), (2, 1), (2, 3)]
    assert node.logs(4, 4) == node.true_logs(4, 4)


def test_omit_last_log_everywhere(node: Node) -> None:
    """A consistent liar leaves the same log out of filtered answers, whole-block answers and receipts."""
    node.behave(OmitLog("last"), first=2, last=2)
    block = node.chain.blocks()[2]
    receipts = node.ask("eth_getBlockReceipts", "0x2")
    single = node.ask("eth_getTransactionReceipt", block.transactions[1]["hash"])

    assert places(node.logs(2, 2)) == [(2, 0), (2, 2)]
    assert places(node.ask("eth_getLogs", {"blockHash": block.hash})) == [(2, 0), (2, 1), (2, 2)]
    assert [places(receipt["logs"]) for receipt in receipts] == [[(2, 0), (2, 1)], [(2, 2)]]
    assert single == receipts[1]
    first = node.ask("eth_getTransactionReceipt", block.transactions[0]["hash"])
    assert first == node.truth("eth_getTransactionReceipt", block.transactions[0]["hash"])
    assert not receipts_prove(receipts, node.truth("eth_getBlockByNumber", "0x2", False))


def test_omit_covered_log(node: Node) -> None:
    """Neither the bloom nor the indices of the whole block show it; the receipts root does."""
    node.behave(OmitLog("covered", mend_bloom=True))
    block = node.truth("eth_getBlockByNumber", "0x1", False)
    logs = node.ask("eth_getLogs", {"blockHash": block["hash"]})
    receipts = node.ask("eth_getBlockReceipts", "0x1")

    assert places(logs) == [(1, 0), (1, 1), (1, 2)]
    assert bloom.of_logs(msgspec.convert(logs, list[Log])) == int(block["logsBloom"], 16)
    for receipt in msgspec.convert(receipts, list[Receipt]):
        assert bloom.of_logs(receipt.logs) == int(receipt.logs_bloom, 16)
    assert not receipts_prove(receipts, block)


def test_omit_covered_spares_what_the_bloom_shows() -> None:
    """Where the last log has bits of its own, nothing is left out and the switch does not count."""
    chain = ScriptedChain()
    chain.mine(logs=[transfer(A, B, 1), transfer(B, C, 1)])
    node = Node(chain)
    switch = node.behave(OmitLog("covered"))

    assert node.logs(1, 1) == node.true_logs(1, 1)
    assert switch.used == 0


def test_omit_only_where_told(node: Node) -> None:
    """A lie about filtered answers leaves receipts true, and the other way round."""
    node.behave(OmitLog("last", where=frozenset(("range",))))
    block_hash = node.chain.head.hash

    assert len(node.logs(4, 4)) == 2
    assert len(node.ask("eth_getLogs", {"blockHash": block_hash})) == 4
    assert node.ask("eth_getBlockReceipts", "0x4") == node.truth("eth_getBlockReceipts", "0x4")


def test_empty_logs(node: Node) -> None:
    """Inside the heights no log at all; outside every one."""
    node.behave(EmptyLogs(), first=2, last=3)

    assert {n for n, _ in places(node.logs())} == {1, 4}
    assert node.logs(2, 3) == []
    assert node.ask("eth_getBlockReceipts", "0x2")[0]["logs"]


def test_empty_receipts(node: Node) -> None:
    """Receipts can lose their logs too, all else as it was."""
    node.behave(EmptyLogs(where=frozenset(("receipts",))))
    receipts, true = node.ask("eth_getBlockReceipts", "0x2"), node.truth("eth_getBlockReceipts", "0x2")

    assert [r | {"logs": 0} for r in receipts] == [r | {"logs": 0} for r in true]
    assert all(r["logs"] == [] for r in receipts)


# --- logs that do not belong ---------------------------------------------------------------------------------------


def test_foreign_logs(node: Node) -> None:
    """Logs of a replaced block under its own hash, or under the canonical one, filtered as asked."""
    old = node.chain.blocks()[4]
    node.chain.reorg(1)
    new = node.chain.head
    node.behave(ForeignLogs(), first=4, last=4, times=1)
    told = node.logs()

    assert told[:9] == node.true_logs()[:9]
    assert {log["blockHash"] for log in told[9:]} == {old.hash}
    assert places(told[9:]) == [(4, 0), (4, 2), (4, 3)]
    node.behave(ForeignLogs(disguised=True), first=4, last=4)
    disguised = node.logs(4, 4)
    assert {log["blockHash"] for log in disguised} == {new.hash}
    assert [log["data"] for log in disguised] == [log["data"] for log in told[9:]]


def test_foreign_logs_without_a_fork(node: Node) -> None:
    """Where nothing was ever replaced, another fork's block is made up."""
    node.behave(ForeignLogs(), first=3, last=3)
    told = {log["blockHash"] for log in node.logs(3, 3)}

    assert told == {getattr(node.chain.sibling(3), "hash", None)}


def test_duplicate_log(node: Node) -> None:
    """The first log inside the heights comes twice, the same in all."""
    node.behave(DuplicateLog(), first=2)

    assert places(node.logs(1, 2)) == [(1, 0), (1, 2), (1, 3), (2, 0), (2, 0), (2, 2), (2, 3)]


def test_invented_log(node: Node) -> None:
    """A log that fits the filter, in its place in order, which the bloom denies."""
    node.behave(InventedLog(), first=2, times=1)
    told = node.logs(topics=[TRANSFER_TOPIC])
    added = [log for log in told if log not in node.true_logs()]

    assert places(added) == [(2, 4)]
    assert places(told) == sorted(places(told))
    assert added[0]["address"] == TOKEN
    assert added[0]["topics"][0] == TRANSFER_TOPIC
    assert set(added[0]) == set(node.true_logs()[0])
    header = int(node.chain.blocks()[2].header.logs_bloom, 16)
    assert not bloom.contains(header, bloom.of_logs(msgspec.convert(added, list[Log])))


def test_invented_log_where_there_are_none() -> None:
    """Also in a block without transactions."""
    chain = ScriptedChain()
    chain.mine(2)
    node = Node(chain)
    node.behave(InventedLog())

    assert places(node.logs(1, 2)) == [(1, 0)]


@pytest.mark.parametrize("what", ["address", "topic"])
def test_logs_not_asked_for(node: Node, what: Any) -> None:
    """One more log that the filter does not cover: a real one of the block where there is one."""
    node.behave(NotAskedFor(what), first=2, last=2)
    told = node.logs(2, 2, topics=[TRANSFER_TOPIC])
    [added] = [log for log in told if log not in node.true_logs()]

    assert (added["address"] == TOKEN) == (what == "topic")
    if what == "address":
        assert places(told) == [(2, 0), (2, 1), (2, 2), (2, 3)]
        assert added in node.truth("eth_getLogs", {"fromBlock": "0x2", "toBlock": "0x2"})
    else:
        assert added["topics"][0] != TRANSFER_TOPIC
    assert node.logs(3, 3) == node.true_logs(3, 3)


def test_out_of_range_log(node: Node) -> None:
    """A log of the block after the range; at the head there is none."""
    switch = node.behave(OutOfRangeLog())

    assert places(node.logs(1, 2))[-1] == (3, 0)
    assert node.logs(1, 4) == node.true_logs(1, 4)
    assert switch.used == 1


@pytest.mark.parametrize(
    ("name", "value"), [("data", None), ("removed", True), ("logIndex", "0x9"), ("transactionHash", word(1))]
)
def test_tampered_log(node: Node, name: str, value: Any) -> None:
    """One field of the first log, and nothing else."""
    node.behave(TamperedLog(name, value), first=2)
    told, true = node.logs(), node.true_logs()

    assert [at for at, (x, y) in enumerate(zip(told, true, strict=True)) if x != y] == [3]
    assert told[3] == true[3] | {name: told[3][name]}
    receipts, true = node.ask("eth_getBlockReceipts", "0x2"), node.truth("eth_getBlockReceipts", "0x2")
    assert receipts[0]["logs"][0][name] != true[0]["logs"][0][name]
    assert receipts[1] == true[1]


# --- blocks --------------------------------------------------------------------------------------------------------


def test_null_block(node: Node) -> None:
    """By number and by hash, at the height told, as often as told."""
    node.behave(NullBlock(), first=2, last=2, times=2)

    assert node.ask("eth_getBlockByNumber", "0x2", False) is None
    assert node.ask("eth_getBlockByNumber", "0x3", False) is not None
    assert node.ask("eth_getBlockByHash", node.chain.blocks()[2].hash, True) is None
    assert node.ask("eth_getBlockByNumber", "0x2", False) is not None


def test_wrong_number(node: Node) -> None:
    """The next block, whole and right, under the wrong question."""
    node.behave(WrongNumber(), first=2, last=2)

    assert node.ask("eth_getBlockByNumber", "0x2", True) == node.truth("eth_getBlockByNumber", "0x3", True)


def test_foreign_block(node: Node) -> None:
    """Right in itself, on the same parent, and not the canonical one."""
    node.behave(ForeignBlock(), first=2, last=2)
    told, true = node.ask("eth_getBlockByNumber", "0x2", True), node.truth("eth_getBlockByNumber", "0x2", True)

    assert told["hash"] != true["hash"]
    assert told["parentHash"] == true["parentHash"]
    assert proves(told)


@pytest.mark.parametrize("rehash", [True, False])
def test_unlinked(node: Node, rehash: bool) -> None:
    """Another parent; the hash fits what it says, or is the old one."""
    node.behave(Unlinked(rehash=rehash), first=2, last=2)
    told, true = node.ask("eth_getBlockByNumber", "0x2", True), node.truth("eth_getBlockByNumber", "0x2", True)

    assert told["parentHash"] != true["parentHash"]
    assert proves(told) == rehash
    assert (told["hash"] == true["hash"]) == (not rehash)
    assert {t["blockHash"] for t in told["transactions"]} == {told["hash"]}


@pytest.mark.parametrize("name", ["gasUsed", "logsBloom", "timestamp", "stateRoot", "receiptsRoot"])
def test_tampered_header(node: Node, name: str) -> None:
    """One header field under the old hash: the proof fails and nothing else is different."""
    node.behave(TamperedHeader(name))
    told, true = node.ask("eth_getBlockByNumber", "0x2", False), node.truth("eth_getBlockByNumber", "0x2", False)

    assert {key for key in true if told[key] != true[key]} == {name}
    assert prove.header_hash(msgspec.convert(told, Header)) != told["hash"]
    assert proves(true)


def test_tampered_transaction(node: Node) -> None:
    """One field of the first transaction; blocks of hashes only are left alone."""
    node.behave(TamperedTransaction("value", "0x5"))
    told, true = node.ask("eth_getBlockByNumber", "0x2", True), node.truth("eth_getBlockByNumber", "0x2", True)

    assert told["transactions"][0] == true["transactions"][0] | {"value": "0x5"}
    assert told["transactions"][1:] == true["transactions"][1:]
    assert not proves(told)
    assert node.ask("eth_getBlockByNumber", "0x2", False) == node.truth("eth_getBlockByNumber", "0x2", False)


# --- receipts ------------------------------------------------------------------------------------------------------


def test_null_receipts(node: Node) -> None:
    """All of a block, or those of one index asked for singly."""
    node.behave(NullReceipts(), first=2, last=2)
    node.behave(NullReceipt(1))
    hashes = [t["hash"] for t in node.chain.blocks()[2].transactions]

    assert node.ask("eth_getBlockReceipts", "0x2") is None
    assert node.ask("eth_getBlockReceipts", "0x3") is not None
    assert [node.ask("eth_getTransactionReceipt", h) is None for h in hashes] == [False, True]


@pytest.mark.parametrize("disguised", [False, True])
def test_foreign_receipts(node: Node, disguised: bool) -> None:
    """Of another fork's block, under its own names or under the canonical ones; they never prove."""
    node.chain.reorg(1)
    node.behave(ForeignReceipts(disguised=disguised), first=4)
    told, true = node.ask("eth_getBlockReceipts", "0x4"), node.truth("eth_getBlockReceipts", "0x4")
    single = node.ask("eth_getTransactionReceipt", true[1]["transactionHash"])

    assert single == told[1]
    names = [(r["blockHash"], r["transactionHash"]) for r in true]
    assert ([(r["blockHash"], r["transactionHash"]) for r in told] == names) == disguised
    assert all((log["blockHash"] == true[0]["blockHash"]) == disguised for r in told for log in r["logs"])
    assert not receipts_prove(told, node.truth("eth_getBlockByNumber", "0x4", False))
    assert receipts_prove(true, node.truth("eth_getBlockByNumber", "0x4", False))


@pytest.mark.parametrize("change", [-1, 1])
def test_miscounted_receipts(node: Node, change: Any) -> None:
    """One too few, or one too many."""
    node.behave(ReceiptsMiscounted(change))
    told, true = node.ask("eth_getBlockReceipts", "0x2"), node.truth("eth_getBlockReceipts", "0x2")

    assert told == (true[:-1] if change < 0 else [*true, true[-1]])


@pytest.mark.parametrize(("name", "value"), [("status", "0x0"), ("cumulativeGasUsed", None), ("type", "0x1")])
def test_tampered_receipt(node: Node, name: str, value: Any) -> None:
    """One field of one receipt, in the block's answer and alone; the root shows it."""
    node.behave(TamperedReceipt(name, value, index=1))
    told, true = node.ask("eth_getBlockReceipts", "0x2"), node.truth("eth_getBlockReceipts", "0x2")

    assert told[0] == true[0]
    assert told[1] == true[1] | {name: told[1][name]} != true[1]
    assert node.ask("eth_getTransactionReceipt", true[1]["transactionHash"]) == told[1]
    assert not receipts_prove(told, node.truth("eth_getBlockByNumber", "0x2", False))


# --- the whole node ------------------------------------------------------------------------------------------------


def test_stale_replica(node: Node) -> None:
    """What is newer does not exist in any answer, and nothing says so."""
    head = node.chain.head
    switch = node.behave(StaleReplica(2))

    assert node.ask("eth_blockNumber") == "0x2"
    assert node.ask("eth_getBlockByNumber", "latest", False)["number"] == "0x2"
    assert node.ask("eth_getBlockByNumber", "0x3", False) is None
    assert node.ask("eth_getBlockByHash", head.hash, False) is None
    assert node.ask("eth_getBlockReceipts", "0x4") is None
    assert node.ask("eth_getTransactionReceipt", head.transactions[0]["hash"]) is None
    assert {n for n, _ in places(node.logs(1, 4))} == {1, 2}
    assert node.ask("eth_syncing") is False
    switch.off()
    assert node.ask("eth_blockNumber") == "0x4"


def test_syncing_replica(node: Node) -> None:
    """A node that catches up says so, to whoever asks."""
    node.behave(StaleReplica(3, syncing=True))

    assert node.ask("eth_syncing") == {"startingBlock": "0x0", "currentBlock": "0x1", "highestBlock": "0x4"}


def test_drifting_replicas(node: Node) -> None:
    """Behind one address: the head from a fresh node, data from one that lags."""
    node.behave(StaleReplica(1), methods=frozenset(("eth_getBlockByNumber", "eth_getLogs")))

    assert node.ask("eth_blockNumber") == "0x4"
    assert node.ask("eth_getBlockByNumber", "0x4", False) is None
    assert node.logs(4, 4) == []


def test_goes_backwards(node: Node) -> None:
    """After so many answers the head is lower than it was, and stays there while the chain goes on."""
    node.behave(GoesBackwards(2), after=2)

    assert [node.ask("eth_blockNumber") for _ in range(4)] == ["0x4", "0x4", "0x2", "0x2"]
    node.chain.mine()
    assert node.ask("eth_blockNumber") == "0x2"


def test_another_chain(node: Node) -> None:
    """Chain id and network id change; genesis may change alone."""
    switch = node.behave(OtherChainId(5))
    assert (node.ask("eth_chainId"), node.ask("net_version")) == ("0x5", "5")
    switch.off()
    node.behave(OtherGenesis())
    assert node.ask("eth_chainId") == hex(node.chain.chain_id)
    told = node.ask("eth_getBlockByNumber", "0x0", False)
    assert told["hash"] != node.chain.genesis.hash
    assert proves(told)
    assert node.ask("eth_getBlockByNumber", "0x1", False) == node.truth("eth_getBlockByNumber", "0x1", False)


# --- switches ------------------------------------------------------------------------------------------------------


def test_switches_count_occasions(node: Node) -> None:
    """Spare the first, then every so often, so many times; only what was really altered counts."""
    switch = node.behave(NullBlock(), after=1, every=2, times=2)
    told = [node.ask("eth_getBlockByNumber", "0x2", False) is None for _ in range(8)]
    node.ask("eth_chainId")

    assert told == [False, True, False, True, False, False, False, False]
    assert switch.used == 2
    assert node.dispatcher.statistics().misbehaved == {"NullBlock": 2}


def test_switches_know_methods_and_heights(node: Node) -> None:
    """Heights mean the blocks a call is about; a switch with heights leaves other calls alone."""
    node.behave(faults.Refusal(), first=2, last=3, methods=frozenset(("eth_getLogs",)))
    body = b'{"jsonrpc":"2.0","id":1,"method":"eth_getLogs","params":[{"fromBlock":"0x1","toBlock":"0x2"}]}'

    assert b"header not found" in node.dispatcher.answer(body).body
    assert node.logs(4, 4)
    assert node.ask("eth_getBlockByNumber", "0x2", False)
    assert node.ask("eth_chainId")


def test_several_lies_at_once(node: Node) -> None:
    """Each alters what the one before left."""
    node.behave(OmitLog("any"))
    node.behave(DuplicateLog())

    assert places(node.logs(1, 1)) == [(1, 0), (1, 0), (1, 3)]


def test_what_is_no_behaviour_is_refused() -> None:
    """A class in the place of a value is a likely slip."""
    with pytest.raises(UsageError, match="no behaviour"):
        Switch(OmitLog)  # type: ignore[arg-type]


def test_every_behaviour_names_its_model() -> None:
    """Each concrete behaviour is a frozen value whose text says which kind of incident it models."""
    found = [
        value
        for module in (log_lies, block_lies, faults, pushes)
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]

    assert len(found) >= 40
    for value in found:
        assert dataclasses.is_dataclass(value), value
        assert value.__dataclass_params__.frozen, value  # type: ignore[attr-defined]
        assert "Models" in (value.__doc__ or ""), value
        assert isinstance(value(), Behaviour), value


def test_lies_know_transactions_without_logs() -> None:
    """Odd layouts do not break a lie: failed transactions, no logs, anonymous logs."""
    chain = ScriptedChain()
    chain.mine(transactions=[ScriptedTransaction(status=0), ScriptedTransaction((ScriptedLog(TOKEN, (), "0x"),))])
    chain.mine()
    node = Node(chain)
    for lie in (OmitLog(), EmptyLogs(), ForeignLogs(), DuplicateLog(), NotAskedFor("topic"), TamperedLog("data")):
        switch = node.behave(lie)
        node.logs(1, 2)
        node.ask("eth_getBlockReceipts", "0x1")
        node.ask("eth_getBlockReceipts", "0x2")
        switch.off()
    node.behave(TamperedLog("address", NOBODY))
    assert node.logs(1, 1)[0]["address"] == NOBODY
