"""Gapless: follow ordered sources for ever and turn them into tables, every block there once, whole and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gapless.app import App, ContractRef, EventRef, SourceRef
    from gapless.declare import Address, Bytes, Hash, Int64, Json, UInt256, key
    from gapless.errors import (
        ConfigError,
        GaplessError,
        HandlerFailed,
        Refused,
        SourceError,
        StoreError,
        UsageError,
    )

__version__ = "0.1.0"

__all__ = [
    "Address",
    "App",
    "Bytes",
    "ConfigError",
    "ContractRef",
    "EventRef",
    "GaplessError",
    "HandlerFailed",
    "Hash",
    "Int64",
    "Json",
    "Refused",
    "SourceError",
    "SourceRef",
    "StoreError",
    "UInt256",
    "UsageError",
    "__version__",
    "key",
]

_HOMES = {
    "gapless.app": ("App", "ContractRef", "EventRef", "SourceRef"),
    "gapless.declare": ("Address", "Bytes", "Hash", "Int64", "Json", "UInt256", "key"),
    "gapless.errors": (
        "ConfigError",
        "GaplessError",
        "HandlerFailed",
        "Refused",
        "SourceError",
        "StoreError",
        "UsageError",
    ),
}


def __getattr__(name: str) -> Any:
    """Names are loaded on first use, so that `import gapless` costs next to nothing."""
    import importlib

    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'gapless' has no attribute {name!r}")
