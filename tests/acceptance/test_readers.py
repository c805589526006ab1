"""Somebody reads all the time while the chain grows and forks: what is seen is always the tables as of some block."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gapless.testing import TOKEN, FakeNode, ScriptedChain
from servers.project import APP, Project

FORKS = 12
SNAPSHOT = """
select
  (select position from gapless_cursors),
  (select count(*) from gapless_entries),
  (select max(position) from gapless_entries),
  (select count(*) from gapless_cursors c join gapless_entries e on e.position = c.position and e.id = c.id),
  (select coalesce(sum(rows), 0) from gapless_entries),
  (select count(*) from token_transfer),
  (select count(*) from token_transfer t left join gapless_entries e on e.id = t.block_hash where e.id is null)
"""
Read = Callable[[], tuple[Any, ...]]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "sqlite:///chain.db"


@contextmanager
def reading(project: Project) -> Iterator[Read]:
    """One statement over all tables, as another client's connection runs it."""
    if project.store_url.startswith("sqlite"):
        file = project.folder / project.store_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(file, timeout=10)) as connection:
            yield lambda: connection.execute(SNAPSHOT).fetchone()
        return
    import psycopg

    options = f"-c search_path={APP},{APP}_v1"
    with psycopg.connect(project.store_url, options=options, autocommit=True) as session:
        yield lambda: session.execute(SNAPSHOT).fetchone() or ()


def assert_whole(seen: tuple[Any, ...]) -> None:
    """Entries without a hole up to the cursor and none above, as many rows as they say, and no orphan."""
    position, entries, highest, at_cursor, rows_recorded, rows_found, orphans = seen
    assert (entries, highest, at_cursor) == (position + 1, position, 1), seen
    assert (rows_found, orphans) == (rows_recorded, 0), seen


def test_a_reader_never_sees_part_of_a_block(tmp_path: Path, store_url: str) -> None:
    """Through growth and forks, every look finds cursor, entries and rows of one and the same branch and block."""
    chain, draw = ScriptedChain(seed=1), random.Random(1)
    chain.mine(40, logs=5)
    with FakeNode(chain) as node:
        project = Project(tmp_path, store_url, [node.url], TOKEN, poll="50 ms")
        with project.following():
            project.wait_position(chain.height)
            looks, seen = 0, set()
            with reading(project) as read:
                for _ in range(FORKS):
                    chain.reorg(draw.randint(1, 12), logs=draw.randint(1, 9))
                    chain.mine(draw.randint(1, 3), logs=5)
                    until = time.monotonic() + 0.3
                    while time.monotonic() < until:
                        snapshot = read()
                        assert_whole(snapshot)
                        seen.add(snapshot)
                        looks += 1
            project.wait_position(chain.height)
    assert looks > FORKS
    assert len(seen) > FORKS // 2, "it was not looked at while it changed"


@pytest.mark.parametrize("part", range(7))
def test_parts_of_a_block_would_be_seen(part: int) -> None:
    """The check bites: any one of its numbers off by one is no whole block."""
    whole = [50, 51, 50, 1, 200, 200, 0]
    assert_whole(tuple(whole))
    whole[part] += 1
    with pytest.raises(AssertionError):
        assert_whole(tuple(whole))
