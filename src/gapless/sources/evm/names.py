"""Names of tables and columns, from the names in an ABI.

    tokenId -> token_id     _from -> from_     amount0In -> amount0_in     tokenURIs -> token_uris     (unnamed) -> arg2

The same ABI gives the same names on every machine, so nothing here depends on the order of files, on the Python
version or on the database.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence

IDENTIFIER_BYTES_MAX = 63
"""What Postgres keeps of an identifier: it cuts the rest off silently, so two long names would become one."""

_WORDS = """
add all alter analyse analyze and any array as asc asymmetric authorization autoincrement between binary both case
cast check collate collation column commit concurrently constraint create cross current_catalog current_date
current_role current_schema current_time current_timestamp current_user default deferrable delete desc distinct do
drop else end escape except exists false fetch for foreign freeze from full grant group having ilike in index
initially inner insert intersect into is isnull join lateral leading left like limit localtime localtimestamp
natural not nothing notnull null offset on only or order outer overlaps placing primary raise references returning
right select session_user set similar some symmetric system_user table tablesample then to trailing transaction
true union unique update user using values variadic verbose when where window with

assert async await break class continue def del elif finally global if import lambda none nonlocal pass return
try while yield
"""
RESERVED = frozenset(_WORDS.split())
"""Words that Postgres (18) or SQLite do not take as a bare column name, and Python's keywords, in lower case.
Fixed here rather than asked from the library at hand: a column must not be renamed by an upgrade."""

_BOUNDARY = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z])"  # tokenId -> token|Id
    r"|(?<=[A-Z])(?=[A-Z](?!s(?![a-z]))[a-z])"  # ERCToken -> ERC|Token, but tokenURIs -> token|URIs
)
_FOREIGN = re.compile(r"[^a-z0-9]+")


def snake_case(name: str) -> str:
    """Lower case with single underscores, none at the ends; empty when the name has no letter or digit."""
    return _FOREIGN.sub("_", _BOUNDARY.sub("_", name).lower()).strip("_")


def shortened(name: str) -> str:
    """The name, or where it is longer than an identifier may be, its beginning and a digest of the whole."""
    if len(name) <= IDENTIFIER_BYTES_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: IDENTIFIER_BYTES_MAX - 9].rstrip('_')}_{digest}"


def table_name(contract: str, event: str) -> str:
    """`<contract>_<event>` in snake case."""
    return shortened(f"{snake_case(contract)}_{snake_case(event)}")


def column_names(parameters: Sequence[str], taken: Collection[str]) -> tuple[str, ...]:
    """One column name a parameter, all different, none among `taken` and none reserved.

    An unnamed parameter is `arg` and its index. A reserved or taken name gets a trailing underscore, the second
    parameter of a name the number 2, and so on."""
    used = set(taken)
    names: list[str] = []
    for i, parameter in enumerate(parameters):
        base = snake_case(parameter) or f"arg{i}"
        if base[0].isdigit():
            base = f"arg_{base}"
        name = base = shortened(f"{base}_" if base in RESERVED or base in taken else base)
        number = 2
        while name in used:
            name = shortened(f"{base.rstrip('_')}_{number}")
            number += 1
        used.add(name)
        names.append(name)
    return tuple(names)
