"""What `gapless doctor` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gapless.errors import GaplessError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    fix: str | None = None

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Findings:
    """All of them, in the order they were made."""

    all: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(finding.state == "fail" for finding in self.all)

    def ok(self, check: str, detail: str) -> None:
        self.all.append(Finding(check, "ok", detail))

    def warn(self, check: str, detail: str, fix: str) -> None:
        self.all.append(Finding(check, "warn", detail, fix))

    def fail(self, check: str, detail: str, fix: str) -> None:
        self.all.append(Finding(check, "fail", detail, fix))

    def error(self, check: str, error: GaplessError) -> None:
        """A check that ended in an error, which knows its own way out."""
        where = "" if error.position is None else f" (position {error.position})"
        self.all.append(Finding(check, "fail", f"{error.what}{where}".strip(), error.todo and error.todo.strip()))
