"""The JSON-RPC methods a fake node knows, within its limits, answered as go-ethereum and Anvil answer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.types import Log
from gapless.testing.block import ScriptedBlock
from gapless.testing.calls import INVALID_PARAMS, METHOD_NOT_FOUND, SERVER_ERROR, Call, RpcFault, View
from gapless.testing.fold import fold

BALANCE_OF = "0x" + keccak256(b"balanceOf(address)")[:4].hex()
CLIENT = "GaplessFakeNode/v1.0.0"

_encode = msgspec.json.encode
_NULL = b"null"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider refuses; None: no limit. Codes and wording are those real providers use."""

    range_blocks_max: int | None = None
    """Blocks in one `eth_getLogs`. Beyond: -32602, as most nodes and gateways."""
    results_max: int | None = None
    """Logs in one answer. Beyond: -32005 with a suggested range, as Infura."""
    batch_max: int | None = None
    """Calls in one request. Beyond: -32600 for the whole batch, as go-ethereum."""
    request_bytes_max: int | None = 5_242_880
    """Size of a request's body; the default is go-ethereum's. Beyond: HTTP 413."""
    answer_bytes_max: int | None = None
    """Size of one result. Beyond: -32008, as nodes built on jsonrpsee."""
    requests_per_second: float | None = None
    """HTTP requests. Beyond: HTTP 429 with Retry-After."""
    pruned_below: int = 0
    """Blocks below this height have lost bodies, receipts and logs."""
    pruned_is_null: bool = False
    """Asked for pruned blocks, the node answers null or nothing, instead of error 4444 of EIP-4444 nodes."""
    missing_methods: frozenset[str] = frozenset()
    """Answered with -32601."""


class Methods:
    """Answers calls over a view of a chain."""

    def __init__(self) -> None:
        self._balances: tuple[tuple[str, str], dict[tuple[str, str], int]] | None = None
        self._table: dict[str, Callable[[Call, View, Limits], bytes]] = {
            "eth_blockNumber": lambda _, view, __: _encode(hex(view.height)),
            "eth_call": self._call,
            "eth_chainId": lambda _, view, __: _encode(hex(view.chain_id)),
            "eth_getBlockByHash": _block,
            "eth_getBlockByNumber": _block,
            "eth_getBlockReceipts": _receipts,
            "eth_getLogs": _logs,
            "eth_getTransactionByHash": _transaction,
            "eth_getTransactionReceipt": _receipt,
            "eth_syncing": _syncing,
            "net_version": lambda _, view, __: _encode(str(view.chain_id)),
            "web3_clientVersion": lambda _, __, ___: _encode(CLIENT),
        }

    def answer(self, call: Call, view: View, limits: Limits) -> bytes:
        """The result as JSON. Raises RpcFault."""
        answer = self._table.get(call.method)
        if answer is None or call.method in limits.missing_methods:
            raise RpcFault(METHOD_NOT_FOUND, f"the method {call.method} does not exist/is not available")
        result = answer(call, view, limits)
        if limits.answer_bytes_max is not None and len(result) > limits.answer_bytes_max:
            raise RpcFault(-32008, "Response is too big")
        return result

    def _call(self, call: Call, view: View, _: Limits) -> bytes:
        """`balanceOf(address)` of any contract that emitted transfers: their fold. Anything else has no code."""
        if not call.params or not isinstance(call.params[0], dict):
            raise RpcFault(INVALID_PARAMS, "missing value for required argument 0")
        asked = call.params[0]
        code = str(asked.get("data") or asked.get("input") or "0x").lower()
        number = view.resolve(call.params[1] if len(call.params) > 1 else "latest", 1)
        block = None if number is None else view.block(number)
        if block is None:
            raise RpcFault(SERVER_ERROR, "header not found")
        token = str(asked.get("to", "")).lower()
        if not code.startswith(BALANCE_OF) or len(code) != 74:
            return _encode("0x")
        if self._balances is None or self._balances[0] != (block.hash, token):
            balances = fold(view.chain, address=token, last=block.number).balances
            self._balances = ((block.hash, token), balances)
        balances = self._balances[1]
        return _encode(f"0x{balances.get((token, '0x' + code[34:]), 0) % 2**256:064x}" if balances else "0x")


def _block(call: Call, view: View, limits: Limits) -> bytes:
    full = len(call.params) > 1 and bool(call.params[1])
    if call.params[0] == "pending":
        return view.chain.pending().json(full=full)
    if call.block is None:
        return _NULL
    if full and _pruned(call, limits):
        return _NULL
    return call.block.json(full=full)


def _receipts(call: Call, _: View, limits: Limits) -> bytes:
    if call.block is None or call.params[0] == "pending" or _pruned(call, limits):
        return _NULL
    return call.block.receipts_json()


def _transaction(call: Call, view: View, limits: Limits) -> bytes:
    found = view.chain.transaction(call.params[0].lower())
    if call.block is None or found is None or _pruned(call, limits):
        return _NULL
    return _encode(found[0].transactions[found[1]])


def _receipt(call: Call, view: View, limits: Limits) -> bytes:
    found = view.chain.transaction(call.params[0].lower())
    if call.block is None or found is None or _pruned(call, limits):
        return _NULL
    return found[0].receipt_json(found[1])


def _logs(call: Call, view: View, limits: Limits) -> bytes:
    """Beyond the head there is nothing, and the answer does not tell: the trap that a lagging replica lays."""
    wanted, heights = call.filter, call.heights
    if wanted is None or heights is None:
        raise RpcFault(INVALID_PARAMS, "invalid argument 0")
    if limits.range_blocks_max is not None and len(heights) > limits.range_blocks_max:
        raise RpcFault(INVALID_PARAMS, f"exceed maximum block range: {limits.range_blocks_max}")
    pruned = _pruned(call, limits)
    blocks = [call.block] if call.block is not None else _blocks(view, heights)
    found: list[Log] = []
    for block in blocks:
        if pruned and block.number < limits.pruned_below:
            continue
        for receipt in block.receipts:
            found += [log for log in receipt.logs if wanted.matches(log.address, log.topics)]
        if limits.results_max is not None and len(found) > limits.results_max:
            last = max(heights.start, block.number - 1)
            raise RpcFault(
                -32005,
                f"query returned more than {limits.results_max} results. "
                f"Try with this block range [{heights.start:#x}, {last:#x}].",
            )
    return _encode(found)


def _blocks(view: View, heights: range) -> list[ScriptedBlock]:
    return view.chain.blocks(heights.start, min(heights.stop - 1, view.height))


def _syncing(_: Call, view: View, __: Limits) -> bytes:
    if view.highest is None:
        return b"false"
    return _encode(
        {"startingBlock": "0x0", "currentBlock": hex(view.height), "highestBlock": hex(view.highest)},
    )


def _pruned(call: Call, limits: Limits) -> bool:
    """Whether the call touches pruned blocks and is to be answered with nothing. Raises RpcFault otherwise."""
    if call.heights is None or call.heights.start >= limits.pruned_below:
        return False
    if limits.pruned_is_null:
        return True
    raise RpcFault(4444, "pruned history unavailable")
