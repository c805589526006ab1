"""`gapless config`: check it, show what is in force and where it comes from, print its schema."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gapless.cli import output
from gapless.cli.options import ConfigOption, JsonOption
from gapless.cli.project import load

group = typer.Typer(help="Check, show and describe the configuration.", rich_markup_mode=None)


@group.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Name every problem of configuration and ABIs."""
    project = load(config)
    tables = sorted(table.name for table in project.schema.tables)
    found = {"app": project.config.app.name, "sources": sorted(project.config.sources), "tables": tables}
    if as_json:
        output.document({"ok": True, **found})
        return
    output.say(
        f"App {found['app']}: {', '.join(found['sources'])} into {', '.join(tables) or 'no tables'}. No problem."
    )


@group.command()
def show(
    config: ConfigOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the configuration in force.

    Defaults are included and secrets are hidden."""
    from gapless.config.secrets import redact

    project = load(config)
    values = redact(project.config.model_dump(mode="json", exclude_none=True))
    origins = {key: project.config.origins.get(key, "default") for key in _keys(values)}
    if as_json:
        output.document({"config": values, **({"origins": origins} if origin else {})})
        return
    output.say("\n".join(_toml(values, origins if origin else {})))


@group.command()
def schema() -> None:
    """Print the JSON Schema of gapless.toml, for editors."""
    import json

    from gapless.config.reference import schema as json_schema

    output.say(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@group.command(hidden=True)
def reference() -> None:
    """Print docs/reference/config.md."""
    from gapless.config.reference import reference as page

    typer.echo(page(), nl=False)


def _keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        found += _keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found


def _toml(values: dict[str, Any], origins: dict[str, str], path: str = "") -> list[str]:
    """The values as TOML; keys of a table come before the tables below it."""
    lines = [f"[{path}]"] if path and any(not isinstance(v, dict) for v in values.values()) else []
    for name, value in values.items():
        if not isinstance(value, dict):
            key = f"{path}.{name}" if path else name
            note = f"  # {origins[key]}" if key in origins else ""
            lines.append(f"{name} = {_toml_value(value)}{note}")
    if lines:
        lines.append("")
    for name, value in values.items():
        if isinstance(value, dict):
            lines += _toml(value, origins, f"{path}.{name}" if path else name)
    return lines


def _toml_value(value: Any) -> str:
    import json

    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
