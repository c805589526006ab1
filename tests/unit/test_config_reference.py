"""The reference page and the schema say what the code does."""

from __future__ import annotations

import json
from pathlib import Path

from gapless.config import keys, tree
from gapless.config.reference import reference, schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "config.md"


def test_page_is_current() -> None:
    """docs/reference/config.md is what the code generates; `gapless config reference` writes it anew."""
    assert PAGE.read_text() == reference(), "run: gapless config reference > docs/reference/config.md"


def test_every_field_is_described() -> None:
    """Each key has a description, and a default or the word that it is required."""
    for model in (tree.App, tree.Store, tree.EvmSource, tree.ReplaySource, tree.Contract, tree.Limits, tree.Telemetry):
        for key, field in keys.fields_of(model).items():
            assert field.description, f"{model.__name__}.{key}"
            assert field.description.endswith("."), f"{model.__name__}.{key}"


def test_units_are_in_names() -> None:
    """An attribute that is a duration or a size says its unit; the key in the file carries it in the value."""
    for model in (tree.Store, tree.EvmSource, tree.ReplaySource, tree.Telemetry, tree.Lease, tree.Limits):
        for name, field in model.model_fields.items():
            words = {extra.json_schema.get("x-word") for extra in field.metadata if hasattr(extra, "json_schema")}
            if "duration" in words:
                assert "seconds" in name.split("_"), name
            if "size" in words:
                assert name.endswith("_bytes"), name


def test_schema_is_closed() -> None:
    """Editors mark unknown keys, know every default as it is written, and do not demand what may be left out."""
    found = schema()
    json.dumps(found)
    assert found["additionalProperties"] is False
    assert set(found["required"]) == {"app", "sources"}
    evm = found["$defs"]["EvmSource"]
    assert evm["properties"]["timeout"]["default"] == "30 seconds"
    assert evm["properties"]["finality"]["default"] == "finalized"
    assert evm["required"] == ["kind"]
    assert {"rpc", "rpc_file"} <= set(evm["properties"])
    assert "url" not in found["$defs"]["Store"]["required"]
    assert found["$defs"]["Contract"]["required"] == ["abi"]
