"""Documents as their readers take them: blocks in order, and a reader who does in a folder what they say.

What a block is follows from how it is written:

- indented, or ```sh: commands, run one after the other by bash. A comment can say how one ends (`# exits 4`), or that
  it stays (`# leave it running`); a command that follows for ever is stopped as by Ctrl-C once it has caught up.
- ```toml with `[app]`: the whole gapless.toml. Without: tables to add, or to put in the place of those of that name.
- ```python: written to the file its first comment names (`# app.py`) and loaded; run as it is where it names none.
- ```yaml: Prometheus configuration: targets must serve metrics, and rules be about series that are there.
- ```text: output. Each line must have been printed by a command before it, `…` standing for what differs.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS_MAX = 60.0
SETTLE_SECONDS_MAX = 30.0
SAID_SECONDS_MAX = 15.0
STOP_SECONDS_MAX = 15.0
CTRL_C = 130
KINDS = frozenset({"sh", "toml", "python", "yaml", "text"})
FENCE = re.compile(r"^ {0,3}```(\w*)\s*$")
COMMENT = re.compile(r"(?:^|\s)#\s(?P<said>.*)$")
EXITS = re.compile(r"\bexits (?P<code>\d+)\b")
STAYS = re.compile(r"\bleave it running\b")
SETTLED = re.compile(r'"mode": "(?:live|idle)"|"event": "standby"')
RULE = re.compile(r"^[─━ ]+$")


@dataclass(frozen=True)
class Block:
    """A block of a document; `line` is where its text begins, `section` the heading above it."""

    file: Path
    line: int
    kind: str
    text: str
    section: str = ""

    def __str__(self) -> str:
        return self.at(self.line)

    def at(self, line: int) -> str:
        """File and line, as messages begin."""
        file = self.file.relative_to(ROOT) if self.file.is_relative_to(ROOT) else self.file.name
        return f"{file}:{line}"


def blocks(file: Path) -> list[Block]:
    """Every block of a document in order; fenced ones have the kind they say, indented ones are commands."""
    lines = file.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    section, at = "", 0
    while at < len(lines):
        fence = FENCE.match(lines[at])
        if fence:
            end = next((n for n in range(at + 1, len(lines)) if FENCE.match(lines[n])), len(lines))
            found.append(Block(file, at + 2, fence[1], "\n".join(lines[at + 1 : end]), section))
            at = end + 1
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            end = next((n for n in range(at, len(lines)) if lines[n].strip() and lines[n][:4] != "    "), len(lines))
            text = "\n".join(line[4:] for line in lines[at:end]).rstrip()
            found.append(Block(file, at + 1, "sh", text, section))
            at = end
        else:
            if lines[at].startswith("#"):
                section = lines[at].lstrip("# ")
            at += 1
    return found


def commands(block: Block) -> Iterator[tuple[int, str]]:
    """The commands of a block with their lines; a backslash at the end joins."""
    waiting, started = "", 0
    for number, line in enumerate(block.text.splitlines(), block.line):
        started = started if waiting else number
        waiting += line
        if waiting.endswith("\\"):
            waiting = waiting[:-1]
            continue
        if waiting.strip() and not waiting.lstrip().startswith("#"):
            yield started, waiting.strip()
        waiting = ""


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^ {0,3}```.*?^ {0,3}```", "", text, flags=re.MULTILINE | re.DOTALL)


@dataclass
class Running:
    """A command that was left running."""

    process: subprocess.Popen[bytes]
    output: Path
    where: str
    code: int | None = None
    """What it must end with; None: whatever stopping it gives."""

    def said(self) -> str:
        return self.output.read_text(errors="replace")


@dataclass
class Reader:
    """Does what the blocks of a document say. Failures are AssertionErrors that begin with file and line.

    `replaced`: what stands in documents and cannot exist here → what is there instead."""

    folder: Path
    replaced: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    targets: Sequence[str] = ()
    """`host:port` of those that serve metrics."""
    tools: Sequence[Path] = ()
    """Folders of programs that this machine may lack."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ".cwd").write_text(str(self.folder))
        (self.folder / ".exports").write_text("")
        write_curl(self.folder / ".tools")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.running:
            interrupt(each.process)

    # --- blocks -----------------------------------------------------------------------------------------------------

    def do(self, block: Block) -> None:
        """Do what one block says."""
        assert block.kind in KINDS, f"{block}: say what the block is: one of {', '.join(sorted(KINDS))}"
        if block.kind == "sh":
            for line, command in commands(block):
                self.command(block.at(line), self.replace(command))
        elif block.kind == "toml":
            self.configure(str(block), self.replace(block.text))
        elif block.kind == "python":
            self.python(str(block), self.replace(block.text))
        elif block.kind == "yaml":
            self.prometheus(str(block), self.replace(block.text))
        else:
            self.expect(block)

    def replace(self, text: str) -> str:
        for there, here in self.replaced.items():
            text = text.replace(there, here)
        return text

    def configure(self, where: str, text: str) -> None:
        """Write gapless.toml, or change tables of it; it must be valid."""
        file = self.folder / "gapless.toml"
        if "[app]" not in text:
            assert file.exists(), f"{where}: tables to add to gapless.toml, but there is none yet"
            text = merged(file.read_text(), text)
        file.write_text(text + "\n")
        self.command(where, "gapless config check")

    def python(self, where: str, text: str) -> None:
        """Write a module and load it, or run a script."""
        named = re.match(r"# (\w+\.py)\b", text)
        if named:
            (self.folder / named[1]).write_text(text + "\n")
            load = f"import runpy; runpy.run_path({named[1]!r}, run_name='loaded')"
            self.command(where, f"python -c {shlex.quote(load)}")
        else:
            (self.folder / ".script.py").write_text(text + "\n")
            self.command(where, "python .script.py")

    def expect(self, block: Block) -> None:
        """Every line of the block was printed, in a while at most by what is still running."""
        deadline = time.monotonic() + SAID_SECONDS_MAX
        wanted = [line for line in self.replace(block.text).splitlines() if line.strip() and not RULE.match(line)]
        while missing := [line for line in wanted if not self._was_printed(line)]:
            printed = self.output()
            assert time.monotonic() < deadline, f"{block}: nobody printed: {missing[0]}\n--- printed:\n{printed}"
            time.sleep(0.1)

    def prometheus(self, where: str, text: str) -> None:
        """What is to be scraped answers, and rules are about series that are there."""
        for target in re.findall(r'targets: \["([^"]+)"\]', text):
            assert scrape(target), f"{where}: {target} serves no metrics"
        served = [series for target in self.targets for series in scrape(target)]
        for expression in re.findall(r"expr: (.+)", text):
            strange = unknown_series(expression, served)
            assert not strange, f"{where}: no series answers to {', '.join(strange)}"

    def _was_printed(self, line: str) -> bool:
        pattern = re.compile(".*?".join(re.escape(squeezed(part)) for part in line.split("…")))
        return any(pattern.search(squeezed(printed)) for printed in self.output().splitlines())

    def output(self) -> str:
        """Everything that was printed until now."""
        return "\n".join([*self.printed, *(each.said() for each in self.running)])

    # --- commands ---------------------------------------------------------------------------------------------------

    def command(self, where: str, line: str) -> None:
        """Run one command, as its comment says."""
        comment = COMMENT.search(line)
        said = comment["said"] if comment else ""
        code = int(found["code"]) if (found := EXITS.search(said)) else 0
        bare = line[: comment.start()].strip() if comment else line
        if STAYS.search(said):
            self.settle(self.start(where, bare), where)
        elif follows(bare):
            self.bounded(where, bare, code)
        elif not known(bare, where):
            self.finish(where, line, code)

    def finish(self, where: str, line: str, code: int = 0) -> str:
        """Run a command to its end; what it printed. Exports and the working directory stay for the next one."""
        after = 'status=$?; pwd > "$OLD/.cwd"; export -p > "$OLD/.exports"; exit $status'
        script = f"set -o pipefail\n{self._before()}\n{line}\n{after}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        self.printed.append(done.stdout)
        assert done.returncode == code, f"{where}: {line}\nexited {done.returncode}, not {code}:\n{done.stdout}"
        return done.stdout

    def start(self, where: str, line: str) -> Running:
        """Start a command in the background; what it prints goes to a file."""
        output = self.folder / f".output-{len(self.running)}"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                ["bash", "-c", f"{self._before()}\nexec env {line}"],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        started = Running(process, output, f"{where}: {line}")
        self.running.append(started)
        return started

    def settle(self, started: Running, where: str) -> None:
        """Wait until a run has caught up, or waits for its turn."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while not SETTLED.search(started.said()):
            assert started.process.poll() is None, f"{where}: it ended:\n{started.said()}"
            assert time.monotonic() < deadline, f"{where}: it did not catch up:\n{started.said()}"
            time.sleep(0.1)

    def bounded(self, where: str, line: str, code: int) -> None:
        """Run what follows for ever: to its end where it must end by itself, else until it has caught up."""
        started = self.start(where, line)
        if code:
            started.process.wait(COMMAND_SECONDS_MAX)
        else:
            code = CTRL_C
            if "--watch" in line or " -w" in line:
                wait_for_output(started)
            else:
                self.settle(started, where)
            interrupt(started.process)
        ended = started.process.returncode
        assert ended == code, f"{where}: {line}\nexited {ended}, not {code}:\n{started.said()}"

    def _before(self) -> str:
        return f'source "$OLD/.exports"; cd "$(cat "$OLD/.cwd")"; export OLD={shlex.quote(str(self.folder))}'

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GAPLESS_")}
        own = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        path = [*own, *map(str, self.tools), str(self.folder / ".tools")]
        more = {"PATH": os.pathsep.join(path), "NO_COLOR": "1", "OLD": str(self.folder), "COLUMNS": "200"}
        return {**kept, **more, **self.variables}


CURL = """\
#!{python}
import sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(sys.argv[-1], timeout=10) as answer:
        print(answer.read().decode(), end="")
