// squid-sdk over plain RPC into Postgres. Expects BENCH_RPC, BENCH_HEAD and the DB_… variables of typeorm-config.
"use strict";
const { EvmBatchProcessor } = require("@subsquid/evm-processor");
const { TypeormDatabase } = require("@subsquid/typeorm-store");
const { Transfer } = require("./lib/model");

const TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

function row(block, log) {
  return new Transfer({
    id: log.id,
    block: block.header.height,
    logIndex: log.logIndex,
    transaction: log.transactionHash,
    token: log.address,
    sender: "0x" + log.topics[1].slice(26),
    receiver: "0x" + log.topics[2].slice(26),
    value: BigInt(log.data).toString(),
  });
}

new EvmBatchProcessor()
  .setRpcEndpoint({ url: process.env.BENCH_RPC, capacity: 10, maxBatchCallSize: 100, rateLimit: 100000 })
  .setFinalityConfirmation(0)
  .setBlockRange({ from: 0, to: Number(process.env.BENCH_HEAD) })
  .setFields({ log: { transactionHash: true } })
  .addLog({ topic0: [TRANSFER] })
  .run(new TypeormDatabase({ supportHotBlocks: false }), async (context) => {
    const rows = context.blocks.flatMap((block) => block.logs.map((log) => row(block, log)));
    await context.store.insert(rows);
  });
