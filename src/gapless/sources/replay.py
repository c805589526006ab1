"""A recorded chain in the place of a node: JSON-RPC answered in the process, without a network.

`kind = "replay"` is the EVM source over this transport, so that verification, reorg handling and the engine run the
path they run against a live node. The recording's script moves the head, without a clock: to the next step

- when the head is asked for after the logs or receipts of the present tip were served, or
- when the head is asked for the third time with no other block in between: whoever asks has all it wants.

So an indexer sees every step, the fork among them, however fast or slow it is, and a repeated run is the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from gapless.clock import Clock, SystemClock
from gapless.model import Cursor
from gapless.sources.evm.recording import RecordedBlock, RecordedLog, Recording, joined, read_recording
from gapless.sources.evm.transport import Answer

IDLE_HEADS_MAX = 3
MATCHES_KEPT_MAX = 8192
"""How many blocks' answers to a filter are kept, the least used dropped: an indexer asks with few filters."""
_Choices = frozenset[str]
_HEADERS = {"content-type": "application/json"}
_HEAD_TAGS = frozenset({"latest", "pending"})
_STANDING = _HEAD_TAGS | {"safe", "finalized", "earliest", "0x0"}
_CONTENT_METHODS = frozenset(
    {
        "eth_getBlockByHash",
        "eth_getBlockByNumber",
        "eth_getBlockReceipts",
        "eth_getLogs",
        "eth_getTransactionByHash",
        "eth_getTransactionReceipt",
    }
)
_NULL = b"null"


class _Call(msgspec.Struct):
    method: str
    id: msgspec.Raw = msgspec.Raw(_NULL)
    params: list[Any] = []


_CALL = msgspec.json.Decoder(_Call)
_CALLS = msgspec.json.Decoder(list[_Call])


