"""House rules that no linter knows. Each failure says what to do instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".ci", "benchmarks", "docs", "examples", "src", "tests", "tools")
GENERATED = {"__pycache__", "node_modules"}
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
FILE_BYTES_MAX = 2_000_000
PUBLIC_NAMES_MAX = 25
VAGUE = {"base", "common", "helper", "helpers", "misc", "util", "utils"}
MARKS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|NotImplemented" + r"Error)\b")
MACHINE_PATHS = re.compile(r"(?:^|[\s\"'`(=:,])/(?:wo" + r"rk|ro" + r"ot)(?:/|\b)", re.MULTILINE)
REGISTRY_HOSTS = re.compile(
    r"\b(?:registry\.np" + r"mjs|py" + r"pi|files\.python" + r"hosted|np" + r"mjs)\.(?:org|com)\b"
)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def files(*folders: str, suffix: str = "") -> list[Path]:
    """Every file of the project below these folders, and those of its root where none is named."""
    found = [p for p in ROOT.iterdir() if p.is_file() and p.name != ".git"] if not folders else []
    for folder in folders or FOLDERS:
        found += [p for p in (ROOT / folder).rglob("*") if p.is_file() and not GENERATED & set(p.parts)]
    return sorted(p for p in found if p.name.endswith(suffix) and not is_output(p))


def is_output(path: Path) -> bool:
    """What runs leave behind and .gitignore lists."""
    return path.suffix in {".db", ".db-wal", ".db-shm", ".lock-journal", ".pyc", ".so"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def texts() -> Iterator[tuple[Path, str]]:
    """Every file that is text."""
    for path in files():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without decorators and docstring."""
    start, body = function.lineno, function.body
    if ast.get_docstring(function, clean=False) is not None:
        documented = body[0]
        return (function.end_lineno or start) - start + 1 - ((documented.end_lineno or 0) - documented.lineno + 1)
    return (function.end_lineno or start) - start + 1


# --- size and shape ------------------------------------------------------------------------------------------------


def test_files_stay_readable() -> None:
    """No Python file is longer than the cap: a longer one is two nouns in one module, so split it."""
    long = {name(p): n for p in files(suffix=".py") if (n := len(p.read_text().splitlines())) > FILE_LINES_MAX}
    assert not long


def test_functions_stay_readable() -> None:
    """No function is longer than the cap: name its steps."""
    long = {
        f"{name(p)}:{f.lineno} {f.name}": length(f)
        for p in files(suffix=".py")
        for f in functions(p)
        if length(f) > FUNCTION_LINES_MAX
    }
    assert not long


def test_nothing_large_is_carried() -> None:
    """No file is larger than two megabytes: build it, or compress it."""
    assert not {name(p): p.stat().st_size for p in files() if p.stat().st_size > FILE_BYTES_MAX}


def test_modules_are_nouns_of_the_field() -> None:
    """No module is named for nothing: say what is in it."""
    assert not [name(p) for p in files(suffix=".py") if {p.stem, p.parent.name} & VAGUE]


def test_every_module_says_what_it_is_for() -> None:
    """Python files that hold code begin with a docstring."""
    trees = {p: ast.parse(p.read_text()) for p in files(suffix=".py")}
    assert not [name(p) for p, tree in trees.items() if tree.body and ast.get_docstring(tree) is None]


def test_every_test_states_its_rule() -> None:
    """A test's docstring is the rule it holds, in a sentence."""
    silent = [
        f"{name(p)}:{f.lineno} {f.name}"
        for p in files("tests", suffix=".py")
        for f in functions(p)
        if f.name.startswith("test_") and not ast.get_docstring(f)
    ]
    assert not silent


# --- what may not stand in a file ----------------------------------------------------------------------------------


def marked(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name(path)}:{text.count(chr(10), 0, match.start()) + 1}: {match.group().strip()}"
        for path, text in texts()
        for match in pattern.finditer(text)
    ]


def test_nothing_is_left_for_later() -> None:
    """No marks of unfinished work: finish it, or write down what is missing where users look."""
    assert not marked(MARKS)


def test_nothing_names_this_machine() -> None:
    """No path of one machine: take it from the environment, or from where the file lies."""
    assert not marked(MACHINE_PATHS)


def test_no_registry_is_pinned() -> None:
    """Package registries are the client's own configuration: name packages, never hosts."""
    assert not marked(REGISTRY_HOSTS)


@pytest.mark.parametrize(
    ("pattern", "bad", "good"),
    [
        (MARKS, "# TO" + "DO: later", "todo='Do this'"),
        (MACHINE_PATHS, 'open("/wo' + 'rk/x")', "http://host/wo" + "rk/x"),
        (MACHINE_PATHS, "cd /ro" + "ot", "receipts/ro" + "ot"),
        (REGISTRY_HOSTS, "https://py" + "pi.org/simple", "PyPI"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str], bad: str, good: str) -> None:
    """Each ban sees its example and leaves the harmless look-alike alone."""
    assert pattern.search(bad)
    assert not pattern.search(good)


# --- documents -----------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", h)).strip().lower().replace(" ", "-") for h in headings}


def broken_links(path: Path) -> Iterator[str]:
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            yield f"{name(path)}: {target}"


def test_links_lead_somewhere() -> None:
    """Relative links in documents name a file that exists, and a heading in it."""
    assert not [link for path in files(suffix=".md") for link in broken_links(path)]


def test_a_broken_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above finds a missing file and a missing heading, and passes good ones."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "a.md").write_text(
        "# The `end`, at last\n[x](b.md) [y](a.md#the-end-at-last) [z](#nowhere) [w](http://h/)\n"
    )
    assert list(broken_links(tmp_path / "a.md")) == ["a.md: b.md", "a.md: #nowhere"]


def test_the_changelog_keeps_its_shape() -> None:
    """Keep a Changelog: an Unreleased section first, then versions with dates, newest first, known headings only."""
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert lines[0] == "# Changelog"
    assert versions[0].startswith("## [Unreleased]")
    released = [re.fullmatch(r"## \[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", line) for line in versions[1:]]
    assert all(released), "a release reads: ## [1.2.3] - 2026-11-22"
    numbers = [tuple(map(int, match.groups())) for match in released if match]
    assert numbers == sorted(numbers, reverse=True)
    kinds = {line for line in lines if line.startswith("### ")}
    assert kinds <= {f"### {kind}" for kind in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")}


# --- the surface ---------------------------------------------------------------------------------------------------


def test_public_names_are_few_and_sorted() -> None:
    """`gapless` offers a short sorted list of names, and each of them is there."""
    import gapless

    names = getattr(gapless, "__all__", [])
    assert list(names) == sorted(names)
    assert len(names) <= PUBLIC_NAMES_MAX
    assert not [n for n in names if not hasattr(gapless, n)]


def test_every_make_target_is_explained() -> None:
    """`make help` lists every target that a person may call."""
    text = (ROOT / "Makefile").read_text()
    phony = {target for line in re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE) for target in line.split()}
    explained = set(re.findall(r"^([a-z][a-z-]*):.*## \S", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))
    assert targets == explained
    assert targets <= phony
