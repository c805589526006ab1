"""`gapless repair`: fetch what is missing or damaged again, over the ordinary path."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from gapless.cli import output
from gapless.cli.gaps import find
from gapless.cli.options import ConfigOption, DryRunOption, JsonOption, Range, RangeOption, SourceOption, parse_range
from gapless.cli.project import Project, finish, load
from gapless.cli.steps import Steps
from gapless.errors import GaplessError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gapless.engine.operate import Operator
    from gapless.model import Gap
    from gapless.store import Store


@dataclass(slots=True)
class Outcome:
    """What became of one range."""

    gap: Gap
    error: GaplessError | None = None
    done: bool = False

    def document(self) -> dict[str, Any]:
        found = {"source": self.gap.source, "from": self.gap.first, "to": self.gap.last, "reason": self.gap.reason}
        return {**found, "repaired": self.done, "error": None if self.error is None else str(self.error)}

    @property
    def text(self) -> str:
        if self.error is not None:
            return str(self.error)
        return "repaired" if self.done else "would be fetched again"


def repair(
    config: ConfigOption = None,
    range_: RangeOption = None,
    source: SourceOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch missing and damaged ranges again.

    They are derived and committed as any other, so a repaired entry has the digest it had. A range that cannot be
    repaired stays in `gapless gaps`, and the exit code says so."""
    wanted = parse_range(range_)
    project = load(config)
    outcomes: list[Outcome] = []
    with project.store() as store:
        for name in project.sources(source):
            cuts = [cut(gap, wanted) for gap in find(project, store, name)]
            found = [Outcome(gap) for gap in cuts if gap is not None]
            outcomes += found
            if found and not dry_run:
                finish(_repair(project, store, name, found))
    if as_json:
        output.document({"dry_run": dry_run, "ranges": [outcome.document() for outcome in outcomes]})
    elif not outcomes:
        output.say("Nothing to repair.")
    else:
        rows = [(o.gap.source, f"{o.gap.first}..{o.gap.last}", o.gap.reason, o.text) for o in outcomes]
        output.table(("source", "range", "reason", "outcome"), rows)
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failed:
        raise typer.Exit(failed[0].exit_code)


def cut(gap: Gap, wanted: Range) -> Gap | None:
    """The part of a gap that lies in the range; None for nothing."""
    first = gap.first if wanted.first is None else max(gap.first, wanted.first)
    last = gap.last if wanted.last is None else min(gap.last, wanted.last)
    return replace(gap, first=first, last=last) if first <= last else None


async def _repair(project: Project, store: Store, name: str, outcomes: list[Outcome]) -> None:
    """Repair one range after the other; one that fails does not keep the rest from it."""
    from gapless.cli.lane import operating

    waiting = list(outcomes)
    total = sum(outcome.gap.last - outcome.gap.first + 1 for outcome in outcomes)

    def tick(_done: int, _total: int) -> None:
        waiting.pop(0).done = True
        left = sum(outcome.gap.last - outcome.gap.first + 1 for outcome in waiting)
        steps.tick(total - left, total)

    with Steps("repair", project.clock) as steps:
        async with operating(project, store, name) as operator:
            await _repair_all(operator, waiting, tick)


async def _repair_all(operator: Operator, waiting: list[Outcome], tick: Callable[[int, int], None]) -> None:
    from gapless.engine.repair import Damage
    from gapless.errors import LeaseHeld, StoreError

    while waiting:
        damages = [Damage(o.gap.first, o.gap.last, o.gap.reason) for o in waiting]
        try:
            await operator.repair(damages, tick)
        except (LeaseHeld, StoreError):
            raise  # the same for all of them
        except GaplessError as error:
            waiting.pop(0).error = error
