"""What a fake node can say about blocks, receipts and itself that is not so. Each lie names the kind of incident it is
modelled on. Answers stay well-formed, as with the lies about logs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gapless.sources.evm import prove
from gapless.sources.evm.types import Header
from gapless.testing.behaviour import AnswerBehaviour, Json, Scene, ViewBehaviour, as_json, tampered
from gapless.testing.calls import Call, View

_BLOCK_METHODS = ("eth_getBlockByNumber", "eth_getBlockByHash")


def _of_block(call: Call, result: Any, scene: Scene) -> bool:
    return call.method in _BLOCK_METHODS and isinstance(result, dict) and scene.inside(int(result["number"], 16))


def _of_receipts(call: Call, result: Any, scene: Scene) -> bool:
    return call.method == "eth_getBlockReceipts" and bool(result) and scene.inside(int(result[0]["blockNumber"], 16))


def _of_receipt(call: Call, result: Any, scene: Scene) -> bool:
    return (
        call.method == "eth_getTransactionReceipt"
        and isinstance(result, dict)
        and scene.inside(int(result["blockNumber"], 16))
    )


def _full(call: Call) -> bool:
    return len(call.params) > 1 and bool(call.params[1])


# --- blocks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NullBlock(AnswerBehaviour):
    """A block that exists is answered as null. Models load-balanced nodes of which one is behind (hyperindex 1260)."""

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        return None if _of_block(call, result, scene) else result


@dataclass(frozen=True, slots=True)
class WrongNumber(AnswerBehaviour):
    """Another block than the one asked for is answered: `offset` above. Models mixed-up batches and cached answers."""

    offset: int = 1

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if not _of_block(call, result, scene):
            return result
        block = scene.view.block(int(result["number"], 16) + self.offset)
        return result if block is None else msgspec.json.decode(block.json(full=_full(call)))


@dataclass(frozen=True, slots=True)
class ForeignBlock(AnswerBehaviour):
    """The block of another fork at that height: right in itself, but its child does not link to it. Models ponder 1212
    (orphan hash served for hours by a provider)."""

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if not _of_block(call, result, scene):
            return result
        block = scene.view.chain.sibling(int(result["number"], 16))
        return result if block is None else msgspec.json.decode(block.json(full=_full(call)))


@dataclass(frozen=True, slots=True)
class Unlinked(AnswerBehaviour):
    """A header whose parent is not the block before. Models graph-node 6382 and 3817: a cache filled across a reorg.
    Its hash is the right one for what it says, unless `rehash` is off."""

    rehash: bool = True

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if not _of_block(call, result, scene):
            return result
        altered = tampered(result, "parentHash", None)
        if not self.rehash:
            return altered
        block_hash = prove.header_hash(msgspec.convert(altered, Header))
        listed = [t | {"blockHash": block_hash} if isinstance(t, dict) else t for t in altered["transactions"]]
        return altered | {"hash": block_hash, "transactions": listed}


@dataclass(frozen=True, slots=True)
class TamperedHeader(AnswerBehaviour):
    """One header field is changed under the old hash. Models the stale blooms and half-filled headers of
    asynchronously executing chains (ponder 0.16.8) and of caches. `value` None: the last digit is changed."""

    field: str = "gasUsed"
    value: Any = None

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        return tampered(result, self.field, self.value) if _of_block(call, result, scene) else result


@dataclass(frozen=True, slots=True)
class TamperedTransaction(AnswerBehaviour):
    """One field of a block's first transaction is changed. Models ponder 744: chains and providers that serve zero or
    foreign transaction hashes."""

    field: str = "value"
    value: Any = None

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if not _of_block(call, result, scene):
            return result
        listed = result["transactions"]
        if not listed or not isinstance(listed[0], dict):
            return result
        return result | {"transactions": [tampered(listed[0], self.field, self.value), *listed[1:]]}


# --- receipts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NullReceipts(AnswerBehaviour):
    """`eth_getBlockReceipts` answers null for a block the node has. Models replicas whose receipts come later than
    their headers (hyperindex 1260)."""

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        return None if _of_receipts(call, result, scene) else result


@dataclass(frozen=True, slots=True)
class NullReceipt(AnswerBehaviour):
    """`eth_getTransactionReceipt` answers null for the transaction at this index of its block. Models hyperindex 1260
    (null receipt from a lagging replica)."""

    index: int = 0

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        return None if _of_receipt(call, result, scene) and result["transactionIndex"] == hex(self.index) else result


@dataclass(frozen=True, slots=True)
class ForeignReceipts(AnswerBehaviour):
    """Receipts of another fork's block at that height. Models graph-node 3817, 4917 and 2779 (receipt block mismatch).
    `disguised`: under the canonical block's hash and transaction hashes."""

    disguised: bool = False

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        single = _of_receipt(call, result, scene)
        if not single and not _of_receipts(call, result, scene):
            return result
        right: list[Json] = [result] if single else result
        block = scene.view.chain.sibling(int(right[0]["blockNumber"], 16))
        foreign: list[Json] = [] if block is None else as_json(block.receipts)
        if single:
            foreign = foreign[int(result["transactionIndex"], 16) :][:1]
        if self.disguised:
            foreign = [_dressed(f, r) for f, r in zip(foreign, right, strict=False)]
        return result if not foreign else foreign[0] if single else foreign


