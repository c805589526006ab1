"""Compare every balance with what the token contract itself said at the recording's last block.

python check.py [balances.db]
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from gapless import examples
from gapless.sources.evm.recording import read_recording

DATABASE = Path(__file__).with_name("balances.db")


def differences(database: Path) -> tuple[int, list[str]]:
    """How many holders were compared, and a line for each whose balance is not the contract's."""
    truth = read_recording(examples.path()).truth
    assert truth is not None, "the example chain comes with its truth"
    with closing(sqlite3.connect(database)) as connection:
        found = {holder: int(balance) for holder, balance in connection.execute("select holder, balance from holding")}
    said = {holder: int(balance) for holder, balance in truth.balances.items()}
    holders = sorted(found.keys() | said.keys())
    wrong = [
        f"{holder}: {found.get(holder, 0)} here, balanceOf is {said.get(holder, 0)}"
        for holder in holders
        if found.get(holder, 0) != said.get(holder, 0)
    ]
    return len(holders), wrong


def main() -> int:
    count, wrong = differences(Path(sys.argv[1]) if len(sys.argv) > 1 else DATABASE)
    print("\n".join(wrong) or f"All {count} balances are what the contract's balanceOf said.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
