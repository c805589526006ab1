"""Receipts of whole blocks whose logs are read as columns, or, where they are not regular, taken apart after all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from gapless.errors import BadAnswer
from gapless.sources.evm.types import Header, Log, RawReceipt, Receipt

if TYPE_CHECKING:
    from gapless.sources.evm.accept import Accepted

_LOGS = msgspec.json.Decoder(list[Log])
_FIELDS = Receipt.__struct_fields__


def accepted(blocks: Sequence[Header], receipts: Sequence[Sequence[RawReceipt]], *, blooms: bool) -> Accepted | None:
    """The logs of all blocks as columns, where everything about them is in order."""
    from gapless.sources.evm.accept import accept_receipts
    from gapless.sources.evm.regular import log_table

    table = log_table([raw for of_block in receipts for receipt in of_block for raw in receipt.logs])
    return None if table is None else accept_receipts(blocks, receipts, table, blooms=blooms)


def taken_apart(receipts: Sequence[Sequence[RawReceipt]], label: str) -> list[list[Receipt]]:
    """The same with their logs as objects. Raises BadAnswer for logs of another shape."""
    try:
        return [[_with_logs(receipt) for receipt in of_block] for of_block in receipts]
    except msgspec.DecodeError as error:
        raise BadAnswer(f"{label} answered in another shape than asked for ({error})") from error


def _with_logs(receipt: RawReceipt) -> Receipt:
    values = {name: getattr(receipt, name) for name in _FIELDS}
    values["logs"] = _LOGS.decode(b"[" + b",".join(receipt.logs) + b"]")
    return Receipt(**values)
