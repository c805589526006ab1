"""Run-time switches: known names, known values, and nothing that stops an indexer by mistake."""

from __future__ import annotations

import pytest

from gapless.engine.flags import FLAGS, Flags, check_flag, read_flags
from gapless.errors import UsageError


def test_defaults() -> None:
    """Nothing stored: everything goes on by itself."""
    assert read_flags({}) == Flags(writes_enabled=True, rollback_automation=True, inflight_max=None)


@pytest.mark.parametrize(
    ("stored", "flags"),
    [
        ({"writes_enabled": "off"}, Flags(writes_enabled=False)),
        ({"writes_enabled": "On"}, Flags()),
        ({"rollback_automation": "no"}, Flags(rollback_automation=False)),
        ({"inflight_max": "2"}, Flags(inflight_max=2)),
        ({"inflight_max": "-2", "writes_enabled": "maybe", "other": "x"}, Flags()),
    ],
)
def test_reading(stored: dict[str, str], flags: Flags) -> None:
    """What can be read is obeyed; what cannot counts as not set."""
    assert read_flags(stored) == flags


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("writes_enable", "off", "Did you mean 'writes_enabled'"),
        ("writes_enabled", "maybe", "write on or off"),
        ("inflight_max", "0", "write a number from 1"),
    ],
)
def test_the_command_refuses_nonsense(name: str, value: str, said: str) -> None:
    """A flag that does not exist, or a value it cannot have, is refused with what to write instead."""
    with pytest.raises(UsageError) as refused:
        check_flag(name, value)
    assert said in str(refused.value)


def test_every_flag_is_explained() -> None:
    """What can be set is what is obeyed is what is explained."""
    assert set(FLAGS) == set(Flags.__dataclass_fields__)
