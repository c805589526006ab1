import { createConfig } from "ponder";
import { erc20 } from "./abis/erc20";

const tokens = process.env.BENCH_TOKENS!.split(",") as `0x${string}`[];

export default createConfig({
  database: { kind: "postgres", connectionString: process.env.BENCH_DATABASE! },
  chains: { bench: { id: 31337, rpc: process.env.BENCH_RPC! } },
  contracts: { Token: { chain: "bench", abi: erc20, address: tokens, startBlock: 0 } },
});
