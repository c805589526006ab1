"""The oracle: which ERC-20 Transfer rows a chain's tables must hold, and the balances that follow.

Deliberately naive and independent of everything it is compared with: it reads logs as JSON, one by one, slices
words by hand, and knows nothing of forks (the canonical chain is what there is)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gapless.testing.block import NOBODY, TRANSFER_TOPIC, ScriptedBlock
from gapless.testing.chain import ScriptedChain


@dataclass(frozen=True, slots=True, order=True)
class TransferRow:
    """One Transfer, with the columns of the table `<contract>_transfer` in their order. Integers are exact."""

    block_number: int
    block_timestamp: int
    """Seconds since 1970 UTC."""
    block_hash: str
    transaction_hash: str
    transaction_index: int
    log_index: int
    address: str
    from_: str
    to_: str
    value: int


@dataclass(frozen=True, slots=True)
class Fold:
    transfers: list[TransferRow]
    """In chain order."""
    balances: dict[tuple[str, str], int]
    """(token, holder) → base units. Holders that have nothing left are there with 0; the zero address is not."""

    def balance(self, token: str, holder: str) -> int:
        return self.balances.get((token, holder), 0)


def fold(chain: ScriptedChain, *, address: str | None = None, first: int = 0, last: int | None = None) -> Fold:
    """What the canonical blocks first..last of a scripted chain amount to; of one contract, or of all."""
    blocks = chain.blocks(first, last)
    return fold_logs((log for block in blocks for log in _as_served(block)), address=address)


def _as_served(block: ScriptedBlock) -> list[dict[str, Any]]:
    logs: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(block.logs))
    return logs


def fold_logs(logs: Iterable[Mapping[str, Any]], *, address: str | None = None) -> Fold:
    """The same over logs as `eth_getLogs` answers, from any node. Each log must carry its `blockTimestamp`."""
    transfers: list[TransferRow] = []
    balances: dict[tuple[str, str], int] = {}
    for log in logs:
        token, topics, data = log["address"].lower(), log["topics"], log["data"]
        if address is not None and token != address.lower():
            continue
        if len(topics) != 3 or topics[0] != TRANSFER_TOPIC or len(data) != 66:
            continue  # another event, or an ERC-721 transfer, whose topic is the same
        giver, taker, value = "0x" + topics[1][26:], "0x" + topics[2][26:], int(data, 16)
        transfers.append(
            TransferRow(
                block_number=int(log["blockNumber"], 16),
                block_timestamp=int(log["blockTimestamp"], 16),
                block_hash=log["blockHash"],
                transaction_hash=log["transactionHash"],
                transaction_index=int(log["transactionIndex"], 16),
                log_index=int(log["logIndex"], 16),
                address=token,
                from_=giver,
                to_=taker,
                value=value,
            )
        )
        balances[token, giver] = balances.get((token, giver), 0) - value
        balances[token, taker] = balances.get((token, taker), 0) + value
    return Fold(sorted(transfers), {key: value for key, value in balances.items() if key[1] != NOBODY})
