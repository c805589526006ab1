"""One row an event."""

from benchdip.models import Transfer
from benchdip.types.erc20.evm_events.transfer import TransferPayload
from dipdup.context import HandlerContext
from dipdup.models.evm import EvmEvent


async def on_transfer(ctx: HandlerContext, event: EvmEvent[TransferPayload]) -> None:  # noqa: ARG001
    data, moved = event.data, event.payload
    await Transfer.create(
        id=data.level * 100_000 + data.log_index,
        block=data.level,
        log_index=data.log_index,
        transaction=data.transaction_hash,
        token=data.address,
        sender=moved.from_,
        receiver=moved.to,
        value=str(moved.value),
    )
