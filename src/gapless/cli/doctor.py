"""`gapless doctor`: look at everything a run depends on, and say what is wrong and how to mend it."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption
from gapless.cli.project import Project, finish, load
from gapless.errors import GaplessError

if TYPE_CHECKING:
    from gapless.cli.findings import Findings

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Find what is wrong, and say how to mend it.

    Changes nothing. Exit code 1 where something must be mended before a run can work."""
    from gapless.cli.findings import Findings

    findings = Findings()
    _versions(findings)
    project = _project(findings, config)
    if project is not None:
        _examine(findings, project)
    if as_json:
        output.document({"ok": not findings.failed, "checks": [finding.document() for finding in findings.all]})
    else:
        _print(findings)
    if findings.failed:
        raise typer.Exit(1)


def _versions(findings: Findings) -> None:
    from importlib import metadata

    from gapless import __version__

    findings.ok("versions", f"Gapless {__version__}, Python {platform.python_version()} on {platform.system()}")
    for extra, package, use in (("postgres", "psycopg", "Postgres"), ("arrow", "pyarrow", "Arrow and Parquet")):
        try:
            findings.ok("extras", f"{package} {metadata.version(package)} for {use}")
        except metadata.PackageNotFoundError:
            findings.ok("extras", f"{package} is not installed; {use} needs it: pip install 'gapless[{extra}]'")


def _project(findings: Findings, config: str | None) -> Project | None:
    try:
        project = load(config)
        tables = [table.name for table in project.schema.tables]
    except GaplessError as error:
        findings.error("config", error)
        return None
    overridden = [name for name in os.environ if name.startswith("GAPLESS_") and "__" in name]
    note = f"; overridden by {', '.join(sorted(overridden))}" if overridden else ""
    where = project.config.path or "in Python"
    findings.ok("config", f"{where}: {output.counted(len(tables), 'table')}{note}")
    if not tables:
        findings.warn("config", "there are no tables", "Add a [contracts.NAME] table, or `datasets` to a source.")
    return project


def _examine(findings: Findings, project: Project) -> None:
    from gapless.cli.doctor_sources import examine_source
    from gapless.cli.doctor_store import examine_address, examine_store

    examine_store(findings, project)
    for name in sorted(project.wired):
        finish(examine_source(findings, project, name))
    examine_address(findings, project.config.telemetry.listen)


def _print(findings: Findings) -> None:
    import sys

    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, emoji=False, markup=False)
    for finding in findings.all:
        line = Text(f"{_MARKS[finding.state]}  ", style=_STYLES[finding.state])
        console.print(line.append(Text(f"{finding.check}: {finding.detail}", style="default")))
        if finding.fix:
            console.print(Text(f"      → {finding.fix}"))
    counts: dict[str, Any] = {state: sum(f.state == state for f in findings.all) for state in _MARKS}
    console.print(f"\n{counts['ok']} ok, {output.counted(counts['warn'], 'warning')}, {counts['fail']} to mend.")
