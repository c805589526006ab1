"""A long chain through the whole program: no gap, full coverage, flat memory; and blocks visible at the head."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from gapless.testing.chain import ScriptedChain
from gapless.testing.fold import fold
from gapless.testing.node import FakeNode
from servers.anvil import Anvil, call
from servers.project import Project, wait_until

SAMPLE_SECONDS = 0.05


def resident_kib(pid: int) -> int:
    """Memory of a process now, KiB; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    except OSError:
        return 0
    return 0


@pytest.mark.parametrize("blocks", [5_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_long_chain(tmp_path: Path, blocks: int) -> None:
    """Every block is there, coverage is 100 %, and the second half of the run needs no more memory than the first."""
    chain = ScriptedChain(seed=3)
    for _ in range(blocks // 100):
        chain.mine(99)
        chain.mine(1, logs=10)
    with FakeNode(chain) as node:
        index_all(node, chain, tmp_path)


def index_all(node: FakeNode, chain: ScriptedChain, folder: Path) -> None:
    expected = fold(chain).transfers
    project = Project(folder, "sqlite:///chain.db", [node.url], expected[0].address)
    head, blocks = chain.height, chain.height
    process = project.start("run", "--until", "head")
    samples: list[tuple[int, int]] = []
    while process.poll() is None:
        samples.append((max(project.position(), 0), resident_kib(process.pid)))
        time.sleep(SAMPLE_SECONDS)
    assert process.returncode == 0, project.log()
    [(entries, first, last)] = project.sql("select count(*), min(position), max(position) from gapless_entries")
    assert (entries, first, last) == (head + 1, 0, head)
    assert project.json("gaps")["gaps"] == []
    status = project.json("status")["sources"]["chain"]
    assert status["indexed"] == head
    assert sorted(project.transfers()) == [t for t in expected if t.address == expected[0].address]
    assert status["evidence"]["checked"] == entries
    early = [kib for position, kib in samples if blocks // 4 <= position < blocks // 2]
    late = [kib for position, kib in samples if position >= blocks // 2 and kib]
    if early and late:
        print(f"memory KiB: early {max(early)}, late {max(late)}")
        assert max(late) <= max(early) + 64 * 1024


@pytest.mark.anvil
def test_blocks_become_visible_at_the_head(anvil: Anvil, tmp_path: Path) -> None:
    """Each new block becomes readable by itself; how soon is printed, not asserted, because machines are noisy."""
    token = anvil.deploy("Token")
    project = Project(tmp_path, "sqlite:///chain.db", [anvil.url, anvil.ws_url], token)
    delays = []
    with project.following():
        project.wait_position(anvil.head())
        for n in range(20):
            anvil.send(token, call("emitMany(uint256,uint256,uint256)", n, 10, 50))
            anvil.mine(1)
            started, head = time.monotonic(), anvil.head()
            wait_until(lambda head=head: project.position() >= head, 10, project.log)
            delays.append(time.monotonic() - started)
            time.sleep(0.05)
    print(f"seconds to visible: median {statistics.median(delays):.3f}, worst {max(delays):.3f}")
