"""A JSON-RPC call as a node understands it: what it asks for, and which blocks it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gapless.testing.block import ScriptedBlock
from gapless.testing.chain import ScriptedChain

INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
SERVER_ERROR = -32000


class RpcFault(Exception):
    """A JSON-RPC error to be answered."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class View:
    """What a node shows of its chain at one moment."""

    chain: ScriptedChain
    height: int
    """Its newest block: may lie below the chain's."""
    chain_id: int
    genesis: ScriptedBlock | None = None
    """Shown in the place of the real one."""
    highest: int | None = None
    """While the node is syncing: the height it says it will reach."""

    def block(self, number: int) -> ScriptedBlock | None:
        if number == 0 and self.genesis is not None:
            return self.genesis
        return self.chain.block(number) if number <= self.height else None

    def by_hash(self, block_hash: str) -> ScriptedBlock | None:
        block = self.chain.by_hash(block_hash)
        return block if block is not None and block.number <= self.height else None

    def resolve(self, name: Any, argument: int = 0) -> int | None:
        """The height behind a number or tag. None for a tag the chain does not know. Raises RpcFault."""
        if name in ("pending", "latest"):
            return self.height
        if name in ("earliest", "safe", "finalized"):
            return self.chain.tag(name, self.height)
        return quantity(name, argument)


@dataclass(frozen=True, slots=True)
class LogFilter:
    """`eth_getLogs` parameters: lower-case text; None matches anything, and a log may have more topics than given."""

    addresses: frozenset[str] | None
    topics: tuple[frozenset[str] | None, ...]
    block_hash: str | None = None

    def matches(self, address: str, topics: Sequence[str]) -> bool:
        if self.addresses is not None and address not in self.addresses:
            return False
        if len(topics) < len(self.topics):
            return False
        return all(wanted is None or topics[at] in wanted for at, wanted in enumerate(self.topics))


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    params: Sequence[Any]
    heights: range | None = None
    """The blocks it is about, where it is about any."""
    block: ScriptedBlock | None = None
    """The one block asked for, where there is one; None if the node does not have it."""
    filter: LogFilter | None = None


# --- reading parameters --------------------------------------------------------------------------------------------


def quantity(value: Any, argument: int) -> int:
    """A `0x…` number. Raises RpcFault as go-ethereum words it."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise RpcFault(INVALID_PARAMS, f"invalid argument {argument}: hex string without 0x prefix")
    try:
        return int(value, 16)
    except ValueError:
        raise RpcFault(INVALID_PARAMS, f"invalid argument {argument}: invalid hex string") from None


def data(value: Any, size: int, argument: int) -> str:
    """`0x…` text of so many bytes, made lower-case. Raises RpcFault."""
    quantity(value, argument)
    if len(value) != 2 + 2 * size:
        raise RpcFault(
            INVALID_PARAMS, f"invalid argument {argument}: hex string has length {len(value) - 2}, want {2 * size}"
        )
    return str(value).lower()


def read_call(method: str, params: Any, view: View) -> Call:
    """Understand a call. Raises RpcFault where its parameters make no sense."""
    if not isinstance(params, list):
        raise RpcFault(INVALID_PARAMS, "non-array args")
    reader = _READERS.get(method)
    if reader is None:
        return Call(method, params)
    if not params:
        raise RpcFault(INVALID_PARAMS, "missing value for required argument 0")
    return reader(method, params, view)


def _block_by_number(method: str, params: Sequence[Any], view: View) -> Call:
    if len(params) < 2:
        raise RpcFault(INVALID_PARAMS, "missing value for required argument 1")
    number = view.resolve(params[0])
    if number is None:
        raise RpcFault(-39001, f"{params[0]} block not found")
    return Call(method, params, range(number, number + 1), view.block(number))


def _block_by_hash(method: str, params: Sequence[Any], view: View) -> Call:
    block = view.by_hash(data(params[0], 32, 0))
    return Call(method, params, None if block is None else range(block.number, block.number + 1), block)


def _block_by_either(method: str, params: Sequence[Any], view: View) -> Call:
    """A number, a tag, a hash, or an object with one of these (EIP-1898)."""
    which = params[0]
    if isinstance(which, dict):
        which = which.get("blockHash") or which.get("blockNumber")
    if isinstance(which, str) and len(which) == 66:
        return _block_by_hash(method, [which], view)
    return _block_by_number(method, [which, False], view)


def _by_transaction(method: str, params: Sequence[Any], view: View) -> Call:
    found = view.chain.transaction(data(params[0], 32, 0))
    block = None if found is None or found[0].number > view.height else found[0]
    return Call(method, params, None if block is None else range(block.number, block.number + 1), block)


def _logs(method: str, params: Sequence[Any], view: View) -> Call:
    asked = params[0]
    if not isinstance(asked, dict):
        raise RpcFault(INVALID_PARAMS, "invalid argument 0: json: cannot unmarshal into a filter")
    block_hash = asked.get("blockHash")
    wanted = LogFilter(_addresses(asked.get("address")), _topics(asked.get("topics")), block_hash)
    if block_hash is not None:
        if "fromBlock" in asked or "toBlock" in asked:
            raise RpcFault(
                INVALID_PARAMS,
                "invalid argument 0: cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other",
            )
        block = view.by_hash(data(block_hash, 32, 0))
        if block is None:
            raise RpcFault(SERVER_ERROR, "unknown block")
        return Call(method, params, range(block.number, block.number + 1), block, wanted)
    first, last = view.resolve(asked.get("fromBlock", "latest")), view.resolve(asked.get("toBlock", "latest"))
    if first is None or last is None:
        raise RpcFault(-39001, "block not found")
    if first > last:
        raise RpcFault(SERVER_ERROR, "invalid block range params")
    return Call(method, params, range(first, last + 1), None, wanted)


def _addresses(asked: Any) -> frozenset[str] | None:
    if asked is None or asked == []:
        return None
    return frozenset(data(address, 20, 0) for address in (asked if isinstance(asked, list) else [asked]))


def _topics(asked: Any) -> tuple[frozenset[str] | None, ...]:
    if asked is None:
        return ()
    if not isinstance(asked, list) or len(asked) > 4:
        raise RpcFault(INVALID_PARAMS, "invalid argument 0: exceed max topics")
    found: list[frozenset[str] | None] = []
    for place in asked:
        if place is None or place == []:
            found.append(None)
        else:
            found.append(frozenset(data(topic, 32, 0) for topic in (place if isinstance(place, list) else [place])))
    while found and found[-1] is None:
        found.pop()  # go-ethereum would demand the topic's presence; Anvil, Erigon and others do not
    return tuple(found)


_READERS = {
    "eth_getBlockByNumber": _block_by_number,
    "eth_getBlockByHash": _block_by_hash,
    "eth_getBlockReceipts": _block_by_either,
    "eth_getTransactionReceipt": _by_transaction,
    "eth_getTransactionByHash": _by_transaction,
    "eth_getLogs": _logs,
}
