"""Where branches part, asked of a source that may make ids up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gapless.engine import plan
from gapless.engine.fork import Prober
from gapless.errors import Contradiction
from gapless.model import Cursor, Entry, Evidence, StoredEntry

TOP = 50


class Store:
    """Entries 1 to TOP, one on the other."""

    def entries(self, source: str, first: int, last: int) -> list[StoredEntry]:
        held = range(max(first, 1), min(last, TOP) + 1)
        return [StoredEntry(Entry(n, f"ours{n}", f"ours{n - 1}", 0, Evidence.CHECKED), 0, "") for n in held]


class Inline:
    async def read(self, call: Any) -> Any:
        return call()


class Source:
    """Its node has nothing above `height`, and answers apart from our branch with ids that it makes up: it is found out
    when it is asked for neighbours, unless they come from `honest`, an endpoint that has ours, or do link."""

    name = "s"

    def __init__(self, *, linked: bool = False, honest: bool = False) -> None:
        self._linked = linked
        self._honest = honest
        self.asked: list[list[int]] = []

    async def cursors(self, positions: Sequence[int]) -> list[Cursor | None]:
        self.asked.append(list(positions))
        neighbours = len(self.asked) > 1
        if neighbours and not self._linked and not self._honest:
            raise Contradiction("loose", kind="unlinked", source="s")
        whose = "ours" if neighbours and self._honest else "theirs"
        return [Cursor(n, f"{whose}{n}") if n <= 36 else None for n in positions]


def fork_seen(source: Any) -> plan.Fork | None:
    store: Any = Store()
    offload: Any = Inline()
    return asyncio.run(Prober(source, store, offload, Cursor(TOP, f"ours{TOP}"), 1, 1000).fork())


def test_made_up_ids_do_not_replace_a_whole_chain() -> None:
    """Scattered ids that all differ are not believed before neighbours were asked for, which do not link."""
    with pytest.raises(Contradiction):
        fork_seen(Source())


def test_another_endpoint_that_has_ours_speaks_against_it() -> None:
    """Where the neighbours come from an endpoint that has ours, nobody can tell yet."""
    assert fork_seen(Source(honest=True)) is None


def test_a_chain_that_shares_nothing_is_seen() -> None:
    """Neighbours that link, and of which none is ours, show that everything was replaced."""
    source = Source(linked=True)
    assert fork_seen(source) == plan.Fork(plan.before_first(1), Cursor(1, "ours1"))
    assert source.asked[-1] == list(range(1, TOP + 1))
