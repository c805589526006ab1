"""web3.py as its documentation shows: get_logs over ranges, the contract's own event decoding, rows into SQLite.

index.py RPC FILE
"""

import sqlite3
import sys

from web3 import HTTPProvider, Web3

SPAN = 100
rpc, file = sys.argv[1:3]
names = (("from", "address", True), ("to", "address", True), ("value", "uint256", False))
inputs = [{"name": name, "type": kind, "indexed": indexed} for name, kind, indexed in names]
abi = [{"type": "event", "name": "Transfer", "anonymous": False, "inputs": inputs}]
w3 = Web3(HTTPProvider(rpc, request_kwargs={"timeout": 120}))
event = w3.eth.contract(abi=abi).events.Transfer()
topic = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
database = sqlite3.connect(file)
database.execute("pragma journal_mode = wal")
database.execute(
    "create table transfer (block integer, log_index integer, tx text, token text, sender text, receiver text,"
    " value text, primary key (block, log_index)) without rowid"
)
head = w3.eth.block_number
for first in range(0, head + 1, SPAN):
    logs = w3.eth.get_logs({"fromBlock": first, "toBlock": min(first + SPAN - 1, head), "topics": [topic]})
    rows = []
    for log in map(event.process_log, logs):
        moved = log["args"]
        place = (log["blockNumber"], log["logIndex"], log["transactionHash"].to_0x_hex(), log["address"])
        rows.append((*place, moved["from"], moved["to"], str(moved["value"])))
    with database:
        database.executemany("insert into transfer values (?, ?, ?, ?, ?, ?, ?)", rows)
