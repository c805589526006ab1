"""Examples that come with Gapless: a recorded chain, and a configuration that indexes it."""

from __future__ import annotations

from pathlib import Path

RECORDED_CHAIN = "erc20/chain.jsonl.gz"
"""409 blocks of an ERC-20 in use, with a reorg of depth six. `tools/record_example.py` made it."""


def path(name: str = RECORDED_CHAIN) -> Path:
    """Where a file of the examples lies in the installed package."""
    return Path(__file__).parent / name
