"""Logs as columns against logs as objects: whatever is accepted as columns is what the checks and the codecs of single
logs would have made of the same answer, and an honest answer is accepted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.digest import entry_digests
from gapless.errors import Contradiction
from gapless.model import Entry, Evidence, Segment
from gapless.schema import Rows
from gapless.sources import Decoded
from gapless.sources.evm import bloom, verify, whole
from gapless.sources.evm.abi import load_abi
from gapless.sources.evm.accept import Accepted, accept, merged_columns
from gapless.sources.evm.contracts import ContractSpec
from gapless.sources.evm.decode import EvmDecoder
from gapless.sources.evm.logtable import LogTable, joined
from gapless.sources.evm.regular import LOGS_MIN, log_table
from gapless.sources.evm.types import EvmPayload, Header, Log, LogClause, RawReceipt, Verify

FIRST, BLOCKS = 250, 12
WORDS = ["address", "uint256", "uint8", "int24", "int64", "int256", "bool", "bytes4", "bytes32", "uint64", "function"]
EVENTS: list[dict[str, Any]] = [
    {
        "type": "event",
        "name": f"Event{number}",
        "inputs": [
            {"name": f"p{place}", "type": kind, "indexed": place < number % 4}
            for place, kind in enumerate(WORDS[number : number + 4])
        ],
    }
    for number in range(len(WORDS) - 3)
]
ERC20, ERC721 = load_abi("erc20"), load_abi("erc721")
OWN = load_abi(EVENTS)
Json = dict[str, Any]


def word(rng: random.Random, kind: str) -> str:
    """A word of a type as an encoder writes it; now and then as none does."""
    bits = rng.getrandbits(256) if rng.random() < 0.7 else rng.choice([0, 1, 2**255, 2**256 - 1, 2**63, 2**64 - 1])
    if rng.random() < 0.01:
        return f"{bits:064x}"
    match kind:
        case "address":
            return f"{bits % 2**160:064x}"
        case "bool":
            return f"{bits % 2:064x}"
        case "bytes4":
            return f"{bits % 2**32:08x}".ljust(64, "0")
        case "function":
            return f"{bits % 2**192:048x}".ljust(64, "0")
        case "bytes32" | "uint256" | "int256":
            return f"{bits:064x}"
    size = int(kind.lstrip("uint"))
    value = bits % 2**size
    if kind.startswith("i") and value >> (size - 1):
        value += 2**256 - 2**size
    return f"{value:064x}"


class World:
    """Some blocks, a contract's logs in them, and headers with their true blooms."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.addresses = [f"0x{rng.getrandbits(160):040x}" for _ in range(rng.choice([1, 1, 3]))]
        abi = rng.choice([ERC20, ERC721, OWN])
        self.any_address = rng.random() < 0.5
        allowed = None if self.any_address else frozenset(self.addresses)
        self.contract = ContractSpec("token", abi.select(), allowed)
        self.events = rng.sample(list(self.contract.events), rng.choice([1, 1, 2, len(self.contract.events)]))
        self.hashes = [f"0x{rng.getrandbits(256):064x}" for _ in range(BLOCKS + 1)]
        self.logs = [log for block in range(BLOCKS) for log in self._block(block)]
        self.headers = [self._header(block) for block in range(BLOCKS)]
        topics = frozenset(e.topic0 for e in self.contract.events)
        self.clause = LogClause(allowed, topics)

    def _block(self, block: int) -> list[Json]:
        rng, logs, index = self.rng, [], 0
        for transaction in sorted(rng.sample(range(300), rng.choice([0, 1, 3, 6]))):
            known = f"0x{rng.getrandbits(256):064x}"
            for _ in range(rng.randint(1, 6)):
                event = rng.choice(self.events)
                words = {True: [], False: []}  # type: dict[bool, list[str]]
                for part in event.inputs:
                    words[part.indexed].append(word(rng, str(part.type)))
                logs.append(
                    {
                        "address": rng.choice(self.addresses),
                        "topics": [event.topic0, *("0x" + w for w in words[True])],
                        "data": "0x" + "".join(words[False]),
                        "blockHash": self.hashes[block + 1],
                        "blockNumber": hex(FIRST + block),
                        "blockTimestamp": hex(1_700_000_000 + block),
                        "transactionHash": known,
                        "transactionIndex": hex(transaction),
                        "logIndex": hex(index),
                        "removed": False,
                    }
                )
                index += rng.choice([1, 1, 1, 20])
        return logs

    def _header(self, block: int) -> Header:
        number = hex(FIRST + block)
        values = {v for log in self.logs if log["blockNumber"] == number for v in (log["address"], *log["topics"])}
        text = f"0x{bloom.of_values(values):0512x}"
        return Header(number, self.hashes[block + 1], self.hashes[block], hex(1_700_000_000 + block), text)

    def raws(self) -> list[bytes]:
        return [msgspec.json.encode(log) for log in self.logs]


