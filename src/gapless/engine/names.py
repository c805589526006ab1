"""Names the engine gives to things in the database: commands that only read look for them, without the engine."""

from __future__ import annotations

from gapless.schema import Schema


def lease_name(schema: Schema, source: str) -> str:
    """Of the lease on one source of one version of the tables."""
    return f"{schema.version}:{source}"
