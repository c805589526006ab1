"""Exit codes and the one paragraph of an error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import pytest

from gapless.cli import endings
from gapless.errors import GaplessError, LeaseHeld, NotReady, PortTaken, StoreUnavailable, UsageError, WrongChain


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(endings, "_run", fail)
    return endings.run_to_exit(["status"], None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GaplessError("x"), 1),
        (UsageError("x"), 2),
        (NotReady("x"), 3),
        (StoreUnavailable("x"), 3),
        (PortTaken("x"), 3),
        (WrongChain("x"), 4),
        (LeaseHeld("x"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_codes(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    """Each kind of error has the exit code of the interface."""
    assert ending(monkeypatch, error) == code


def test_paragraph(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An error is one paragraph on standard error: what, where, what to do."""
    ending(monkeypatch, NotReady("Nothing is there", source="mainnet", position=7, todo="Do this."))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: Nothing is there (source 'mainnet', position 7). Do this.\n"


def test_unexpected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug is one paragraph too, which says how to see the traceback; with GAPLESS_DEBUG it is the traceback."""
    assert ending(monkeypatch, ZeroDivisionError("division by zero")) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: Something unexpected happened at test_endings.py:")
    assert "GAPLESS_DEBUG=1" in said
    assert said.count("\n") == 1
    monkeypatch.setenv("GAPLESS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        ending(monkeypatch, ZeroDivisionError())
    with pytest.raises(NotReady):
        ending(monkeypatch, NotReady("x"))


def test_group(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Tasks that failed together each have their paragraph; the first one's code counts."""
    group = ExceptionGroup("tasks", [NotReady("one"), ExceptionGroup("more", [WrongChain("two")])])
    assert ending(monkeypatch, group) == 3
    assert capsys.readouterr().err == "error: one.\nerror: two.\n"
    assert ending(monkeypatch, ExceptionGroup("tasks", [ValueError("x")])) == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["status", "--foo"], "No such option: --foo. See `gapless status --help`."),
        (["statsu"], "No such command 'statsu'"),
        (["rewind"], "Missing option '--to'"),
        (["rewind", "--to", "x"], "See `gapless rewind --help`."),
        (["export", "t", "--format", "xls"], "See `gapless export --help`."),
        (["config"], "Usage: gapless config"),
        ([], "Usage: gapless"),
        (["run", "--until", "later"], "--until head"),
    ],
)
def test_usage(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage is exit code 2, with the place to read on."""
    assert endings.run_to_exit(arguments, None) == 2
    said = capsys.readouterr()
    assert part in said.err
    assert said.out == ""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["config", "show", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help is data: on standard output, exit code 0."""
    assert endings.run_to_exit(arguments, None) == 0
    assert "gapless" in capsys.readouterr().out


def test_broken_pipe(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A reader that goes away is no reason to complain."""
    closed: list[Callable[..., object]] = []
    monkeypatch.setattr(endings.os, "dup2", lambda *a: closed.append(a))  # type: ignore[attr-defined,misc]
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    assert ending(monkeypatch, BrokenPipeError()) == 1
    assert closed
    assert capfd.readouterr().err == ""