def _other_character(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + bytes([rng.choice(b'0123456789abcdefABCDEFxX",:{}[]\\ \x00\xff')]) + raw[at + 1 :]


def _field(field: str, change: Callable[[Any, random.Random], Any]) -> Callable[[World], None]:
    def lie(world: World) -> None:
        log = world.rng.choice(world.logs)
        log[field] = change(log[field], world.rng)

    return lie


def _hex(length: int) -> Callable[[Any, random.Random], str]:
    return lambda _, rng: f"0x{rng.getrandbits(4 * length):0{length}x}"


def _swap(world: World) -> None:
    a, b = world.rng.sample(range(len(world.logs)), 2)
    world.logs[a], world.logs[b] = world.logs[b], world.logs[a]


def _drop_field(world: World) -> None:
    log = world.rng.choice(world.logs)
    del log[world.rng.choice(list(log))]


LIES: dict[str, Callable[[Any], None]] = {
    "address": _field("address", _hex(40)),
    "capitals": _field("address", lambda old, _: old.upper().replace("0X", "0x")),
    "topic": _field("topics", lambda old, rng: [*old[:-1], _hex(64)(None, rng)]),
    "topics": _field("topics", lambda old, rng: [*old, *old][: rng.randint(0, 5)]),
    "data": _field("data", lambda old, rng: old + rng.choice(["0", "00", "00" * 32, "zz"])),
    "no data": _field("data", lambda *_: "0x"),
    "block hash": _field("blockHash", _hex(64)),
    "number": _field("blockNumber", lambda old, rng: hex(int(old, 16) + rng.choice([-1, 1]))),
    "leading zero": _field("blockNumber", lambda old, _: "0x0" + old[2:]),
    "transaction hash": _field("transactionHash", _hex(64)),
    "short hash": _field("transactionHash", lambda old, _: old[:-2]),
    "transaction index": _field("transactionIndex", lambda _, rng: hex(rng.randint(0, 300))),
    "log index": _field("logIndex", lambda _, rng: hex(rng.randint(0, 40))),
    "huge index": _field("logIndex", lambda *_: hex(2**70)),
    "no index": _field("logIndex", lambda *_: "0x"),
    "null": _field("data", lambda *_: None),
    "removed": _field("removed", lambda *_: True),
    "time": _field("blockTimestamp", lambda *_: 'x","address":"0x'),
    "swap": _swap,
    "drop": lambda world: world.logs.pop(world.rng.randrange(len(world.logs))),
    "twice": lambda world: world.logs.append(world.rng.choice(world.logs)),
    "copy": lambda world: world.logs.insert(0, dict(world.rng.choice(world.logs))),
    "shuffle": lambda world: world.rng.shuffle(world.logs),
    "without": _drop_field,
    "more": lambda world: world.rng.choice(world.logs).update(extra=[{"a": '"}'}]),
    "other order": lambda world: world.logs.append(dict(reversed(world.logs.pop().items()))),
}


def objects(raws: Sequence[bytes]) -> list[Log]:
    return msgspec.json.decode(b"[" + b",".join(raws) + b"]", type=list[Log])


def decoded(world: World, payload: EvmPayload, *datasets: str) -> Decoded:
    entries = tuple(
        Entry(FIRST + n, h.hash, h.parent_hash, int(h.timestamp, 16) * 10**6, Evidence.CHECKED)
        for n, h in enumerate(world.headers)
    )
    decoder = EvmDecoder("chain", [world.contract], frozenset(datasets))
    return decoder.decode(Segment("chain", entries, payload, 1))


def plain(rows: Rows) -> Rows:
    return Rows(rows.table, tuple(list(c) for c in rows.columns), rows.counts)


def same_everywhere(world: World, raws: Sequence[bytes]) -> tuple[LogTable | None, Accepted | None]:
    """Take an answer both ways and compare; returns how far it got as columns."""
    table = log_table(raws)
    if table is None:
        return None, None
    logs = objects(raws)
    assert table.logs([len(logs)]) == [logs]
    accepted = accept(world.headers, table, [world.clause], blooms=True)
    if accepted is None:
        return table, None
    for level in Verify:
        groups, suspects = verify.check_filtered_logs(world.headers, logs, [world.clause], level)
        assert accepted.logs() == groups
        found = verify.suspects(world.headers, accepted.counts, [world.clause], level, verify.ETHEREUM)
        assert found == suspects
    mine = decoded(world, EvmPayload(world.headers, [], table=accepted.table, counts=tuple(accepted.counts)))
    theirs = decoded(world, EvmPayload(world.headers, accepted.logs()))
    assert [plain(r) for r in mine.rows] == [plain(r) for r in theirs.rows]
    assert [r.lines for r in mine.rows] == [plain(r).lines for r in mine.rows]
    assert mine.quarantined == theirs.quarantined
    entries = tuple(Entry(FIRST + n, h.hash, "", 0, Evidence.CHECKED) for n, h in enumerate(world.headers))
    assert entry_digests(entries, mine.rows) == entry_digests(entries, theirs.rows)
    return table, accepted


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_an_honest_answer_is_accepted_and_means_the_same(seed: int) -> None:
    """Every event, any number of topics, several addresses: as columns, with equal rows, digests and odd ones."""
    world = World(seed)
    table, accepted = same_everywhere(world, world.raws())
    if len(world.logs) >= 2 * LOGS_MIN and len(world.events) == 1:
        assert table is not None
        assert accepted is not None


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(LIES)))
def test_no_lie_is_accepted_that_the_checks_refuse(seed: int, lie: str) -> None:
    """An answer with one thing wrong is either refused by both, or accepted and the same by both."""
    world = World(seed)
    if world.logs:
        LIES[lie](world)
        same_everywhere(world, world.raws())


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_no_other_character_is_taken_for_the_right_one(seed: int) -> None:
    """One character of the JSON changed, anywhere: no columns, or those of the same JSON."""
    world = World(seed)
    raws = world.raws()
    if raws:
        at = world.rng.randrange(len(raws))
        raws[at] = _other_character(raws[at], world.rng)
        table = log_table(raws)
        if table is not None:
            same_everywhere(world, raws)


