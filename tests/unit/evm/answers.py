"""What a node answers about two real, linked blocks, by every call, for tests to tamper with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from gapless.sources.evm import verify
from gapless.sources.evm.types import FullBlock, Header, Log, LogClause, Verify
from gapless.sources.evm.verify import ChainHashing
from unit.evm.real_blocks import TRANSFERS, pair

FIRST, LAST = 22431083, 22431084
OTHER_HASH = "0x" + "12" * 32


@dataclass
class Answer:
    """What a node answers for the pair, by every call; tamper with it and let the checks look at it."""

    headers: list[Any] = field(default_factory=lambda: [real.full for real in pair()])
    receipts: list[list[Any]] = field(default_factory=lambda: [real.typed_receipts for real in pair()])
    clauses: tuple[LogClause, ...] = TRANSFERS
    level: Verify = Verify.CHECKED
    hashing: ChainHashing = verify.ETHEREUM

    def __post_init__(self) -> None:
        every = [log for receipts in self.receipts for receipt in receipts for log in receipt.logs]
        self.logs = verify.matching(every, self.clauses)
        """The filtered ones."""
        self.all_logs = [[log for receipt in receipts for log in receipt.logs] for receipts in self.receipts]

    @property
    def block(self) -> FullBlock:
        found: FullBlock = self.headers[1]
        return found

    def check_headers(self, parent_id: str | None = None) -> list[Header]:
        return verify.check_headers(self.headers, FIRST, LAST, parent_id, self.level, self.hashing)

    def check_block(self) -> None:
        verify.check_block(self.block, self.level, self.hashing)

    def check_receipts(self) -> list[Log]:
        transactions = self.block.transactions
        return verify.check_receipts(self.block, transactions, self.receipts[1], self.level, self.hashing)

    def check_filtered(self) -> tuple[list[list[Log]], list[int]]:
        return verify.check_filtered_logs(self.headers, self.logs, self.clauses, self.level, self.hashing)

    def check_all(self) -> list[Log]:
        return verify.check_all_logs(self.block, self.all_logs[1], self.hashing)

    def replace_receipt(self, index: int, **fields: Any) -> None:
        """A receipt of the second block with other fields."""
        self.receipts[1][index] = msgspec.structs.replace(self.receipts[1][index], **fields)
