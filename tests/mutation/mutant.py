"""One deliberate fault, and the test that must notice it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class Stale(Exception):
    """The text that a mutant replaces is not in its file exactly once: the code has changed, the mutant has not."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault put into a copy of the code by exact replacement of text."""

    id: str
    file: str
    """Below `src/gapless/`."""
    before: str
    """Must occur in the file exactly once: short, and unique."""
    after: str
    why: str
    """What the fault is, in a few words: a row of `docs/reference/mutants.md`."""
    killer: str
    """Below `tests/`: the pytest node id of a test that fails with the fault and passes without it."""

    @property
    def path(self) -> Path:
        """Of the mutated file, from the root of the checkout."""
        return Path("src/gapless") / self.file

    @property
    def node(self) -> str:
        """The killer's node id, from the root of the checkout."""
        return f"tests/{self.killer}"

    def applied(self, text: str) -> str:
        """The file's text with the fault in it. Raises Stale."""
        found = text.count(self.before)
        if found != 1:
            raise Stale(
                f"mutant is stale: {self.id} replaces text that is {found} times in {self.path}; it must be there "
                "once. Adapt `before` and `after` to the code as it is now"
            )
        return text.replace(self.before, self.after)
