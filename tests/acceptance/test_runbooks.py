"""The runbooks, each in the trouble it is for: what it shows is what is seen, its commands work, and then it is over.

A trouble is a generator that is resumed three times: it makes the trouble before the page is opened, does what is left
to a person before the commands of "What to do", and again before "It is over when".
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from gapless.testing import NOBODY, TOKEN, FakeNode, Late, OmitLog, ScriptedChain, holder, transfer
from servers.documents import ROOT, Reader, Running, blocks, interrupt, prose
from servers.postgres import PostgresMissing, PostgresServer

pytestmark = pytest.mark.timeout(300)

FOLDER = ROOT / "docs" / "runbooks"
RUNBOOKS = sorted(FOLDER.glob("*.md"))
SECTIONS = ["What you see", "What it means", "What to do", "It is over when"]
WAIT_SECONDS_MAX = 40.0
Trouble = Callable[[Reader], Generator[None]]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    metrics = f"127.0.0.1:{free_port()}"
    with Reader(tmp_path / "reader", {"127.0.0.1:9464": metrics}, targets=[metrics]) as it:
        yield it


@pytest.mark.parametrize("document", RUNBOOKS, ids=lambda d: d.stem)
def test_runbook(document: Path, reader: Reader) -> None:
    """Provoke the trouble, read the page, do what it says."""
    with closing(TROUBLES[document.stem](reader)) as trouble:
        next(trouble)
        section = SECTIONS[0]
        for block in blocks(document):
            if block.section != section and block.section in SECTIONS[2:]:
                next(trouble)
            section = block.section if block.section in SECTIONS else section
            reader.do(block)


@pytest.mark.parametrize("document", RUNBOOKS, ids=lambda d: d.stem)
def test_runbooks_have_one_shape(document: Path) -> None:
    """The four sections, in order, so that a reader in a hurry finds them; and the page quotes what it is about."""
    headings = [line[3:] for line in document.read_text().splitlines() if line.startswith("## ")]
    assert headings == SECTIONS
    assert any(block.kind == "text" for block in blocks(document) if block.section == SECTIONS[0])


def test_every_trouble_has_its_runbook() -> None:
    """None is provoked that nobody wrote about, and none written about that is not provoked."""
    assert {document.stem for document in RUNBOOKS} == set(TROUBLES)


def test_messages_that_are_quoted_are_said() -> None:
    """What a runbook quotes within a sentence stands in the program, but for the names and numbers in it."""
    said = re.sub(r'"\n\s*f?"', "", "".join(f.read_text() for f in sorted((ROOT / "src").rglob("*.py"))))
    strange = []
    for runbook in RUNBOOKS:
        for code in re.findall(r"`([^`]+)`", prose(runbook.read_text())):
            if re.match(r"[A-Za-z]+ \w", code) and not code.startswith(("gapless ", "SET ")):
                pieces = [piece.strip() for piece in re.split(r"…|'\w+'|\d+", code)]
                strange += [f"{runbook.name}: {code}" for piece in pieces if piece and piece not in said]
    assert not strange


# --- making trouble ------------------------------------------------------------------------------------------------


def write_project(reader: Reader, rpc: Sequence[str], source: str = "", more: str = "") -> None:
    """A project that follows these nodes."""
    urls = ", ".join(f'"{url}"' for url in rpc)
    (reader.folder / "gapless.toml").write_text(
        f'[app]\nname = "erc20"\n[telemetry]\nlisten = "{reader.targets[0]}"\n'
        f'[sources.mainnet]\nkind = "evm"\nrpc = [{urls}]\npoll = "100 ms"\n{source}\n'
        f'[contracts.token]\nabi = "erc20"\naddress = "{TOKEN}"\nevents = ["Transfer"]\n{more}\n'
    )


def run(reader: Reader) -> Running:
    """`gapless run` in the background."""
    return reader.start("the trouble", "gapless run")


def do(reader: Reader, line: str, code: int = 0) -> str:
    return reader.finish("the trouble", line, code)


def wait_for(condition: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about: {why()}"
        time.sleep(0.1)


def wait_said(running: Running, *words: str) -> None:
    wait_for(lambda: all(word in running.said() for word in words), running.said)


def last_mode(running: Running) -> str:
    """The mode it named last."""
    return ["", *re.findall(r'"event": "mode".*?"mode": "(\w+)"', running.said())][-1]


def lag_grows(reader: Reader) -> Generator[None]:
    """An endpoint that takes a second for everything."""
    chain = ScriptedChain(seed=1)
    chain.mine(3_000, logs=1)
    with FakeNode(chain) as node:
        write_project(reader, [node.url], "span_max = 10")
        slow = node.behave(Late(1.0))
        running = run(reader)
        wait_said(running, '"event": "progress"')
        yield
        yield
        slow.off()
        yield


def endpoint_caught_lying(reader: Reader) -> Generator[None]:
    """A liar that leaves logs out is alone at first; then an honest node is beside it, and everything is audited."""
    chain = ScriptedChain(seed=1)
    chain.mine(300, logs=4)
    with FakeNode(chain) as liar, FakeNode(chain) as honest:
        liar.behave(OmitLog("any"), first=1)
        write_project(reader, [liar.url])
        do(reader, "gapless run --until 150")
        write_project(reader, [liar.url, honest.url], 'audit = "100%"')
        running = run(reader)
        wait_said(running, '"event": "distrusted"')
        yield
        yield
        yield


def fork_too_deep(reader: Reader) -> Generator[None]:
    """A chain that replaces thirty blocks though all but the newest twelve were final."""
    chain = ScriptedChain(seed=1, finalized_distance=12)
    chain.mine(100, logs=2)
    with FakeNode(chain) as node:
        write_project(reader, [node.url])
        do(reader, "gapless run --until head")
        chain.reorg(30)
        do(reader, "gapless run", code=4)
        yield
        yield
        yield


def source_idle(reader: Reader) -> Generator[None]:
    """A chain that stands still."""
    chain = ScriptedChain(seed=1)
    chain.mine(50, logs=2)
    with FakeNode(chain) as node:
        write_project(reader, [node.url], 'stall_after = "1 seconds"')
        running = run(reader)
        wait_said(running, '"mode": "live"')
        chain.rollback(5)
        wait_said(running, "the node went back to 45")
        chain.mine(5, logs=2)  # the same blocks again
        wait_said(running, "the chain has not moved from 50")
        yield
        yield
        chain.mine(3)
        wait_for(lambda: last_mode(running) == "live", running.said)
        yield


POISON = """\
import gapless

