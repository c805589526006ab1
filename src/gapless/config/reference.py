"""The configuration described from its own classes: JSON Schema for editors, and docs/reference/config.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from gapless.config import tree, units
from gapless.config.keys import FILE_KEYS, fields_of

_INTRODUCTION = """\
# Configuration

Generated from the code by `gapless config reference`; do not edit.

One TOML file, `gapless.toml` unless `-c FILE` says otherwise. Durations, sizes and shares are text with a unit
(`"30 seconds"`, `"64 MB"`, `"1%"`). Relative paths are relative to the file. Unknown keys are errors.

- `${VAR}` in any text is replaced from the environment; an unset variable is an error, `${VAR:-default}` is not.
  `$${` stands for `${`.
- `GAPLESS_STORE__URL=…` overrides `store.url`, and so on for every key, with `__` between the parts. Lists are JSON or
  separated by commas: `GAPLESS_SOURCES__MAINNET__RPC=http://a:8545,http://b:8545`.
- `url_file` and `rpc_file` name a file that holds the value, for secrets mounted as files.
- `gapless config check` names every problem, `gapless config show --origin` says where each value comes from,
  `gapless config schema` prints the JSON Schema for editors.

```toml
[app]
name = "erc20"

[sources.mainnet]
kind = "evm"
rpc = ["http://127.0.0.1:8545"]

[contracts.token]
abi = "erc20"
events = ["Transfer"]
```
"""

_SECTIONS: tuple[tuple[str, type[tree.Section]], ...] = (
    ("[app]", tree.App),
    ("[store]", tree.Store),
    ("[journal]", tree.Journal),
    ('[sources.NAME] with kind = "evm"', tree.EvmSource),
    ('[sources.NAME] with kind = "replay"', tree.ReplaySource),
    ("[sources.NAME.hashing]", tree.Hashing),
    ("[contracts.NAME]", tree.Contract),
    ("[telemetry]", tree.Telemetry),
    ("[lease]", tree.Lease),
    ("[limits]", tree.Limits),
)
_FILLED_IN = {("Store", "url"), ("Contract", "source"), ("Config", "store")}
"""Keys that a file may leave out although the tree always has them."""
_TO_TEXT: dict[str, Any] = {
    "duration": units.duration_text,
    "size": units.size_text,
    "share": units.share_text,
    "finality rule": units.finality_text,
}


# --- JSON Schema ---------------------------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the file as written, before `${VAR}` and the environment are applied."""
    found = tree.Config.model_json_schema(by_alias=True, mode="validation")
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "gapless.toml"}
    for name, definition in [*found["$defs"].items(), ("Config", found)]:
        model = getattr(tree, name, None)
        if model is None:
            continue
        definition["required"] = [k for k in definition.get("required", []) if (name, k) not in _FILLED_IN]
        for key, field in fields_of(model).items():
            _polish(definition["properties"][key], field)
        for key, pattern in _file_keys(name):
            definition["properties"][key] = {"type": "string", "description": f"A file that holds `{pattern}`."}
            definition["required"] = [k for k in definition["required"] if k != pattern]
    return found


def _polish(shape: dict[str, Any], field: FieldInfo) -> None:
    shape.pop("title", None)
    if "default" in shape:
        shape["default"] = _default_value(shape, field)


def _default_value(shape: dict[str, Any], field: FieldInfo) -> Any:
    to_text = _TO_TEXT.get(str(shape.get("x-word")))
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return to_text(value) if to_text else value


def _file_keys(model: str) -> Iterator[tuple[str, str]]:
    sections = {"Store": ("store",), "Journal": ("journal",), "EvmSource": ("sources", "*")}
    for key, target in FILE_KEYS.items():
        if sections.get(model) == key[:-1]:
            yield key[-1], target


# --- the page ------------------------------------------------------------------------------------------------------


def reference() -> str:
    """docs/reference/config.md."""
    definitions = schema()["$defs"]
    parts = [_INTRODUCTION]
    for title, model in _SECTIONS:
        parts.append(f"## `{title}`\n\n{model.__doc__}\n\n{_table(model, definitions[model.__name__])}")
    return "\n".join(parts)


def _table(model: type[tree.Section], definition: dict[str, Any]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    fields = fields_of(model)
    own = [key for key in fields if key in model.__annotations__]
    for key in dict.fromkeys([*own, *fields]):
        field, shape = fields[key], definition["properties"][key]
        if "$ref" in shape:
            continue  # a table of its own
        default = _default_text(model, key, field, shape)
        description = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{key}` | {_word(shape)} | {default} | {description} |")
    return "\n".join(lines) + "\n"


def _default_text(model: type[tree.Section], key: str, field: FieldInfo, shape: dict[str, Any]) -> str:
    value = shape.get("default")
    if (model.__name__, key) in _FILLED_IN:
        return "see there"
    if field.is_required():
        return "*required*"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, int | list) else f'`"{value}"`'


def _word(shape: dict[str, Any]) -> str:
    if "x-word" in shape:
        return str(shape["x-word"])
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    if "const" in shape:
        return f"`{shape['const']}`"
    if "anyOf" in shape:
        words = [_word(part) for part in shape["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if shape["type"] == "array":
        return "list"
    return {"integer": "whole number", "boolean": "`true` or `false`", "string": "text"}[shape["type"]]
