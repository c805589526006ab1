"""What an app attaches to events: functions, and the tables they write to.

Handlers are pure: they get decoded events and a `Tables` view, and must not use clocks, randomness or I/O, so that
the same blocks give the same rows on any machine, in any batching, at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gapless.schema import Nature, Table


@dataclass(frozen=True, slots=True)
class Handler:
    """A function subscribed to one event of one contract."""

    name: str
    event: str
    """`<contract>.<Event>`, as the decoder names it."""
    function: Callable[..., None]
    batch: bool = False
    """Called once per run of blocks with an Arrow RecordBatch; facts only."""
    independent: bool = False
    """A failing event goes to quarantine, and the rest goes on. Otherwise its block stops with an error."""


@dataclass(frozen=True, slots=True)
class TableBinding:
    """A user's table: the row class, and how it is stored."""

    table: Table
    row_type: type[Any]
    fields: tuple[str, ...]
    """Attributes of the row class in the order of the user's own columns."""

    @property
    def is_state(self) -> bool:
        return self.table.nature is Nature.STATE


FACT_KEY_COLUMNS = 3
"""User facts start with (position, log_index, row_index): where they came from."""
