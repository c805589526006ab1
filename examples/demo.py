"""What `make demo` shows: the balances example from nothing to its last block, and what it found.

Runs the commands a user would type, in examples/balances, on the recorded chain: no node, no network.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from balances.check import differences

from gapless import examples
from gapless.sources.evm.recording import Truth, read_recording

FOLDER = Path(__file__).parent / "balances"
DATABASE = FOLDER / "balances.db"
LAST_BLOCK = 408
RUN_SECONDS_MAX = 50.0
TOP = 5


def gapless(*arguments: str) -> str:
    """Run a command on the example and return what it prints. Ends the demo when it fails."""
    print(f"$ python app.py {' '.join(arguments)}", flush=True)
    done = subprocess.run(  # noqa: S603 this interpreter, on the example
        [sys.executable, "app.py", *arguments],
        cwd=FOLDER,
        env={**os.environ, "GAPLESS_TELEMETRY__LOG_LEVEL": "error"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout)
        sys.exit(f"The demo failed: that command exited with {done.returncode}.")
    return done.stdout


def show(name: str, what: str) -> None:
    print(f"  {name:<11} {what}")


def show_status(truth: Truth) -> None:
    """Blocks, reorgs and transfers, beside what the recording says must be there."""
    found: dict[str, Any] = json.loads(gapless("status", "--json"))
    source, tables = found["sources"]["mainnet"], found["tables"]
    expect("blocks", source["evidence"]["proved"], truth.blocks)
    show("blocks", f"0 to {source['indexed']}, all {source['evidence']['proved']} proved by their hashes")
    expect("transfers", tables["token_transfer"]["rows"], truth.transfers)
    show("transfers", f"{truth.transfers:,}")
    expect("reorgs", source["reorgs"], {"count": 1, "deepest": 6})
    show("reorgs", f"{source['reorgs']['count']}, {source['reorgs']['deepest']} blocks deep: undone and replaced")
    expect("gaps", source["gaps"], [])
    show("gaps", "none")


def show_balances() -> None:
    """The largest holders, after every balance was compared with the contract's own word."""
    count, wrong = differences(DATABASE)
    expect("wrong balances", wrong, [])
    show("holders", f"{count}, each with the balance that the token contract itself answers (balanceOf)")
    with closing(sqlite3.connect(DATABASE)) as connection:
        found = {holder: int(balance) for holder, balance in connection.execute("select holder, balance from holding")}
    for holder in sorted(found, key=found.__getitem__, reverse=True)[:TOP]:
        show("", f"{holder}  {found[holder] // 10**18:>45,}")


def expect(name: str, found: Any, right: Any) -> None:
    if found != right:
        sys.exit(f"The demo failed: {name} should be {right}, found {found}.")


def main() -> None:
    truth = read_recording(examples.path()).truth
    assert truth is not None, "the example chain comes with its truth"
    for leftover in FOLDER.glob("balances.db*"):
        leftover.unlink()
    print("A recorded chain: an ERC-20 in use. At block 401 it turns out to have forked at 395.\n")
    started = time.perf_counter()
    gapless("run", "--until", str(LAST_BLOCK))
    seconds = time.perf_counter() - started
    show_status(truth)
    digest = json.loads(gapless("digest", "--json"))["digest"]
    show("digest", f"{digest}  (the same on any machine)")
    show_balances()
    print(f"\nIndexed in {seconds:.1f} s into {os.path.relpath(DATABASE)}. Look around:")
    print("  cd examples/balances; ../../.venv/bin/python app.py status")
    print('  ../../.venv/bin/python app.py query "select * from token_transfer limit 5"')


if __name__ == "__main__":
    main()