# --- whole blocks --------------------------------------------------------------------------------------------------


class WholeWorld(World):
    """The same with every log of its blocks, in the receipts of their transactions."""

    def _block(self, block: int) -> list[Json]:
        logs = [log for log in super()._block(block) if log is not None]
        names = list(dict.fromkeys(log["transactionHash"] for log in logs))
        for index, log in enumerate(logs):
            log["logIndex"], log["transactionIndex"] = hex(index), hex(names.index(log["transactionHash"]))
        return logs

    def receipts(self) -> list[list[Json]]:
        """Of each block; one of them, now and then, without logs."""
        found = []
        for header in self.headers:
            mine = [log for log in self.logs if log.get("blockNumber") == header.number]
            names = list(dict.fromkeys(log["transactionHash"] for log in mine))
            logs = {name: [log for log in mine if log["transactionHash"] == name] for name in names}
            if self.rng.random() < 0.3:
                logs[f"0x{self.rng.getrandbits(256):064x}"] = []
            found.append([self._receipt(header, n, name, some) for n, (name, some) in enumerate(logs.items())])
        return found

    def _receipt(self, header: Header, index: int, name: str, logs: list[Json]) -> Json:
        values = {v for log in logs for v in (log["address"], *log["topics"])}
        return {
            "transactionHash": name,
            "transactionIndex": hex(index),
            "blockHash": header.hash,
            "blockNumber": header.number,
            "cumulativeGasUsed": hex(21_000 * (index + 1)),
            "gasUsed": hex(21_000),
            "logs": logs,
            "logsBloom": f"0x{bloom.of_values(values):0512x}",
        }


