"""`gapless init`: a project that runs at once."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gapless.cli import output
from gapless.cli.options import DryRunOption, JsonOption
from gapless.errors import GaplessError, Refused


class Preset(StrEnum):
    EXAMPLE = "example"
    ERC20 = "erc20"
    PYTHON = "python"


_IGNORE = "*.db\n*.db-wal\n*.db-shm\n"

_ERC20 = """\
# The transfers and approvals of one token. `gapless run`, then `gapless status`.
# Every key: `gapless config show`, and docs/reference/config.md.

[app]
name = "erc20"

# [store]
# url = "postgresql://localhost/chain"       # left out: erc20.db, beside this file

[sources.mainnet]
kind = "evm"
rpc = ["${RPC_URL:-http://127.0.0.1:8545}"]  # name a second endpoint, and answers are compared
start = 0                                    # a block number, "head", or a date

[contracts.token]
abi = "erc20"                                # or the path of an ABI as JSON
# address = "0x…"                            # left out: the events of every token

[telemetry]
listen = "127.0.0.1:9464"                    # /metrics, /health/live, /health/ready
"""

_PYTHON = '''\
"""Who holds how much of a token: state kept by a handler, right after any reorg.

RPC_URL=http://127.0.0.1:8545 TOKEN=0x… gapless run -c app.py:app
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gapless

ZERO = "0x" + "0" * 40

app = gapless.App("balances", base=Path(__file__).parent)
chain = app.evm("mainnet", rpc=[os.environ.get("RPC_URL", "http://127.0.0.1:8545")], start=0)
token = chain.contract("token", abi="erc20", address=os.environ.get("TOKEN"), events=["Transfer"])


@app.table
class Holding:
    """What one address holds of one token."""

    token: gapless.Address = gapless.key()
    holder: gapless.Address = gapless.key()
    balance: gapless.UInt256


@app.on(token.Transfer)
def move(transfer: Any, tables: Any) -> None:
    """Take from one, give to the other. Mints come from the zero address and burns go there; it holds nothing."""
    for holder, change in ((transfer.from_, -transfer.value), (transfer.to_, transfer.value)):
        if holder != ZERO:
            held = tables[Holding].get(transfer.address, holder)
            balance = (held.balance if held else 0) + change
            tables[Holding].put(Holding(transfer.address, holder, balance))


if __name__ == "__main__":
    app.cli()
'''

_NEXT = {
    Preset.EXAMPLE: ("gapless run --until 408", "gapless status"),
    Preset.ERC20: ("export RPC_URL=http://…", "gapless doctor", "gapless run"),
    Preset.PYTHON: ("export RPC_URL=http://… TOKEN=0x…", "python app.py doctor", "python app.py run"),
}


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where. Left out: here.", show_default=False)
    ] = Path(),
    preset: Annotated[
        Preset,
        typer.Option(
            help="example: a recorded chain, runs offline. erc20: a token by RPC. python: balances in Python."
        ),
    ] = Preset.EXAMPLE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a project that runs.

    Nothing that exists is overwritten."""
    files = _files(preset)
    taken = [name for name in files if (directory / name).exists() and name != ".gitignore"]
    if taken:
        raise Refused(
            f"{', '.join(taken)} already exists in {directory.absolute()}",
            todo="Nothing was written. Choose another directory, or move it away.",
        )
    if not dry_run:
        _write(directory, files)
    if as_json:
        output.document({"directory": str(directory.absolute()), "files": sorted(files), "dry_run": dry_run})
        return
    output.say(f"{'Would write' if dry_run else 'Wrote'} {', '.join(files)} to {directory.absolute()}.")
    here = [] if directory == Path() else [f"cd {shlex.quote(str(directory))}"]
    output.talk("\nNext:\n" + "\n".join(f"    {step}" for step in [*here, *_NEXT[preset]]))


def _files(preset: Preset) -> dict[str, bytes]:
    from gapless import examples

    if preset is Preset.EXAMPLE:
        names = ("erc20/gapless.toml", examples.RECORDED_CHAIN)
        found = {Path(name).name: examples.path(name).read_bytes() for name in names}
    elif preset is Preset.ERC20:
        found = {"gapless.toml": _ERC20.encode()}
    else:
        found = {"app.py": _PYTHON.encode()}
    return {**found, ".gitignore": _IGNORE.encode()}


def _write(directory: Path, files: dict[str, bytes]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if not (directory / name).exists():
                (directory / name).write_bytes(content)
    except OSError as error:
        raise GaplessError(
            f"{error.filename or directory} cannot be written: {error.strerror}", todo="Choose another directory."
        ) from error
