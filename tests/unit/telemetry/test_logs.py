"""Log lines: their form, what is hidden, what is thinned."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gapless.telemetry import logs
from gapless.testing.fake_clock import FakeClock

KEY = "9aa3d95b3bc440fa88ea12eaa4456161"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("gapless")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json() -> None:
    """Off a terminal each line is one JSON object with time, level, logger and fields."""
    stream, clock = io.StringIO(), FakeClock()
    logs.configure(stream=stream, clock=clock, fields={"app": "erc20"})
    structlog.get_logger("gapless.follow").info("mode", source="mainnet", pause_s=1.5)
    (line,) = lines(stream)
    assert line["event"] == "mode"
    assert (line["level"], line["logger"], line["app"]) == ("info", "gapless.follow", "erc20")
    assert (line["source"], line["pause_s"]) == ("mainnet", 1.5)
    assert line["time"].endswith("Z")


def test_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line is for people; NO_COLOR is obeyed."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    logs.configure(stream=stream, clock=FakeClock())
    structlog.get_logger("gapless.follow").info("mode", source="mainnet")
    assert "mode" in stream.getvalue()
    assert "source=mainnet" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


def test_forms() -> None:
    """`json` is JSON on a terminal too, `console` is for people in a file too."""
    terminal, file = Terminal(), io.StringIO()
    logs.configure(form="json", stream=terminal, clock=FakeClock())
    structlog.get_logger("gapless.x").info("mode")
    assert lines(terminal)[0]["event"] == "mode"
    logs.configure(form="console", stream=file, clock=FakeClock())
    structlog.get_logger("gapless.x").info("mode")
    assert not file.getvalue().startswith("{")


def test_levels() -> None:
    """The level is ours; libraries are heard from warnings on."""
    stream = io.StringIO()
    logs.configure("warning", stream=stream, clock=FakeClock())
    structlog.get_logger("gapless.x").info("quiet")
    structlog.get_logger("gapless.x").warning("loud")
    logging.getLogger("aiohttp").info("quiet")
    logging.getLogger("aiohttp").warning("slow %s", "server")
    assert [line["event"] for line in lines(stream)] == ["loud", "slow server"]


def test_secrets() -> None:
    """No password or key leaves, whichever field, library or exception carries it."""
    stream = io.StringIO()
    logs.configure(stream=stream, clock=FakeClock())
    log = structlog.get_logger("gapless.x")
    log.info(f"calling https://node/v3/{KEY}", url=f"https://node/v3/{KEY}", api_key="hunter2", nested={"token": "t0p"})
    logging.getLogger("psycopg").warning("cannot reach postgresql://me:hunter2@db/x")
    try:
        raise RuntimeError(f"https://node/v3/{KEY} refused")
    except RuntimeError:
        log.exception("failed")
    said = stream.getvalue()
    for secret in (KEY, "hunter2", "t0p"):
        assert secret not in said
    assert "RuntimeError" in said


def test_repeats_are_thinned() -> None:
    """Of 1,000 equal lines ten pass, each saying how often it was; another source is another line."""
    stream, clock = io.StringIO(), FakeClock()
    logs.configure(stream=stream, clock=clock)
    log = structlog.get_logger("gapless.follow")
    for attempt in range(1000):
        log.warning("will try again", source="a", attempt=attempt)
    log.warning("will try again", source="b")
    found = lines(stream)
    assert [line.get("repeated") for line in found if line["source"] == "a"] == [
        None,
        2,
        4,
        8,
        16,
        32,
        64,
        128,
        256,
        512,
    ]
    assert len(found) == 11


def test_news_is_not_thinned() -> None:
    """Only trouble is thinned: progress is said each time."""
    stream = io.StringIO()
    logs.configure(stream=stream, clock=FakeClock())
    for position in range(20):
        structlog.get_logger("gapless.progress").info("progress", source="a", position=position)
    assert len(lines(stream)) == 20


def test_repeats_pass_again_later() -> None:
    """What still repeats after a minute is said again."""
    stream, clock = io.StringIO(), FakeClock()
    logs.configure(stream=stream, clock=clock)
    log = structlog.get_logger("gapless.follow")
    for _ in range(3):
        log.warning("will try again")
    clock.advance(61)
    log.warning("will try again")
    assert [line.get("repeated") for line in lines(stream)] == [None, 2, None]


def test_repeats_are_bounded() -> None:
    """Ever new lines do not fill the memory."""
    repeats = logs.Repeats(FakeClock())
    for number in range(5000):
        repeats(None, "warning", {"event": f"event {number}"})
    assert len(repeats._heard) == 1000
