"""The validated plain types of the configuration: names, addresses, URLs, counts. Each refusal says what to write."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

BUILTIN_ABIS = ("erc20", "erc721", "erc1155")
PYTHON_ABI = "python"
"""Stands for an ABI that an app in Python gave as a value."""
DATASETS = ("blocks", "transactions", "logs")
SOURCE_KINDS = ("evm", "replay")
LATER_SOURCE_KINDS = ("cometbft", "atproto", "solana")
STORE_SCHEMES = ("sqlite", "postgresql", "postgres")
LATER_STORE_SCHEMES = ("clickhouse",)
LATER_JOURNAL_SCHEMES = ("file", "nats", "redis")

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_RESERVED = frozenset({"public", "information_schema", "main", "temp"})
_RESERVED_PREFIXES = ("pg_", "sqlite_", "gapless")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_RPC_URL = re.compile(r"(?:https?|wss?)://[^\s/?#]+(?:[/?]\S*)?", re.IGNORECASE)
_LISTEN = re.compile(r"(?:[^:\s]*|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")


def _name_of(length_max: int) -> AfterValidator:
    """A SQL-safe identifier. Single underscores only, so that `__` can separate keys in environment variables."""

    def validate(value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(
                f"{value!r} cannot be a name; use lower-case letters, digits and single underscores, "
                "starting with a letter"
            )
        if len(value) > length_max:
            raise ValueError(f"{value!r} has {len(value)} characters; at most {length_max} fit the database")
        if value.startswith(_RESERVED_PREFIXES) or value in _RESERVED:
            raise ValueError(f"{value!r} is reserved; choose another name")
        return value

    return AfterValidator(validate)


def checksum_digits(digits: str) -> str:
    """The spelling of 40 lower-case hex digits by EIP-55: upper case where the hash's nibble is 8 or more."""
    import sha3

    mask = sha3.keccak_256(digits.encode()).hexdigest()
    return "".join(c.upper() if int(m, 16) >= 8 else c for c, m in zip(digits, mask[:40], strict=True))


def _address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise ValueError(f"{value!r} is not an address; write 0x and 40 hex digits")
    digits = value[2:]
    if digits not in {digits.lower(), digits.upper(), checksum_digits(digits.lower())}:
        raise ValueError(
            f"{value!r} has a wrong checksum (EIP-55): a digit is mistyped; in lower case it is not compared"
        )
    return "0x" + digits.lower()


def _rpc_url(value: str) -> str:
    if not _RPC_URL.fullmatch(value):
        raise ValueError("is not an endpoint URL; write http://host:port, https://…, ws://… or wss://…")
    return value


def _store_url(value: str) -> str:
    scheme, separator, rest = value.partition(":")
    if scheme in LATER_STORE_SCHEMES:
        raise ValueError(f"{scheme} stores come in a later release; use sqlite:///file.db or postgresql://…")
    if scheme not in STORE_SCHEMES or not separator or not rest.startswith("//"):
        raise ValueError("is not a database URL; write sqlite:///file.db or postgresql://user@host/database")
    if scheme == "sqlite" and (not rest.startswith("///") or len(rest) == 3):
        raise ValueError("names no file; write sqlite:///file.db, or sqlite:////absolute/file.db")
    return "postgresql:" + rest if scheme == "postgres" else value


def _journal_url(value: str) -> str:
    scheme = value.partition(":")[0]
    if scheme in LATER_JOURNAL_SCHEMES:
        raise ValueError(f"{scheme} journals come in a later release; use memory:")
    if value != "memory:":
        raise ValueError("is not a journal URL; write memory:")
    return value


def _listen(value: str) -> str:
    match = _LISTEN.fullmatch(value)
    if value and (match is None or int(match["port"]) > 65535):
        raise ValueError(f'{value!r} is not an address to listen on; write "127.0.0.1:9464", or "" for none')
    return value


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


_LISTED = BeforeValidator(_listed)


def _one_or_many(schema: dict[str, Any]) -> WithJsonSchema:
    many = {"type": "array", "items": schema, "minItems": 1}
    return WithJsonSchema({"anyOf": [schema, many]})


Count = Annotated[int, Field(strict=True, ge=1)]
Position = Annotated[int, Field(strict=True, ge=0)]
Switch = Annotated[bool, Field(strict=True)]
NotEmpty = Annotated[str, Field(min_length=1)]
AppName = Annotated[str, _name_of(40)]
SourceName = Annotated[str, _name_of(32)]
ContractName = Annotated[str, _name_of(30)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
JournalUrl = Annotated[str, AfterValidator(_journal_url)]
Listen = Annotated[str, AfterValidator(_listen)]

Addresses = Annotated[
    tuple[Annotated[str, AfterValidator(_address)], ...],
    Field(min_length=1),
    _LISTED,
    _one_or_many({"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"}),
]
RpcUrls = Annotated[
    tuple[Annotated[str, AfterValidator(_rpc_url)], ...],
    Field(min_length=1),
    _LISTED,
    _one_or_many({"type": "string", "format": "uri"}),
]
Names = Annotated[tuple[NotEmpty, ...], Field(min_length=1), _LISTED, _one_or_many({"type": "string", "minLength": 1})]
Datasets = Annotated[
    tuple[Literal["blocks", "transactions", "logs"], ...],
    _LISTED,
    _one_or_many({"type": "string", "enum": list(DATASETS)}),
]
