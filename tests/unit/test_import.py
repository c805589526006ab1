"""What importing Gapless loads. Modules are counted, not milliseconds: a slow machine loads the same ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVERS = frozenset({"aiohttp", "apsw", "psycopg", "psycopg_pool", "pyarrow", "prometheus_client"})
"""Loaded when a source, a database, Arrow or metrics are used."""
HEAVY = SERVERS | {"pydantic", "pydantic_core", "msgspec", "eth_abi", "rich", "typer", "structlog", "asyncio"}
MODULES_MAX = 40
"""Over those of a bare interpreter: what `typing` needs, which differs between releases of Python."""


def loaded(code: str) -> frozenset[str]:
    """The modules in a fresh interpreter after running this."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return frozenset(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_loads_next_to_nothing() -> None:
    """`import gapless` loads no library and hardly a module: it costs a fraction of the 150 ms it may."""
    more = loaded("import gapless") - loaded("pass")
    assert not more & HEAVY
    assert {name for name in more if name.startswith("gapless")} == {"gapless"}
    assert len(more) <= MODULES_MAX, sorted(more)


def test_declaring_an_app_opens_no_driver() -> None:
    """Sources, databases, Arrow and metrics are loaded when they are used, not when they are declared."""
    code = (
        "import gapless\n"
        "app = gapless.App('a', store='postgresql://localhost/x')\n"
        "token = app.evm('m', rpc=['http://127.0.0.1:1']).contract('token', abi='erc20')\n"
        "app.on(token.Transfer, batch=True)(lambda records, tables: None)\n"
    )
    assert not loaded(code) & SERVERS


@pytest.mark.parametrize("name", ["aiohttp", "apsw", "pyarrow", "psycopg", "pydantic"])
def test_what_is_looked_for_would_be_seen(name: str) -> None:
    """The libraries are here, so that their absence above means something."""
    pytest.importorskip(name)
    assert name in loaded(f"import {name}")