def _in_receipts(change: Callable[[random.Random, list[Json]], None]) -> Callable[[WholeWorld, list[list[Json]]], None]:
    def lie(world: WholeWorld, receipts: list[list[Json]]) -> None:
        change(world.rng, [receipt for of_block in receipts for receipt in of_block])

    return lie


def _in_logs(lie: Callable[[World], None]) -> Callable[[WholeWorld, list[list[Json]]], None]:
    def change(world: WholeWorld, receipts: list[list[Json]]) -> None:
        receipt = world.rng.choice([r for of_block in receipts for r in of_block if len(r["logs"]) > 1])
        world.logs = receipt["logs"]
        lie(world)

    return change


def _exchanged(rng: random.Random, receipts: list[Json]) -> None:
    one, two = rng.sample(receipts, 2)
    one["logs"], two["logs"] = two["logs"], one["logs"]


WHOLE_LIES: dict[str, Callable[[WholeWorld, list[list[Json]]], None]] = {
    "nothing": lambda *_: None,
    "bloom": _in_receipts(lambda rng, all_: rng.choice(all_).update(logsBloom=f"0x{rng.getrandbits(2048):0512x}")),
    "no bloom": _in_receipts(lambda rng, all_: rng.choice(all_).update(logsBloom="0x" + "0" * 512)),
    "name": _in_receipts(
        lambda rng, all_: rng.choice([r for r in all_ if r["logs"]]).update(
            transactionHash=f"0x{rng.getrandbits(256):064x}"
        )
    ),
    "no logs": _in_receipts(lambda rng, all_: rng.choice(all_).update(logs=[])),
    "exchanged": _in_receipts(_exchanged),
    **{name: _in_logs(lie) for name, lie in LIES.items()},
}


def both_ways(world: WholeWorld, receipts: list[list[Json]]) -> Accepted | None:
    """Receipts taken as columns are those that the checks of single logs take, with the same logs and rows."""
    raw = [msgspec.json.decode(msgspec.json.encode(of_block), type=list[RawReceipt]) for of_block in receipts]
    accepted = whole.accepted(world.headers, raw, blooms=True)
    if accepted is None:
        return None
    apart = whole.taken_apart(raw, "node")
    for header, of_block, logs in zip(world.headers, apart, accepted.logs(), strict=True):
        assert verify.check_receipts(header, None, of_block, Verify.CHECKED) == logs
    payload = EvmPayload(world.headers, [], receipts=raw, table=accepted.table, counts=tuple(accepted.counts))
    mine = decoded(world, payload, "logs")
    theirs = decoded(world, EvmPayload(world.headers, accepted.logs(), receipts=apart), "logs")
    assert [plain(r) for r in mine.rows] == [plain(r) for r in theirs.rows]
    assert mine.quarantined == theirs.quarantined
    return accepted


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(WHOLE_LIES)))
def test_whole_blocks_are_the_same_both_ways(seed: int, lie: str) -> None:
    """Honest receipts are accepted; with one thing wrong they are refused, or it is nothing that the checks see."""
    world = WholeWorld(seed)
    if len(world.logs) < 2 * LOGS_MIN:
        return
    receipts = world.receipts()
    WHOLE_LIES[lie](world, receipts)
    accepted = both_ways(world, receipts)
    if lie == "nothing":
        assert accepted is not None or len(world.events) > 1