class Refusal(Exception):
    """A call the node would answer with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


def open_recording(path: str | Path, *, clock: Clock | None = None) -> ReplayTransport:
    """A transport that answers from the recording in a file. Raises ConfigError for a file that is not one."""
    return ReplayTransport(read_recording(Path(path)), label=f"replay:{Path(path).name}", clock=clock)


class ReplayTransport:
    """Answers as a node would that has exactly the recorded chain, at one step of its script at a time."""

    def __init__(self, recording: Recording, *, label: str = "replay", clock: Clock | None = None) -> None:
        self.label = label
        self.recording = recording
        self._clock = clock or SystemClock()
        self._stand_at(0)
        self._matching = lru_cache(MATCHES_KEPT_MAX)(_matching)
        self._methods: dict[str, Callable[[list[Any]], bytes]] = {
            "eth_blockNumber": lambda _: _quantity(len(self._chain) - 1),
            "eth_chainId": lambda _: _quantity(recording.title.chain_id),
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getLogs": self._logs,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_syncing": lambda _: b"false",
            "net_version": lambda _: msgspec.json.encode(str(recording.title.chain_id)),
            "web3_clientVersion": lambda _: msgspec.json.encode(f"gapless-replay ({recording.title.client})"),
        }

    def __repr__(self) -> str:
        return f"ReplayTransport({self.label}, step {self.step + 1} of {len(self.recording.chains)})"

    async def post(self, body: bytes, timeout_seconds: float) -> Answer:  # noqa: ARG002 the protocol's; never late
        """One request or a batch. Fails only in what a node would refuse too."""
        await self._clock.sleep(0)  # an answer that never waits would starve every other task of the loop
        return Answer(200, _HEADERS, self.answer(body))

    async def close(self) -> None:
        """Nothing is open."""

    def answer(self, body: bytes) -> bytes:
        """The body of the answer to one request or a batch."""
        batch = body.lstrip()[:1] == b"["
        try:
            calls = _CALLS.decode(body) if batch else [_CALL.decode(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _refused(_NULL, Refusal(-32700, f"not a JSON-RPC request: {error}"))
        if not calls:
            return _refused(_NULL, Refusal(-32600, "an empty batch"))
        self._follow_script(calls)
        answers = [self._call(call) for call in calls]
        return joined(answers) if batch else answers[0]

    def _call(self, call: _Call) -> bytes:
        method = self._methods.get(call.method)
        try:
            if method is None:
                raise Refusal(-32601, f"the method {call.method} does not exist")
            result = method(call.params)
        except Refusal as refusal:
            return _refused(call.id, refusal)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            return _refused(call.id, Refusal(-32602, f"bad parameters for {call.method}: {error}"))
        return b"".join((b'{"jsonrpc":"2.0","id":', bytes(call.id), b',"result":', result, b"}"))

    def _follow_script(self, calls: list[_Call]) -> None:
        """Move to the next step where the script says so; before answering, so that a batch sees one chain."""
        if not all(_is_housekeeping(call) for call in calls):
            self._idle_heads = 0
        if not any(_asks_head(call) for call in calls):
            return
        self._idle_heads += 1
        due = self._tip_served or self._idle_heads >= IDLE_HEADS_MAX
        if due and self.step + 1 < len(self.recording.chains):
            self._stand_at(self.step + 1)

    def _stand_at(self, step: int) -> None:
        self.step = step
        self._chain = self.recording.chains[step]
        self._tip_served = False
        self._idle_heads = 0

    def seek(self, known: Cursor) -> None:
        """Start at the first step whose chain has this block: for an indexer that was here before, to which the head
        of an earlier step would look like a chain that went back. Without effect when no step has it."""
        for step, chain in enumerate(self.recording.chains):
            if 0 <= known.position < len(chain) and chain[known.position].hash == known.id:
                self._stand_at(step)
                return

    # --- what is asked for -----------------------------------------------------------------------------------------

    def _at(self, number: str) -> RecordedBlock | None:
        """The block of a number or tag on the present chain."""
        step = self.recording.title.steps[self.step]
        tags = {"earliest": 0, "finalized": step.finalized, "safe": step.safe}
        at = len(self._chain) - 1 if number in _HEAD_TAGS else tags[number] if number in tags else int(number, 16)
        return self._chain[at] if 0 <= at < len(self._chain) else None

    def _hashed(self, block_hash: str) -> RecordedBlock | None:
        """The block of a hash, while it is on the present chain: a node forgets the others at once."""
        block = self.recording.blocks.get(block_hash.lower())
        on_chain = block is not None and block.number < len(self._chain) and self._chain[block.number] is block
        return block if on_chain else None

    def _serve_contents(self, block: RecordedBlock) -> None:
        self._tip_served = self._tip_served or block is self._chain[-1]

    def _block_by_number(self, params: list[Any]) -> bytes:
        return _block_json(self._at(params[0]), params[1:])

    def _block_by_hash(self, params: list[Any]) -> bytes:
        return _block_json(self._hashed(params[0]), params[1:])

    def _block_receipts(self, params: list[Any]) -> bytes:
        block = self._named(params[0])
        if block is None:
            return _NULL
        self._serve_contents(block)
        return block.receipts

    def _named(self, name: str | dict[str, str]) -> RecordedBlock | None:
        """A block by number, tag, hash, or EIP-1898 object."""
        if isinstance(name, dict):
            name = name.get("blockHash") or name["blockNumber"]
        return self._hashed(name) if len(name) == 66 else self._at(name)

    def _receipt(self, params: list[Any]) -> bytes:
        return self._of_transaction(params[0].lower(), lambda block: block.receipt_of)

    def _transaction(self, params: list[Any]) -> bytes:
        return self._of_transaction(params[0].lower(), lambda block: block.transaction_of)

    def _of_transaction(self, wanted: str, forms: Callable[[RecordedBlock], dict[str, bytes]]) -> bytes:
        for block in reversed(self._chain):
            found = forms(block).get(wanted)
            if found is not None:
                self._serve_contents(block)
                return found
        return _NULL

    def _logs(self, params: list[Any]) -> bytes:
        """eth_getLogs: `address` one or a list, `topics` by place with null for any and a list for one of."""
        wanted = params[0]
        blocks = self._log_blocks(wanted)
        for block in blocks[-1:]:
            self._serve_contents(block)
        address, topics = wanted.get("address"), wanted.get("topics") or []
        if address is None and not topics:
            return joined(block.logs_joined for block in blocks)
        addresses = None if address is None else _choices(address)
        places = tuple(None if topic is None else _choices(topic) for topic in topics)
        return joined(self._matching(block, addresses, places) for block in blocks)

    def _log_blocks(self, wanted: dict[str, Any]) -> tuple[RecordedBlock, ...]:
        if wanted.get("blockHash") is not None:
            block = self._hashed(wanted["blockHash"])
            if block is None:
                raise Refusal(-32000, "unknown block")
            return (block,)
        first, last = (self._bound(wanted.get(key) or "latest") for key in ("fromBlock", "toBlock"))
        if first >= len(self._chain):
            raise Refusal(-32602, f"the head is {len(self._chain) - 1} but the range starts at {first}")
        return self._chain[first : last + 1]

    def _bound(self, name: str) -> int:
        """The number a bound of a range means; beyond the head where it says so."""
        block = self._at(name)
        return int(name, 16) if block is None else block.number


def _block_json(block: RecordedBlock | None, rest: list[Any]) -> bytes:
    if block is None:
        return _NULL
    return block.full if rest[:1] == [True] else block.header


def _choices(value: str | list[str]) -> _Choices:
    return frozenset(v.lower() for v in ([value] if isinstance(value, str) else value))


def _matching(block: RecordedBlock, addresses: _Choices | None, places: tuple[_Choices | None, ...]) -> bytes:
    """The block's logs that a filter asks for, as the inside of a JSON array."""
    return b",".join(log.json for log in block.logs if _matches(log, addresses, places))


def _matches(log: RecordedLog, addresses: _Choices | None, places: tuple[_Choices | None, ...]) -> bool:
    if addresses is not None and log.address not in addresses:
        return False
    if len(log.topics) < len(places):  # as the specification has it; Anvil lets trailing nulls match anything
        return False
    return all(allowed is None or topic in allowed for allowed, topic in zip(places, log.topics, strict=False))


def _asks_head(call: _Call) -> bool:
    return call.method == "eth_blockNumber" or _names_block(call, _HEAD_TAGS)


def _is_housekeeping(call: _Call) -> bool:
    """Looks at the head, at what is final, and at who we are: all that an idle indexer does."""
    return call.method not in _CONTENT_METHODS or _names_block(call, _STANDING)


def _names_block(call: _Call, names: frozenset[str]) -> bool:
    return call.method == "eth_getBlockByNumber" and bool(call.params) and call.params[0] in names


def _quantity(number: int) -> bytes:
    return b'"' + hex(number).encode() + b'"'


def _refused(call_id: bytes | msgspec.Raw, refusal: Refusal) -> bytes:
    error = msgspec.json.encode({"code": refusal.code, "message": str(refusal)})
    return b'{"jsonrpc":"2.0","id":' + bytes(call_id) + b',"error":' + error + b"}"
