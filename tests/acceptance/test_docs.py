"""What the documents say is so: every block of theirs is done, in order, in one folder, against real servers."""

from __future__ import annotations

import ast
import http.server
import re
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gapless
import gapless.errors
import gapless.journal
import gapless.sources
import gapless.store
import gapless.testing
from gapless.cli import root
from gapless.cli.observers import Service, Watching
from gapless.cli.project import Project
from gapless.sources.evm.lies import LIES
from gapless.testing import (
    Behaviour,
    block_lies,
    faults,
    faulty_disk,
    journal_contract,
    log_lies,
    pushes,
    source_contract,
    store_contract,
)
from servers.anvil import Anvil, build_transfers
from servers.documents import ROOT, Block, Reader, blocks, commands, merged, prose, unknown_series, write_curl
from servers.postgres import binaries

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DONE = [d for d in DOCUMENTS if d.parent.name != "runbooks" and any(b.kind != "text" for b in blocks(d))]
BLOCKS = 120
TRANSFERS_PER_BLOCK = 10


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def reader(request: pytest.FixtureRequest, anvil: Anvil, tmp_path: Path) -> Iterator[Reader]:
    """A reader beside a node with a token where the first contract of Anvil's first account always is."""
    built = build_transfers(anvil, BLOCKS, TRANSFERS_PER_BLOCK)
    text = request.getfixturevalue("document").read_text()
    postgres = str(request.getfixturevalue("postgres_url")) if "postgresql://localhost/chain" in text else ""
    metrics = f"127.0.0.1:{free_port()}"
    replaced = {
        "postgresql://localhost/chain": postgres,
        "https://your-node.example": anvil.url,
        "https://another.example": f"http://localhost:{anvil.port}",  # the same node by another name
        "wss://your-node.example": anvil.ws_url,
        "http://127.0.0.1:8545": anvil.url,
        "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48": built.token,
        "0x5FbDB2315678afecb367f032d93F642f64180aa3": built.token,
        "17_000_000": "0",
        "17000000..17001000": "0..100",
        "127.0.0.1:9464": metrics,
    }
    tools = [binaries()] if postgres else []  # for psql
    with Reader(tmp_path / "reader", replaced, targets=[metrics], tools=tools) as it:
        yield it


@pytest.mark.anvil
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DONE, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_block_does_what_it_says(document: Path, reader: Reader) -> None:
    """Configuration is valid, programs load, commands end as they should, and what is shown as output was printed."""
    do_all(reader, blocks(document))


def do_all(reader: Reader, said: list[Block]) -> None:
    for block in said:
        reader.do(block)


# --- what is said beside the blocks --------------------------------------------------------------------------------


def missing_from_commands(line: str) -> str:
    """What of a command line the program does not have; empty where it has everything."""
    words = shlex.split(re.sub(r"\{.*?\}", "X", line))[1:]
    at: Any = root.command()
    options = {name for parameter in at.params for name in [*parameter.opts, *parameter.secondary_opts]}
    for number, word in enumerate(words):
        if word.startswith("--") or (word.startswith("-") and len(word) == 2 and word[1].isalpha()):
            if word not in options:
                return word
        elif hasattr(at, "commands") and word in at.commands:
            at = at.commands[word]
            options = {name for parameter in at.params for name in [*parameter.opts, *parameter.secondary_opts]}
        elif hasattr(at, "commands") and not (number and words[number - 1] == "-c") and word != "COMMAND":
            return word
    return ""


SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("file", [*DOCUMENTS, *SOURCES], ids=lambda f: str(f.relative_to(ROOT)))
def test_commands_that_are_named_exist(file: Path) -> None:
    """Every `gapless …` in prose and in messages is a command with these options."""
    said = re.findall(r"`(gapless [^`]+)`", prose(file.read_text()))
    assert not {line: missing for line in said if (missing := missing_from_commands(line))}


def test_the_index_lists_every_page() -> None:
    """docs/README.md leads to each document, and to the folder of decisions."""
    index = (ROOT / "docs" / "README.md").read_text()
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#:]+)", index)}
    assert {d for d in DOCUMENTS if d.name != "README.md" and d.parent.name != "decisions"} <= linked
    assert ROOT / "docs" / "decisions" in linked


