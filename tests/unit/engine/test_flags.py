"""Run-time switches: known names, known values, and nothing that stops an indexer by mistake."""

from __future__ import annotations

import asyncio

import pytest

from gapless.engine.flags import FLAGS, Flags, check_flag, read_flags
from gapless.engine.plan import Until
from gapless.errors import Halted, UsageError
from gapless.model import Mode
from unit.engine.world import World


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


def test_writing_switched_off_and_on_again() -> None:
    """A running follower commits nothing while writing is off, says so, and goes on by itself when it is on again."""

    async def scenario() -> None:
        world = World()
        world.source.mine(20)
        async with world.running():
            await world.until(world.exact)
            world.store.set_flag("writes_enabled", "off")
            await world.until(lambda: world.heard.modes[-1] is Mode.IDLE)
            await asyncio.sleep(1.1)
            world.source.mine(21)
            await asyncio.sleep(0.3)
            assert world.facts() == [(0, 0, 20)]
            world.store.set_flag("writes_enabled", None)
            await world.until(world.exact)

    asyncio.run(scenario())


def test_rollback_switched_off_halts_at_a_fork() -> None:
    """With rollback automation off a fork waits for an operator, nothing undone; with it on again it is followed."""

    async def scenario() -> None:
        world = World()
        for n in range(10):
            world.source.mine(n + 20)
        await world.runner(until=Until.HEAD).run()
        before = world.facts()
        world.store.set_flag("rollback_automation", "off")
        world.source.fork(2, [50], [51], [52], branch="b")
        with pytest.raises(Halted, match="rolling back is switched off"):
            async with asyncio.timeout(10):
                await world.runner().run()
        assert world.facts() == before
        world.store.set_flag("rollback_automation", "on")
        async with world.running():
            await world.until(world.exact)

    asyncio.run(scenario())
