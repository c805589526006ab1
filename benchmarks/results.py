"""What was measured so far, kept as it comes: a run that is interrupted goes on with `--resume`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.node import KEPT

FOLDER = KEPT / "results"


class Results:
    """Measurements by key, a line of JSON each, in a file below .tools/bench/results."""

    def __init__(self, name: str, *, resume: bool, about: dict[str, Any] | None = None) -> None:
        self.path = FOLDER / f"{name}.jsonl"
        self.about: dict[str, Any] = {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            **machine(),
            **(about or {}),
        }
        self._found: dict[str, dict[str, Any]] = {}
        FOLDER.mkdir(parents=True, exist_ok=True)
        if resume and self.path.exists():
            self._read()
            return
        if self.path.exists():
            self.path.replace(self.path.with_suffix(".previous.jsonl"))
        self._append({"about": self.about})

    def _read(self) -> None:
        for line in self.path.read_text().splitlines():
            item = json.loads(line)
            if "about" in item:
                self.about = item["about"]
            else:
                self._found[item["key"]] = item["found"]

    def _append(self, item: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(item) + "\n")

    def get(self, key: str) -> dict[str, Any] | None:
        return self._found.get(key)

    def add(self, key: str, found: dict[str, Any]) -> None:
        self._found[key] = found
        self._append({"key": key, "found": found})

    def all(self) -> dict[str, dict[str, Any]]:
        return dict(self._found)


def write_document(path: Path, about: dict[str, Any], fields: dict[str, Any]) -> None:
    """A JSON document with what it was measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, "about": about, **fields}, indent=1) + "\n")
