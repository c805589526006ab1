"""What a fake node can say about logs that is not so. Each lie names the kind of incident it is modelled on.

All of them leave the answer well-formed: only comparing it with itself, with the header's commitments, or with another
endpoint shows the lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import shake_256
from typing import Any, Literal

import msgspec

from gapless.sources.evm import bloom
from gapless.sources.evm.types import Log
from gapless.testing.behaviour import AnswerBehaviour, Json, Scene, as_json, other_text, tampered
from gapless.testing.block import TOKEN, TRANSFER_TOPIC, ScriptedBlock
from gapless.testing.calls import Call, LogFilter, View

Carrier = Literal["range", "block_hash", "receipts"]
"""Where logs come from: `eth_getLogs` by range or by block hash, or receipts (of a block, or single)."""
ALL_CARRIERS: frozenset[Carrier] = frozenset(("range", "block_hash", "receipts"))
FILTERED: frozenset[Carrier] = frozenset(("range", "block_hash"))

_RECEIPT_METHODS = ("eth_getBlockReceipts", "eth_getTransactionReceipt")


def carrier(call: Call) -> Carrier | None:
    """Which kind of log answer a call gets; None for other calls."""
    if call.filter is not None:
        return "range" if call.filter.block_hash is None else "block_hash"
    return "receipts" if call.method in _RECEIPT_METHODS else None


def _number(log: Json) -> int:
    return int(log["blockNumber"], 16)


def _index(log: Json) -> int:
    return int(log["logIndex"], 16)


# --- logs left out -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OmitLog(AnswerBehaviour):
    """One log of every block is left out, the block hash staying right. Models hyperindex 1498 and go-ethereum 31593:
    valid answers of `eth_getLogs` that omit a log of a canonical block.

    `which`: `any` leaves out one from the middle, `last` the block's last of those asked for, `covered` the last one
    too, but only where the bloom bits of its address and topics are all set by others of its block, so that neither
    bloom nor indices show it. With `mend_bloom` a receipt gets the bloom of what remains."""

    which: Literal["any", "last", "covered"] = "any"
    where: frozenset[Carrier] = ALL_CARRIERS
    mend_bloom: bool = False

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        kind = carrier(call)
        if kind not in self.where or not result:
            return result
        if kind == "receipts":
            return self._from_receipts(result, scene)
        by_block: dict[str, list[Json]] = {}
        for log in result:
            if scene.inside(_number(log)):
                by_block.setdefault(log["blockHash"], []).append(log)
        victims = {
            (block_hash, victim)
            for block_hash, logs in by_block.items()
            if (victim := self._victim(logs, scene.view.by_hash(block_hash))) is not None
        }
        if not victims:
            return result
        return [log for log in result if (log["blockHash"], _index(log)) not in victims]

    def _victim(self, logs: Sequence[Json], block: ScriptedBlock | None) -> int | None:
        """Index of the log to leave out, of those of one block that would be answered."""
        if not logs:
            return None
        chosen = _index(logs[len(logs) // 2 if self.which == "any" else -1])
        if self.which == "covered":
            if block is None:
                return None
            rest = bloom.of_logs([log for log in block.logs if int(log.log_index, 16) != chosen])
            if not bloom.contains(rest, bloom.of_logs([block.logs[chosen]])):
                return None
        return chosen

    def _from_receipts(self, result: Any, scene: Scene) -> Any:
        receipts = result if isinstance(result, list) else [result]
        if not scene.inside(_number(receipts[0])):
            return result
        block = scene.view.by_hash(receipts[0]["blockHash"])
        victim = self._victim(as_json(block.logs), block) if block is not None else None
        changed = [self._without(receipt, victim) for receipt in receipts]
        if victim is None or all(new is old for new, old in zip(changed, receipts, strict=True)):
            return result
        return changed if isinstance(result, list) else changed[0]

    def _without(self, receipt: Json, victim: int | None) -> Json:
        kept = [log for log in receipt["logs"] if _index(log) != victim]
        if len(kept) == len(receipt["logs"]):
            return receipt
        mended = receipt | {"logs": kept}
        if self.mend_bloom:
            mended["logsBloom"] = f"0x{bloom.of_logs(msgspec.convert(kept, list[Log])):0512x}"
        return mended


@dataclass(frozen=True, slots=True)
class EmptyLogs(AnswerBehaviour):
    """No logs for the heights it is switched on for. Models ponder 1852 (an empty `eth_getLogs` answer accepted) and
    replicas whose log index is behind their head."""

    where: frozenset[Carrier] = FILTERED

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        kind = carrier(call)
        if kind not in self.where or not result:
            return result
        if kind == "receipts":
            receipts = result if isinstance(result, list) else [result]
            if not scene.inside(_number(receipts[0])) or not any(r["logs"] for r in receipts):
                return result
            bare = [receipt | {"logs": []} for receipt in receipts]
            return bare if isinstance(result, list) else bare[0]
        kept = [log for log in result if not scene.inside(_number(log))]
        return result if len(kept) == len(result) else kept


# --- logs that do not belong ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ForeignLogs(AnswerBehaviour):
    """`eth_getLogs` answers a block's logs from another fork, under that fork's hash. Models sonic 554 (getLogs and
    getBlock disagree) and ponder 1212 (an orphan served for hours). `disguised`: under the canonical hash."""

    disguised: bool = False

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        wanted = call.filter
        if wanted is None or not result:
            return result
        altered: list[Json] = []
        replaced: set[int] = set()
        for log in result:
            number = _number(log)
            if not scene.inside(number):
                altered.append(log)
            elif number not in replaced:
                replaced.add(number)
                altered += self._foreign(number, log["blockHash"], wanted.matches, scene.view)
        return altered if replaced else result

    def _foreign(
        self, number: int, canonical: str, matches: Callable[[str, Sequence[str]], bool], view: View
    ) -> list[Json]:
        block = view.chain.sibling(number)
        logs: list[Json] = [] if block is None else as_json(block.logs)
        chosen = [log for log in logs if matches(log["address"], log["topics"])]
        return [log | {"blockHash": canonical} for log in chosen] if self.disguised else chosen


@dataclass(frozen=True, slots=True)
class DuplicateLog(AnswerBehaviour):
    """The first log of the answer comes twice. Models ponder 1374 and 2182 (duplicate log indices) and rindexer 172."""

    where: frozenset[Carrier] = FILTERED

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if carrier(call) not in self.where:
            return result
        return _in_first_log(result, scene, lambda log: [log, log])


@dataclass(frozen=True, slots=True)
class InventedLog(AnswerBehaviour):
    """A log that fits the question but that the block's bloom denies. Models squid's phantom transactions and chains
    whose log index kept what a reorg had removed."""

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        wanted = call.filter
        block = _first_block(call, scene)
        if wanted is None or block is None:
            return result
        address = min(wanted.addresses) if wanted.addresses else TOKEN
        topic = min(wanted.topics[0]) if wanted.topics and wanted.topics[0] else TRANSFER_TOPIC
        invented = _log_of(block) | {
            "address": address,
            "topics": [topic, *_denied(block, wanted.topics)],
            "logIndex": hex(len(block.logs)),
        }
        before = [log for log in result if _number(log) <= block.number]
        return [*before, invented, *result[len(before) :]]


@dataclass(frozen=True, slots=True)
class NotAskedFor(AnswerBehaviour):
    """A log of another contract (`address`), or of another event (`topic`), is added: a real one of the block where it
    has one, else one made up from the first. Models proxies that drop or mix up filter parameters."""

    what: Literal["address", "topic"] = "address"

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if call.filter is None:
            return result
        for at, log in enumerate(result):
            block = scene.view.by_hash(log["blockHash"])
            if block is not None and scene.inside(block.number):
                added = self._other(log, block, call.filter)
                place = at + sum(1 for x in result[at:] if _number(x) == block.number and _index(x) < _index(added))
                return [*result[:place], added, *result[place:]]
        return result

    def _other(self, log: Json, block: ScriptedBlock, wanted: LogFilter) -> Json:
        logs: list[Json] = as_json(block.logs)
        for found in logs:
            differs = found["address"] != log["address"]
            if differs == (self.what == "address") and not wanted.matches(found["address"], found["topics"]):
                return found
        if self.what == "address":
            changed: Json = {"address": other_text(log["address"])}
        else:
            changed = {"topics": [other_text(topic) for topic in log["topics"][:1]] + log["topics"][1:]}
        return log | changed | {"logIndex": hex(len(logs))}


@dataclass(frozen=True, slots=True)
class OutOfRangeLog(AnswerBehaviour):
    """A log of the block after the range asked for is added. Models off-by-one ranges of caching proxies."""

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        wanted, heights = call.filter, call.heights
        if wanted is None or heights is None or carrier(call) != "range":
            return result
        block = scene.view.block(heights.stop)
        logs: list[Json] = [] if block is None else as_json(block.logs)
        fitting = [log for log in logs if wanted.matches(log["address"], log["topics"])]
        return [*result, fitting[0]] if fitting else result


@dataclass(frozen=True, slots=True)
class TamperedLog(AnswerBehaviour):
    """One field of the first log is changed: `data`, `removed`, `logIndex`, `transactionHash`, `blockNumber`, …
    Models ponder 745 (invalid logs) and providers that mark logs as removed and serve them still.

    `value` None: the text is changed in its last digit."""

    field: str = "data"
    value: Any = None
    where: frozenset[Carrier] = ALL_CARRIERS

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if carrier(call) not in self.where:
            return result
        return _in_first_log(result, scene, lambda log: [tampered(log, self.field, self.value)])


def _in_first_log(result: Any, scene: Scene, change: Callable[[Json], list[Json]]) -> Any:
    """The answer with its first log inside the switched-on heights replaced by what `change` makes of it."""
    if isinstance(result, dict):
        changed = _in_first_log(result["logs"], scene, change)
        return result if changed is result["logs"] else result | {"logs": changed}
    if not result:
        return result
    for at, item in enumerate(result):
        if "logs" in item:
            changed = _in_first_log(item["logs"], scene, change)
            if changed is not item["logs"]:
                return [*result[:at], item | {"logs": changed}, *result[at + 1 :]]
        elif scene.inside(_number(item)):
            return [*result[:at], *change(item), *result[at + 1 :]]
    return result


def _first_block(call: Call, scene: Scene) -> ScriptedBlock | None:
    """The first block a call is about for which the behaviour is switched on; not the genesis block."""
    if call.heights is None:
        return None
    first = max(call.heights.start, scene.first or 0, 1)
    block = call.block if call.block is not None else scene.view.block(first)
    return block if block is not None and block.number in call.heights and scene.inside(block.number) else None


def _log_of(block: ScriptedBlock) -> Json:
    """A log with its place in this block: of its last transaction, or of one that does not exist."""
    last = block.transactions[-1]["hash"] if block.transactions else "0x" + shake_256(b"none").hexdigest(32)
    return {
        "data": "0x" + "00" * 31 + "2a",
        "blockHash": block.hash,
        "blockNumber": block.header.number,
        "blockTimestamp": block.header.timestamp,
        "transactionHash": last,
        "transactionIndex": hex(max(0, len(block.transactions) - 1)),
        "removed": False,
    }


def _denied(block: ScriptedBlock, wanted: Sequence[frozenset[str] | None]) -> list[str]:
    """Two topics (those asked for where any are) of which at least one is not in the block's bloom, if that can be."""
    header = int(block.header.logs_bloom, 16)
    for salt in range(1_000):
        made = [f"0x{'00' * 12}{shake_256(f'{block.hash}/{salt}/{at}'.encode()).hexdigest(20)}" for at in (1, 2)]
        topics = [min(asked) if at < len(wanted) and (asked := wanted[at]) else made[at - 1] for at in (1, 2)]
        if not bloom.contains(header, bloom.of_values(topics)):
            return topics
    return topics
