"""Event data with strings, bytes, arrays or tuples, through eth-abi in strict mode.

eth-abi reads what the offsets in the data point to. Nothing stops a contract from pointing at the same bytes over and
over: 100 kB of nested arrays can stand for gigabytes. So a log may be read only a few times its own length, the most
that an honest encoding needs; what asks for more does not decode.

This module is imported for events that need it only: eth-abi takes longer to import than all of Gapless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eth_abi.decoding import ContextFramesBytesIO
from eth_abi.exceptions import DecodingError
from eth_abi.registry import registry

from gapless.schema import Kind, canonical_json
from gapless.sources.evm.abi import AbiType
from gapless.sources.evm.columns import Irregular, unhex

JSON_NUMBER_BITS_MAX = 48
"""Integers of wider types are decimal text inside JSON: readers that keep numbers as doubles would round them."""

_OWN_REGISTRY = registry.copy()  # type: ignore[no-untyped-call]
"""eth-abi keeps `strict` on decoders that all users of a registry share."""

Convert = Callable[[Any], Any]


class DataCodec:
    """Decodes the data of one event's logs to the canonical text of its parameters."""

    def __init__(self, types: Sequence[AbiType]) -> None:
        self._decoder = _OWN_REGISTRY.get_tuple_decoder(*map(str, types), strict=True)
        self._texts = tuple(_text(t) for t in types)
        # Checking offsets, eth-abi reads a tuple's static parts once more, and those of tuples inside it twice more.
        self._reads_max = 2 ** (2 + max((t.depth() for t in types), default=0))

    def decode(self, data: str) -> list[str]:
        """Raises Irregular, naming what is wrong."""
        if data[:2] not in ("0x", "0X"):
            raise Irregular("does not start with 0x")
        raw = unhex(data[2:])
        try:
            values = self._decoder(_MeteredStream(raw, self._reads_max * (len(raw) + 32)))
            return [text(value) for text, value in zip(self._texts, values, strict=True)]
        except UnicodeDecodeError as error:
            raise Irregular(f"a string that is not UTF-8 ({error.reason} at its byte {error.start})") from error
        except (DecodingError, OverflowError) as error:
            raise Irregular(str(error)) from error


class _MeteredStream(ContextFramesBytesIO):
    def __init__(self, data: bytes, bytes_max: int) -> None:
        super().__init__(data)  # type: ignore[no-untyped-call]
        self._left = bytes_max

    def read(self, size: int | None = -1) -> bytes:
        found: bytes = super().read(size)
        self._left -= len(found)
        if self._left < 0:
            raise DecodingError("its offsets overlap: it stands for far more bytes than it has")
        return found


def _text(kind: AbiType) -> Convert:
    """Python value to canonical text."""
    value = _plain(kind)
    match kind.kind:
        case Kind.JSON:
            return lambda v: canonical_json(value(v))
        case Kind.BOOL:
            return lambda v: "1" if v else "0"
        case Kind.INT | Kind.UINT256:
            return str
        case _:
            return value


def _plain(kind: AbiType) -> Convert:
    """Python value to what JSON shows: lists for arrays, objects for tuples whose parts all have names of their own,
    lists for other tuples."""
    if kind.dimensions:
        item = _plain(AbiType(kind.base, kind.dimensions[:-1], kind.components))
        return lambda v: [item(i) for i in v]
    if kind.base == "tuple":
        names = [name for name, _ in kind.components]
        parts = [_plain(t) for _, t in kind.components]
        if all(names) and len(set(names)) == len(names):
            return lambda v: {n: part(i) for n, part, i in zip(names, parts, v, strict=True)}
        return lambda v: [part(i) for part, i in zip(parts, v, strict=True)]
    if kind.integer:
        return str if kind.bits > JSON_NUMBER_BITS_MAX else int
    if kind.base in ("bool", "address"):
        return _as_it_is
    return _storable if kind.base == "string" else _hex


def _as_it_is(value: Any) -> Any:
    return value


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _storable(value: str) -> str:
    if "\0" in value:
        raise Irregular("a string with a NUL character, which Postgres cannot store")
    return value