def test_every_kind_of_contradiction_is_explained() -> None:
    """The table of kinds is that of the program, word by word."""
    page = (ROOT / "docs" / "howto" / "choose-verification-and-endpoints.md").read_text()
    listed = dict(
        re.findall(r"^\| `(\w+)` \| (.*) \|$", page.partition("## The kinds of contradiction")[2], re.MULTILINE)
    )
    assert listed == dict(LIES)


def test_what_the_testing_page_names_is_there() -> None:
    """Every class it names can be imported from where it says."""
    page = prose((ROOT / "docs" / "howto" / "test-your-handlers.md").read_text())
    named = {name for code in re.findall(r"`([^`]+)`", page) for name in re.findall(r"\b[A-Z][a-z]\w+[A-Z]?\w*", code)}
    ports = [gapless.store, gapless.sources, gapless.journal]
    modules = [gapless.testing, gapless.errors, store_contract, source_contract, journal_contract, faulty_disk, *ports]
    assert not named - {name for module in modules for name in vars(module)} - {"RecordBatch"}


def test_the_testing_page_names_every_behaviour() -> None:
    """Each thing that a node can do stands in its table once, in the row of its kind."""
    page = (ROOT / "docs" / "howto" / "test-your-handlers.md").read_text()
    kinds = {"lies about logs": log_lies, "lies about blocks": block_lies, "failures": faults, "WebSocket": pushes}
    for kind, module in kinds.items():
        [row] = re.findall(rf"^\| {kind} \| (.*) \|$", page, re.MULTILINE)
        offered = {name: getattr(gapless.testing, name) for name in gapless.testing.__all__}
        behaviours = {n: v for n, v in offered.items() if isinstance(v, type) and issubclass(v, Behaviour)}
        exported = [name for name, behaviour in behaviours.items() if behaviour.__module__ == module.__name__]
        assert sorted(re.findall(r"`(\w+)`", row)) == sorted(exported), kind


def test_series_that_are_named_exist() -> None:
    """Every series named on the page about monitoring and in the runbooks is served."""
    app = gapless.App("a", telemetry={"listen": "127.0.0.1:0"})
    app.evm("mainnet", rpc=["http://127.0.0.1:1"])
    project = Project(app)
    service = Service(project, Watching(project.config.sources, project.clock))
    service.server.start()
    service.server.close()
    registry = service.metrics.registry  # type: ignore[attr-defined]
    served = [(sample.name, sample.labels) for family in registry.collect() for sample in family.samples]
    histograms = [(name.removesuffix("_count"), labels) for name, labels in served if name.endswith("_count")]
    tables = {"gapless_gaps", "gapless_entries", "gapless_meta"}
    for page in [ROOT / "docs" / "howto" / "monitor.md", *(ROOT / "docs" / "runbooks").glob("*.md")]:
        for code in re.findall(r"`([^`]+)`", prose(page.read_text())):
            strange = unknown_series(re.sub(r"\{[\w,]+\}", "", code), [*served, *histograms])
            assert not set(strange) - tables, f"{page.name}: {code}"


# --- promises and their tests --------------------------------------------------------------------------------------

GUARANTEES = ROOT / "docs" / "GUARANTEES.md"
TEST_LINK = re.compile(r"\[`(\w+)`\]\((\.\./[\w./]+\.py)\)")


def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def test_promises_name_tests_that_exist() -> None:
    """Every test that the guarantees name is a function in the file that is linked."""
    links = TEST_LINK.findall(GUARANTEES.read_text())
    assert links
    wrong = [name for name, file in links if name not in functions((GUARANTEES.parent / file).resolve())]
    assert not wrong


def test_every_promise_names_a_test() -> None:
    """Each promise of the table has its tests, in the same order, and so has each group of levels."""
    text = GUARANTEES.read_text()
    made = re.findall(r"^\| \*\*(.+?)\*\*", text, re.MULTILINE)
    bullets = text.partition("### Tests of the promises")[2].partition("\n## ")[0].split("\n- **")[1:]
    assert [bullet.partition("**")[0] for bullet in bullets][: len(made)] == made
    levels = text.partition("### Tests of the levels")[2].partition("\n## ")[0].split("\n- ")[1:]
    assert levels
    assert not [bullet for bullet in [*bullets, *levels] if not TEST_LINK.search(bullet)]


