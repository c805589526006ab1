const { Token } = require("generated");

Token.Transfer.handler(async ({ event, context }) => {
  context.Transfer.set({
    id: `${event.block.number}_${event.logIndex}`,
    block: event.block.number,
    logIndex: event.logIndex,
    transaction: event.transaction.hash,
    token: event.srcAddress,
    sender: event.params.from,
    receiver: event.params.to,
    value: event.params.value,
  });
});
