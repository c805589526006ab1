"""docs/reference/mutants.md: the catalogue as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tests.mutation.mutant import Mutant

PAGE = Path("docs/reference/mutants.md")

_INTRODUCTION = """\
# Mutants

Faults that are put into a copy of the safety code, one at a time, to show that the tests notice them. `make mutation`
runs the named test on each: it must pass without the fault and fail with it. A fault that survives fails the gate.

This page is written by `python -m tests.mutation --write` from `tests/mutation/`: {count} faults in {files} files.
"""


def render(mutants: Sequence[Mutant]) -> str:
    """The page."""
    parts = [_INTRODUCTION.format(count=len(mutants), files=len({m.file for m in mutants}))]
    for file, group in groupby(sorted(mutants, key=lambda m: m.file), key=lambda m: m.file):
        parts.append(f"\n## {file}\n\n| mutant | what is broken | killed by |\n|---|---|---|\n")
        parts += [f"| `{m.id}` | {_cell(m.why)} | `{_cell(m.killer)}` |\n" for m in group]
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