def _dressed(foreign: Json, right: Json) -> Json:
    place = {name: right[name] for name in ("blockHash", "transactionHash")}
    return foreign | place | {"logs": [log | place for log in foreign["logs"]]}


@dataclass(frozen=True, slots=True)
class ReceiptsMiscounted(AnswerBehaviour):
    """One receipt too few (the last one is missing), or one too many (it comes twice). Models answers cut by a
    gateway's size limit."""

    change: Literal[-1, 1] = -1

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if not _of_receipts(call, result, scene):
            return result
        return result[:-1] if self.change < 0 else [*result, result[-1]]


@dataclass(frozen=True, slots=True)
class TamperedReceipt(AnswerBehaviour):
    """One field of a block's receipt is changed: `status`, `gasUsed`, `cumulativeGasUsed`, `transactionHash`, …
    Models providers that rebuild receipts and get a field wrong. `value` None: the last digit is changed."""

    field: str = "status"
    value: Any = None
    index: int = 0

    def alter(self, call: Call, result: Any, scene: Scene) -> Any:
        if _of_receipt(call, result, scene) and result["transactionIndex"] == hex(self.index):
            return tampered(result, self.field, self.value)
        if not _of_receipts(call, result, scene) or self.index >= len(result):
            return result
        changed = tampered(result[self.index], self.field, self.value)
        return [*result[: self.index], changed, *result[self.index + 1 :]]


# --- the whole node ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StaleReplica(ViewBehaviour):
    """The node lags `blocks` behind: what is newer does not exist for it. Models load-balanced replicas (hyperindex
    1260) and, with `syncing`, a node that catches up after a restart (ponder 2221)."""

    blocks: int = 10
    syncing: bool = False

    def view(self, view: View) -> View:
        height = max(0, view.height - self.blocks)
        return dataclasses.replace(view, height=height, highest=view.height if self.syncing else None)


@dataclass(frozen=True, slots=True)
class GoesBackwards(ViewBehaviour):
    """From now on the node's head is `height`, below what it had shown. Models restored backups (rindexer 231: node
    goes backwards, indexer bails out)."""

    height: int = 0

    def view(self, view: View) -> View:
        return dataclasses.replace(view, height=min(view.height, self.height))


@dataclass(frozen=True, slots=True)
class OtherChainId(ViewBehaviour):
    """The node says it is another chain. Models an endpoint address reassigned to another network."""

    chain_id: int = 5

    def view(self, view: View) -> View:
        return dataclasses.replace(view, chain_id=self.chain_id)


@dataclass(frozen=True, slots=True)
class OtherGenesis(ViewBehaviour):
    """Same chain id, another genesis block. Models a test network that was restarted from nothing."""

    def view(self, view: View) -> View:
        return dataclasses.replace(view, genesis=view.chain.sibling(0))