except urllib.error.HTTPError as error:
    if "f" in "".join(word for word in sys.argv[1:-1] if word.startswith("-")):
        sys.exit(22)
    print(error.read().decode(), end="")
except OSError:
    sys.exit(7)
"""


def write_curl(folder: Path) -> None:
    """As much of curl as the documents use, for machines without it; found only where there is no other."""
    folder.mkdir(exist_ok=True)
    file = folder / "curl"
    file.write_text(CURL.replace("{python}", sys.executable))
    file.chmod(0o755)


def squeezed(text: str) -> str:
    """Columns are as wide as their content, which differs."""
    return " ".join(text.split())


def follows(line: str) -> bool:
    """Whether a command goes on until it is stopped. Where something reads from it, that ends it."""
    if "|" in line:
        return False
    run = re.match(r"(?:\w+=\S+ )*(?:gapless|python \w+\.py)(?: -c \S+)? (run|status)\b", line)
    return bool(run) and ("--until" not in line if run[1] == "run" else bool(re.search(r"--watch\b|\s-w\b", line)))


def known(line: str, where: str) -> bool:
    """True for commands that are not run here but looked at: `make TARGET`, which CI runs, and installing the package
    that is being tested."""
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), f"{where}: the Makefile has no target {words[1:]}"
        return True
    if words[:2] == ["pip", "install"]:
        package, _, extras = words[2].rstrip("]").partition("[")
        assert package == "gapless", f"{where}: {package} is not what is tested here"
        offered = set(metadata.metadata("gapless").get_all("Provides-Extra") or [])
        assert set(filter(None, extras.split(","))) <= offered, f"{where}: gapless offers only {offered}"
        return True
    return False


def merged(file: str, added: str) -> str:
    """A TOML document with tables added, or put in the place of those of the same name."""
    parts = tables(file) | {header: text for header, text in tables(added).items() if header}
    return "\n\n".join(text.strip() for text in parts.values() if text.strip())


def tables(text: str) -> dict[str, str]:
    """The tables of a TOML document as text, by header."""
    parts = re.split(r"(?m)^(?=\[)", text)
    return {part.partition("\n")[0].partition("#")[0].strip() if part[:1] == "[" else "": part for part in parts}


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """End a command as Ctrl-C does; kill it if it does not end in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_output(started: Running) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while not started.said().strip():
        assert started.process.poll() is None, f"{started.where}: it ended"
        assert time.monotonic() < deadline, f"{started.where}: it printed nothing"
        time.sleep(0.1)


# --- series in metrics and rules -----------------------------------------------------------------------------------

SERIES = re.compile(r"\b(?P<name>(?:gapless|process)_\w+)(?:\{(?P<labels>[^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(=~|=|!=|!~)\s*("(?:[^"\\]|\\.)*")')


def scrape(target: str) -> list[tuple[str, dict[str, str]]]:
    """Name and labels of every series served there."""
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return [(sample.name, sample.labels) for family in families for sample in family.samples]


def unknown_series(expression: str, scraped: Sequence[tuple[str, Mapping[str, str]]]) -> list[str]:
    """The selectors of a PromQL expression that no scraped series answers to."""
    return [
        match[0]
        for match in SERIES.finditer(expression)
        if not any(name == match["name"] and _fits(match["labels"] or "", labels) for name, labels in scraped)
    ]


def _fits(matchers: str, labels: Mapping[str, str]) -> bool:
    for name, operator, quoted in LABEL.findall(matchers):
        value, wanted = labels.get(name, ""), json.loads(quoted)
        equal = value == wanted if "~" not in operator else re.fullmatch(wanted, value) is not None
        if equal == operator.startswith("!"):
            return False
    return True