app = gapless.App("erc20", base=__import__("pathlib").Path(__file__).parent, telemetry={"listen": "LISTEN"})
chain = app.evm("mainnet", rpc=["NODE"], poll="100 ms")
token = chain.contract("token", abi="erc20", address="TOKEN", events=["Transfer"])


@app.table
class Share:
    thousandths: gapless.UInt256


@app.on(token.Transfer, independent=INDEPENDENT)
def share(transfer, tables):
    tables[Share].insert(Share(1000 // (transfer.value % 1000)))
"""


def write_app(reader: Reader, node: FakeNode, *, independent: bool) -> None:
    """An app whose handler divides by what may be zero."""
    values = {"LISTEN": reader.targets[0], "NODE": node.url, "TOKEN": TOKEN, "INDEPENDENT": str(independent)}
    text = POISON
    for name, value in values.items():
        text = text.replace(name, value)
    (reader.folder / "app.py").write_text(text)
    do(reader, "export GAPLESS_CONFIG=app.py:app")


def mend_app(reader: Reader) -> None:
    file = reader.folder / "app.py"
    file.write_text(file.read_text().replace("(transfer.value % 1000)", "max(1, transfer.value % 1000)"))


def poisoned_chain() -> ScriptedChain:
    """Ten blocks; in block 7 a transfer of exactly 1000."""
    chain = ScriptedChain(seed=1)
    chain.mine(6, logs=[transfer(NOBODY, holder(1), 7)])
    chain.mine(logs=[transfer(NOBODY, holder(1), 7), transfer(NOBODY, holder(2), 1000)])
    chain.mine(3, logs=[transfer(NOBODY, holder(1), 7)])
    return chain


def poison_block(reader: Reader) -> Generator[None]:
    """A handler that raises in block 7."""
    with FakeNode(poisoned_chain()) as node:
        write_app(reader, node, independent=False)
        do(reader, "gapless run", code=1)
        yield
        yield
        mend_app(reader)
        yield


def quarantine_has_items(reader: Reader) -> Generator[None]:
    """An independent handler that fails on one event."""
    with FakeNode(poisoned_chain()) as node:
        write_app(reader, node, independent=True)
        do(reader, "gapless run --until head")
        yield
        yield
        mend_app(reader)
        yield


def database_of_another_app(reader: Reader) -> Generator[None]:
    """Two apps that are pointed at one SQLite file."""
    chain = ScriptedChain(seed=1)
    chain.mine(20, logs=2)
    with FakeNode(chain) as node:
        write_project(reader, [node.url], more='[store]\nurl = "sqlite:///shared.db"')
        do(reader, "gapless run --until head")
        file = reader.folder / "gapless.toml"
        file.write_text(file.read_text().replace('name = "erc20"', 'name = "nft"'))
        do(reader, "gapless run", code=4)
        with closing(sqlite3.connect(reader.folder / "theirs.db")) as theirs:
            theirs.execute("create table theirs (x)")
        do(reader, f"GAPLESS_STORE__URL=sqlite:///{reader.folder}/theirs.db gapless run", code=4)
        do(reader, "GAPLESS_APP__NAME=erc20 GAPLESS_CONTRACTS__TOKEN__EVENTS=Approval gapless run", code=4)
        written = change_format(reader, "99")
        do(reader, "GAPLESS_APP__NAME=erc20 gapless run", code=4)
        change_format(reader, written)
        yield
        yield
        file.write_text(file.read_text().replace("shared.db", "nft.db"))
        yield


def change_format(reader: Reader, to: str) -> str:
    """Let the database say that another release wrote it; what it said before."""
    with closing(sqlite3.connect(reader.folder / "shared.db")) as database, database:
        (before,) = database.execute("select value from gapless_meta where name = 'format'").fetchone()
        database.execute("update gapless_meta set value = ? where name = 'format'", [to])
    return str(before)


def after_a_crash(reader: Reader) -> Generator[None]:
    """SIGKILL in the middle of catching up."""
    chain = ScriptedChain(seed=1)
    chain.mine(800, logs=3)
    with FakeNode(chain) as node:
        node.behave(Late(0.05))
        write_project(reader, [node.url], "span_max = 20")
        running = run(reader)
        wait_for(lambda: "gapless_entries_total" in metrics(reader) and committed(reader) > 100)
        running.process.kill()
        running.process.wait()
        yield
        yield
        yield


def metrics(reader: Reader) -> str:
    try:
        with urllib.request.urlopen(f"http://{reader.targets[0]}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def committed(reader: Reader) -> float:
    found = re.search(r"^gapless_store_position\S* (\S+)$", metrics(reader), re.MULTILINE)
    return float(found[1]) if found else 0.0


def lease_flaps(reader: Reader) -> Generator[None]:
    """Two instances, of which the leading one is frozen again and again; and a database that goes away."""
    chain = ScriptedChain(seed=1)
    chain.mine(50, logs=2)
    with ExitStack() as stack:
        try:
            server = stack.enter_context(PostgresServer())
        except PostgresMissing as reason:
            pytest.skip(str(reason))
        node = stack.enter_context(FakeNode(chain))
        more = f'[lease]\nttl = "1 second"\n[store]\nurl = "{server.create_database()}"'
        write_project(reader, [node.url], more=more)
        first = run(reader)
        wait_said(first, '"mode": "live"')
        second = reader.start("the trouble", "env GAPLESS_TELEMETRY__LISTEN= gapless run")
        stack.callback(interrupt, second.process)
        stack.callback(interrupt, first.process)
        wait_said(second, '"event": "standby"')
        for leader, other in ((first, second), (second, first)):
            taken = other.said().count("lease taken")
            leader.process.send_signal(signal.SIGSTOP)
            wait_for(lambda other=other, taken=taken: other.said().count("lease taken") > taken, other.said)
            leader.process.send_signal(signal.SIGCONT)
            wait_said(leader, '"event": "lease lost"')
        server.stop()
        wait_said(first, '"event": "lease not reached"')
        server.start()
        yield
        yield
        yield


def disk_full(reader: Reader) -> Generator[None]:
    """A small file system that somebody else fills while a run follows."""
    chain = ScriptedChain(seed=1)
    chain.mine(100, logs=20)
    small = reader.folder / "small"
    small.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be made here: {made.stderr.decode().strip()}")
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["umount", "-l", str(small)], check=False)
        node = stack.enter_context(FakeNode(chain))
        write_project(reader, [node.url], more='[store]\nurl = "sqlite:///small/erc20.db"')
        running = run(reader)
        stack.callback(interrupt, running.process)
        wait_said(running, '"mode": "live"')
        filler = small / "filler"
        filler.write_bytes(b"x" * (shutil.disk_usage(small).free - 16_384))
        chain.mine(100, logs=20)
        wait_said(running, '"event": "will try again"', '"mode": "degraded"')
        yield
        filler.unlink()
        yield
        wait_for(lambda: last_mode(running) == "live", running.said)
        yield


TROUBLES: dict[str, Trouble] = {
    "after-a-crash": after_a_crash,
    "database-of-another-app": database_of_another_app,
    "disk-full": disk_full,
    "endpoint-caught-lying": endpoint_caught_lying,
    "fork-too-deep": fork_too_deep,
    "lag-grows": lag_grows,
    "lease-flaps": lease_flaps,
    "poison-block": poison_block,
    "quarantine-has-items": quarantine_has_items,
    "source-idle": source_idle,
}
