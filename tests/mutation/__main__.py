"""`python -m tests.mutation`: run the gate; `--write` renews docs/reference/mutants.md, ids run only these mutants."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.mutation.catalogue import MUTANTS
from tests.mutation.gate import gate
from tests.mutation.page import PAGE, render

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Check the checkers.")
    parser.add_argument("ids", nargs="*", help="only these mutants: all whose ids start so")
    parser.add_argument("--workers", type=int, default=(os.cpu_count() or 1) + 1)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE} and run nothing")
    chosen = parser.parse_args()
    if chosen.write:
        (CHECKOUT / PAGE).write_text(render(MUTANTS))
        return 0
    mutants = [m for m in MUTANTS if not chosen.ids or m.id.startswith(tuple(chosen.ids))]
    if not mutants:
        parser.error(f"no mutant has an id that starts with {' or '.join(chosen.ids)}")
    return gate(CHECKOUT, mutants, workers=chosen.workers)


if __name__ == "__main__":
    sys.exit(main())
