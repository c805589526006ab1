"""Which keys the configuration has: the tree of models seen as dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo

from gapless.config import tree

Path_ = tuple[str, ...]
"""A dotted key, split."""

FILE_KEYS: dict[Path_, str] = {
    ("store", "url_file"): "url",
    ("journal", "url_file"): "url",
    ("sources", "*", "rpc_file"): "rpc",
}
"""Keys that name a file holding the value of another key: for secrets mounted as files."""

SOURCE_MODELS: dict[str, type[tree.Chain]] = {"evm": tree.EvmSource, "replay": tree.ReplaySource}


def models_at(path: Path_, raw: Mapping[str, Any]) -> tuple[type[tree.Section], ...]:
    """The models a table may follow: more than one where a source's kind is not known; none for `sources` itself."""
    if not path:
        return (tree.Config,)
    if path[0] in {"sources", "contracts"}:
        if len(path) == 1:
            return ()
        models: tuple[type[tree.Section], ...] = (
            (tree.Contract,) if path[0] == "contracts" else _source_models(raw, path[1])
        )
        rest = path[2:]
    else:
        models, rest = (tree.Config,), path
    for part in rest:
        models = tuple(m for model in models for m in _section(model, part))
    return models


def _source_models(raw: Mapping[str, Any], name: str) -> tuple[type[tree.Section], ...]:
    source = raw.get("sources", {})
    source = source.get(name, {}) if isinstance(source, Mapping) else {}
    kind = source.get("kind") if isinstance(source, Mapping) else None
    model = SOURCE_MODELS.get(kind) if isinstance(kind, str) else None
    return (model,) if model else tuple(SOURCE_MODELS.values())


def _section(model: type[tree.Section], key: str) -> tuple[type[tree.Section], ...]:
    field = fields_of(model).get(key)
    found = (field.annotation, *get_args(field.annotation)) if field else ()
    return tuple(t for t in found if isinstance(t, type) and issubclass(t, tree.Section))


def fields_of(model: type[tree.Section]) -> dict[str, FieldInfo]:
    """Fields by the key that is written in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def keys_at(path: Path_, raw: Mapping[str, Any]) -> list[str]:
    """The keys a table may have, `*_file` variants among them."""
    keys = {key for model in models_at(path, raw) for key in fields_of(model)}
    pattern = ("sources", "*") if path[:1] == ("sources",) and len(path) == 2 else path
    return sorted(keys | {key[-1] for key in FILE_KEYS if key[:-1] == pattern and FILE_KEYS[key] in keys})


def field_at(path: Path_, raw: Mapping[str, Any]) -> FieldInfo | None:
    """The field a dotted key stands for; None for an unknown key."""
    for model in models_at(path[:-1], raw):
        if found := fields_of(model).get(path[-1]):
            return found
    return None
