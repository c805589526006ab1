import { onchainTable } from "ponder";

export const transfer = onchainTable("transfer", (column) => ({
  id: column.text().primaryKey(),
  block: column.bigint().notNull(),
  logIndex: column.integer().notNull(),
  transaction: column.hex().notNull(),
  token: column.hex().notNull(),
  sender: column.hex().notNull(),
  receiver: column.hex().notNull(),
  value: column.bigint().notNull(),
}));
