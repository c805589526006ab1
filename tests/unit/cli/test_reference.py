"""The commands' page says what the commands do."""

from __future__ import annotations

import re
from pathlib import Path

from gapless.cli.reference import reference
from gapless.cli.root import command

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md"
INTERFACE = (
    "init run plan status gaps repair verify digest rewind replay "
    "query export quarantine flags lease doctor bench archive config"
)


def test_page_is_current() -> None:
    """docs/reference/cli.md is what the code generates; `gapless reference` writes it anew."""
    assert PAGE.read_text() == reference(command()), "run: gapless reference > docs/reference/cli.md"


def test_every_command_is_there() -> None:
    """The commands of this release are those of the interface, no more and no fewer."""
    commands = {name for name, each in command().commands.items() if not each.hidden}
    assert commands == set(INTERFACE.split())


def test_summaries_fit_a_line() -> None:
    """In the list of commands no summary is cut off."""
    page = reference(command())
    assert not re.findall(r"^  \S+ .*\.\.\.$", page, re.MULTILINE)