@pytest.mark.parametrize("lie", ["bloom", "no bloom", "name", "exchanged", "log index", "topic", "block hash", "drop"])
def test_the_checks_of_receipts_see_what_is_wrong(lie: str) -> None:
    """By themselves, whatever looks at the receipts besides."""
    seen = seed = 0
    while seen < 5:
        world = WholeWorld(seed)
        receipts = world.receipts()
        seed += 1
        before = msgspec.json.encode(receipts)
        if len(world.logs) >= 2 * LOGS_MIN and both_ways(world, receipts) is not None:
            WHOLE_LIES[lie](world, receipts)
            assert msgspec.json.encode(receipts) == before or both_ways(world, receipts) is None
            seen += msgspec.json.encode(receipts) != before


# --- the pieces ----------------------------------------------------------------------------------------------------


def dense(lie: str | None = None, seed: int = 0) -> tuple[World, LogTable]:
    """A world with enough logs to come as columns, the first from a seed on."""
    while True:
        world = World(seed)
        if len(world.logs) >= 2 * LOGS_MIN and len(world.events) == 1:
            if lie is not None:
                LIES[lie](world)
            table = log_table(world.raws())
            if table is not None:
                return world, table
        seed += 1


@pytest.mark.parametrize("lie", ["address", "topic", "block hash", "number", "transaction hash", "twice", "copy"])
def test_the_checks_of_columns_see_what_is_wrong(lie: str) -> None:
    """What gets as far as columns and does not hold is not accepted there, whatever else would look at it later."""
    for seed in range(0, 1000, 100):
        world, table = dense(lie, seed)
        assert accept(world.headers, table, [world.clause], blooms=True) is None
        with pytest.raises(Contradiction):
            verify.check_filtered_logs(world.headers, objects(world.raws()), [world.clause], Verify.CHECKED)


def test_logs_in_any_order_are_put_in_theirs() -> None:
    """As the checks of single logs do."""
    world, table = dense("shuffle")
    accepted = accept(world.headers, table, [world.clause], blooms=True)
    assert accepted is not None
    assert accepted.logs() == verify.check_filtered_logs(world.headers, objects(world.raws()), [world.clause])[0]


def test_answers_that_follow_and_answers_beside_each_other() -> None:
    """Cut anywhere and joined, or dealt out to two filters and merged, the logs are the same; a log that two filters
    have is looked at by itself."""
    world, table = dense()
    whole = accept(world.headers, table, [world.clause], blooms=True)
    assert whole is not None
    raws = world.raws()
    ends = list(accumulate([LOGS_MIN, len(raws) - LOGS_MIN], initial=0))
    parts = [log_table(raws[a:b]) for a, b in pairwise(ends)]
    tables = [part for part in parts if part is not None]
    assert len(tables) == 2
    again = joined(tables)
    assert again.logs(whole.counts) == whole.logs()
    dealt = [accept(world.headers, log_table(raws[n::2]) or table, [world.clause], blooms=True) for n in range(2)]
    halves = [half for half in dealt if half is not None]
    assert len(halves) == 2
    merged = merged_columns(halves)
    assert merged is not None
    assert merged.logs() == whole.logs()
    assert merged_columns([whole, halves[0]]) is None
    later = replace(whole, counts=whole.counts)
    assert whole.followed_by(later).counts == whole.counts * 2
