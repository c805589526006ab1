"""`gapless gaps`: what is known to be missing or damaged, compared with what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption, SourceOption
from gapless.cli.project import Project, load

if TYPE_CHECKING:
    from gapless.model import Gap
    from gapless.store import Store


def gaps(config: ConfigOption = None, source: SourceOption = None, as_json: JsonOption = False) -> None:
    """List ranges that are missing or damaged.

    Rows removed behind our back are found too: it reads the whole range. What is found goes into the gap ledger.
    `gapless repair` mends it."""
    project = load(config)
    with project.store() as store:
        found = [gap for name in project.sources(source) for gap in find(project, store, name)]
    if as_json:
        output.document({"gaps": [{"source": gap.source, **described(gap)} for gap in found]})
        return
    if not found:
        output.say("No gaps.")
        return
    rows = [(g.source, g.first, g.last, g.reason, described(g)["since"], g.attempts) for g in found]
    output.table(("source", "from", "to", "reason", "since", "attempts"), rows, right=("from", "to", "attempts"))
    output.talk("Mend them with `gapless repair`.")


def find(project: Project, store: Store, source: str) -> list[Gap]:
    """Damage found now together with the ledger, which is brought up to date where the database can be written."""
    from gapless.engine.repair import find_damage, record_damage
    from gapless.errors import ReadOnlyStore
    from gapless.model import Gap

    now_us = project.clock.now_us()
    damages = find_damage(store, source)
    try:
        record_damage(store, source, damages, now_us)
    except ReadOnlyStore:
        output.talk("The database cannot be written: what was found is not in the gap ledger.")
    ledger = {(gap.first, gap.last): gap for gap in store.gaps(source)}
    return [
        ledger.get((damage.first, damage.last)) or Gap(source, damage.first, damage.last, damage.reason, now_us)
        for damage in sorted(damages, key=lambda damage: damage.first)
    ]


def described(gap: Gap) -> dict[str, Any]:
    """A gap as JSON, without its source."""
    from gapless.schema import timestamp_text

    return {
        "from": gap.first,
        "to": gap.last,
        "reason": gap.reason,
        "since": timestamp_text(gap.since_us),
        "attempts": gap.attempts,
    }
