"""The command line of the benchmarks. Exit code 1 when any run's rows are wrong; never for a time.

python -m benchmarks                       ours: every database and job, the levels of verification, the stripped loop
python -m benchmarks peers                 ours beside every peer that can be installed, in turns
python -m benchmarks head                  from the node having a block to its rows being visible
python -m benchmarks remote                a rate-limited endpoint far away: does the indexer find the knee by itself
python -m benchmarks growth                time and memory as blocks, logs, contracts and tables grow
python -m benchmarks prove                 hashes and roots of real mainnet blocks
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from benchmarks.chain import BLOCKS

MODULES = {"head": "head", "remote": "remote", "growth": "growth", "prove": "prove"}


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given.pop(0) if given and not given[0].startswith("-") else "ours"
    if command in MODULES:
        module = importlib.import_module(f"benchmarks.{MODULES[command]}")
        return int(module.main(given))
    if command not in ("ours", "peers"):
        print(f"no such benchmark: {command}\n{__doc__}", file=sys.stderr)
        return 2
    from benchmarks import competition

    return competition.main(_competition(command, given))


def _competition(command: str, given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.set_defaults(command=command)
    parser.add_argument("--runs", type=int, default=3, help="runs of each; medians are shown")
    parser.add_argument("--only", default="", help="words that a contender's job or name must have")
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="length of the chain")
    parser.add_argument("--node", choices=("replay", "anvil"), default="replay", help="who serves the chain")
    parser.add_argument("--no-start-up", action="store_true", help="do not measure start-up apart")
    parser.add_argument("--resume", action="store_true", help="go on with what was measured before")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/ and README")
    parser.add_argument("--note", default="", help="a sentence to stand above the figures where they are written")
    parser.add_argument("--list", action="store_true", help="name the contenders, run nothing")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
