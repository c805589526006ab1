"""The gate can be trusted: only a test that fails is proof, and the catalogue fits the code as it is."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from tests.mutation.__main__ import CHECKOUT
from tests.mutation.catalogue import MUTANTS
from tests.mutation.gate import Fate, Verdict, gate, judge_all
from tests.mutation.mutant import Mutant, Stale
from tests.mutation.page import PAGE, render

CODE = """\
def sign(number):
    if number < 0:
        return -1
    return 1
"""
TESTS = """\
import pytest

from gapless.numbers import sign

def test_negative():
    assert sign(-5) == -1

def test_zero():
    assert sign(0) == 1

def test_that_fails():
    assert sign(0) == 0

@pytest.mark.skip
def test_that_is_skipped():
    assert sign(-5) == -1

@pytest.fixture
def broken():
    assert sign(-5) == -1

def test_whose_fixture_notices(broken):
    assert sign(5) == 1
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project of one function."""
    package = tmp_path / "project" / "src" / "gapless"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "numbers.py").write_text(CODE)
    (tmp_path / "project" / "tests").mkdir()
    (tmp_path / "project" / "tests" / "test_numbers.py").write_text(TESTS)
    (tmp_path / "project" / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path / "project"


def mutant(id_: str, before: str, after: str, test: str) -> Mutant:
    return Mutant(id_, "numbers.py", before, after, "wrong", f"test_numbers.py::{test}")


def test_only_a_test_that_fails_because_of_the_fault_is_proof(checkout: Path) -> None:
    """Everything else is named for what it is; faults of equal length after each other do not mix."""
    expected = {
        mutant("noticed", "number < 0", "number > 0", "test_negative"): Fate.KILLED,
        mutant("unnoticed", "number < 0", "number < 1", "test_negative"): Fate.SURVIVED,
        mutant("noticed again", "number < 0", "number > 9", "test_negative"): Fate.KILLED,
        mutant("noticed elsewhere", "number < 0", "number < 1", "test_zero"): Fate.KILLED,
        mutant("not there", "number <= 0", "number < 1", "test_zero"): Fate.STALE,
        mutant("there twice", "return", "yield", "test_zero"): Fate.STALE,
        mutant("no code", "number < 0", "number <", "test_zero"): Fate.UNPROVEN,
        mutant("fails anyway", "number < 0", "number < 1", "test_that_fails"): Fate.UNPROVEN,
        mutant("skipped", "number < 0", "number > 0", "test_that_is_skipped"): Fate.UNPROVEN,
        mutant("fails in the fixture", "number < 0", "number > 0", "test_whose_fixture_notices"): Fate.UNPROVEN,
        mutant("no such test", "number < 0", "number > 0", "test_nothing"): Fate.UNPROVEN,
    }
    said: list[Verdict] = []
    verdicts = judge_all(checkout, expected, workers=2, report=said.append)
    assert {v.mutant.id: v.fate for v in verdicts} == {m.id: fate for m, fate in expected.items()}
    assert Counter(said) == Counter(verdicts)
    assert (checkout / "src" / "gapless" / "numbers.py").read_text() == CODE


def test_a_survivor_fails_the_gate(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is named, with its test; without one the gate passes."""
    killed = mutant("noticed", "number < 0", "number > 0", "test_negative")
    survivor = mutant("unnoticed", "number < 0", "number < 1", "test_negative")
    assert gate(checkout, [killed], workers=1) == 0
    assert "1 of 1 mutants killed" in capsys.readouterr().out
    assert gate(checkout, [killed, survivor], workers=1) == 1
    shown = capsys.readouterr().out
    assert "SURVIVED unnoticed: tests/test_numbers.py::test_negative passes although: wrong" in shown
    assert "1 of 2 mutants killed" in shown


# --- the catalogue -------------------------------------------------------------------------------------------------


def test_every_mutant_fits_the_code() -> None:
    """Who changes a line that a mutant changes adapts the mutant: the fault must stay one."""
    stale = []
    for one in MUTANTS:
        try:
            one.applied((CHECKOUT / one.path).read_text())
        except Stale as error:
            stale.append(str(error))
    assert stale == []


@cache
def names_in(path: Path) -> frozenset[str]:
    """Names of functions and classes in a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


def test_every_killer_is_there() -> None:
    """In the file and under the name that the catalogue says; the contracts' tests are in their packages."""
    testing = CHECKOUT / "src" / "gapless" / "testing"
    inherited = frozenset[str]().union(*(names_in(path) for path in testing.glob("*_contract/*.py")))
    for one in MUTANTS:
        file, *names = one.killer.partition("[")[0].split("::")
        known = names_in(CHECKOUT / "tests" / file) | (inherited if len(names) > 1 else frozenset())
        assert set(names) <= known, one.id


def test_ids_are_unique() -> None:
    """Each fault is asked for by its id."""
    assert [id_ for id_, count in Counter(m.id for m in MUTANTS).items() if count > 1] == []
    assert len({(m.file, m.before, m.after) for m in MUTANTS}) == len(MUTANTS) >= 40


def test_the_page_is_current() -> None:
    """docs/reference/mutants.md is what `python -m tests.mutation --write` writes."""
    assert (CHECKOUT / PAGE).read_text() == render(MUTANTS), "run: python -m tests.mutation --write"