# --- the checker itself --------------------------------------------------------------------------------------------


def document(tmp_path: Path, text: str) -> list[Block]:
    (tmp_path / "page.md").write_text(text)
    return blocks(tmp_path / "page.md")


def test_blocks_are_found_with_their_lines(tmp_path: Path) -> None:
    """Fences, also in lists, and indented commands; a paragraph that is merely wrapped is none."""
    text = (
        "# A\n\n    one # exits 3\n    two \\\n      more\n\ntext\n    wrapped\n\n1. x\n\n   ```text\n   out\n   ```\n"
    )
    found = document(tmp_path, text)
    assert [(b.line, b.kind, b.section) for b in found] == [(3, "sh", "A"), (13, "text", "A")]
    assert [(n, c) for n, c in commands(found[0])] == [(3, "one # exits 3"), (4, "two   more")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```toml\n[app]\nname = 7\n```\n", "page.md:2: "),
        ("```toml\n[store]\n```\n", "page.md:2: tables to add"),
        ("```python\nimport nothing_of_that_name\n```\n", "page.md:2: "),
        ("```python\n# app.py\nraise ValueError\n```\n", "page.md:2: "),
        ("# x\n\n    true\n    false\n", "page.md:4: false"),
        ("# x\n\n    true # exits 3\n", "page.md:3: "),
        ("# x\n\n    make nothing\n", "page.md:3: the Makefile"),
        ("# x\n\n    pip install 'gapless[nothing]'\n", "page.md:3: gapless offers only"),
        ("# x\n\n    echo one\n\n```text\ntwo\n```\n", "page.md:6: nobody printed: two"),
        ("```\nwhat is this\n```\n", "page.md:2: say what the block is"),
        ("```yaml\nexpr: gapless_nothing > 0\n```\n", "page.md:2: no series answers to gapless_nothing"),
    ],
)
def test_what_is_not_so_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    """Each kind of untruth fails with file and line."""
    monkeypatch.setattr("servers.documents.SAID_SECONDS_MAX", 0.2)
    with Reader(tmp_path / "reader") as reader, pytest.raises(AssertionError, match=f"^{re.escape(said)}"):
        do_all(reader, document(tmp_path, text))


def test_what_is_so_passes(tmp_path: Path) -> None:
    """Exports and the working directory stay, output may differ where the page says so, and exit codes are as said."""
    text = (
        '# x\n\n    export NAME=gapless\n    mkdir sub && cd sub\n    echo "$NAME in $PWD, 17 blocks"\n'
        "    exit 3 # exits 3\n\n```text\ngapless in …sub, … blocks\n```\n"
    )
    with Reader(tmp_path / "reader") as reader:
        do_all(reader, document(tmp_path, text))


def test_without_curl_another_does(tmp_path: Path) -> None:
    """Bodies of answers good and bad, 22 with -f for a bad one, 7 for nobody there: as curl."""
    write_curl(tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        asked = [["-s", f"{here}/"], ["-s", f"{here}/none"], ["-sf", f"{here}/none"], ["-s", "http://127.0.0.1:1/"]]
        done = [subprocess.run([tmp_path / "curl", *words], capture_output=True, check=False) for words in asked]
        server.shutdown()
    assert [each.returncode for each in done] == [0, 0, 22, 7]
    assert b"Directory listing" in done[0].stdout
    assert b"404" in done[1].stdout


def test_tables_of_configuration_are_merged() -> None:
    """A table replaces the one of its name, and others are added."""
    assert merged("[a]\nx = 1\n\n[b]\ny = 1\n", "# only this\n[b]\ny = 2\n[c]\n") == "[a]\nx = 1\n\n[b]\ny = 2\n\n[c]"


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("gapless rewind --to {n}", ""),
        ("gapless -c app.py:app COMMAND", ""),
        ("gapless quarantine retry --all", ""),
        ("gapless rewnd --to 7", "rewnd"),
        ("gapless rewind --too 7", "--too"),
        ("gapless quarantine forget", "forget"),
    ],
)
def test_commands_that_do_not_exist_are_seen(line: str, missing: str) -> None:
    """A misspelt command or option is found, and what is there passes."""
    assert missing_from_commands(line) == missing
