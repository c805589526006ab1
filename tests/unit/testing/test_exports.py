"""What `gapless.testing` offers."""

from __future__ import annotations

import subprocess
import sys

import gapless.testing


def test_names_are_there() -> None:
    """The list of public names is free of doubles, and every name exists."""
    names = gapless.testing.__all__

    assert len(names) == len(set(names))
    assert all(hasattr(gapless.testing, name) for name in names)


def test_it_needs_no_test_framework() -> None:
    """A benchmark or a demo may use the fake node where pytest is not installed."""
    code = "import sys; sys.modules['pytest'] = None; import gapless.testing"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_behaviour_is_exported() -> None:
    """A behaviour that nobody can import by the package is not a behaviour anybody uses."""
    modules = (
        gapless.testing.log_lies,
        gapless.testing.block_lies,
        gapless.testing.faults,
        gapless.testing.pushes,
    )
    for module in modules:
        made = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
        assert set(made) <= set(gapless.testing.__all__)
