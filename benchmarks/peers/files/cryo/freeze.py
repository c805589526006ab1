"""cryo into Parquet files, with the interpreter that has it: freeze.py RPC FOLDER HEAD DATASET"""

import sys

import cryo

TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
rpc, folder, head, dataset = sys.argv[1:5]
options = {"topic0": [TRANSFER]} if dataset == "logs" else {}
cryo.freeze(
    dataset,
    blocks=[f"0:{int(head) + 1}"],
    rpc=rpc,
    output_dir=folder,
    chunk_size=1000,
    inner_request_size=100,
    verbose=False,
    no_report=True,
    **options,
)
