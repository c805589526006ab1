"""Contract ABIs: reading them, and the events they declare.

The form is the Solidity JSON ABI (https://docs.soliditylang.org/en/latest/abi-spec.html#json): a list of entries, or
a compiler artifact that holds it under `abi`. Only events are read.

Events of one name. An event alone of its name (among those selected) is known by that name. Where several share it,
each is known by name and parameter types, `Transfer_address_uint256`; where these agree too and only the indexed
parameters differ (ERC-20's and ERC-721's `Transfer` in one ABI), by their number as well, `…_indexed_2`. So a label
does not depend on the order of the file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from gapless.errors import AbiError
from gapless.schema import Column, Kind
from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.names import column_names, snake_case

BUILT_IN = ("erc20", "erc721", "erc1155")

FIXED_COLUMNS = (
    Column("block_number", Kind.INT),
    Column("block_timestamp", Kind.TIMESTAMP),
    Column("block_hash", Kind.HASH),
    Column("transaction_hash", Kind.HASH),
    Column("transaction_index", Kind.INT),
    Column("log_index", Kind.INT),
    Column("address", Kind.ADDRESS),
)
"""The columns every event table starts with."""

NESTING_MAX = 16
"""Tuples inside tuples. Solidity's stack ends far below; eth-abi's work doubles with each level."""

_FIXED_NAMES = frozenset(c.name for c in FIXED_COLUMNS)
_TYPE = re.compile(r"(?P<base>[a-z]+[0-9]*)(?P<dimensions>(?:\[[0-9]*\])*)")
_SIZED = re.compile(r"(?P<family>uint|int|bytes)(?P<size>[1-9][0-9]*)")
_ALIASES = {"uint": "uint256", "int": "int256", "byte": "bytes1"}
_UNSIZED = frozenset({"address", "bool", "string", "bytes", "function", "tuple"})


@dataclass(frozen=True, slots=True)
class AbiType:
    """A type: an elementary one or a tuple, or arrays of it."""

    base: str
    """`uint256`, `string`, `tuple`, … in canonical form."""
    dimensions: tuple[int | None, ...] = ()
    """`uint8[2][]` has (2, None): the innermost first; None is any length."""
    components: tuple[tuple[str, AbiType], ...] = ()
    """Name and type of a tuple's parts."""

    def __str__(self) -> str:
        base = f"({','.join(str(t) for _, t in self.components)})" if self.base == "tuple" else self.base
        return base + "".join("[]" if n is None else f"[{n}]" for n in self.dimensions)

    @property
    def word(self) -> bool:
        """Whether a value is exactly one 32-byte word, in topics and in data alike."""
        return not self.dimensions and self.base not in ("string", "bytes", "tuple")

    @property
    def bits(self) -> int:
        """The width of an integer type."""
        return int(self.base.lstrip("uint"))

    @property
    def integer(self) -> bool:
        return "int" in self.base

    @property
    def kind(self) -> Kind:
        """What a column of such values holds. Integers that may exceed a signed 64-bit one are UINT256."""
        if self.dimensions or self.base == "tuple":
            return Kind.JSON
        if self.integer:
            return Kind.INT if self.bits < 64 or self.base == "int64" else Kind.UINT256
        simple = {"address": Kind.ADDRESS, "bool": Kind.BOOL, "string": Kind.TEXT, "bytes32": Kind.HASH}
        return simple.get(self.base, Kind.BYTES)

    @property
    def token(self) -> str:
        """The type as part of a name."""
        inner = "tuple_" + "_".join(t.token for _, t in self.components) if self.base == "tuple" else self.base
        return inner + "".join("_array" if n is None else f"_array{n}" for n in self.dimensions)

    def depth(self) -> int:
        """How many tuples lie inside one another."""
        return 1 + max(t.depth() for _, t in self.components) if self.base == "tuple" else 0


@dataclass(frozen=True, slots=True)
class EventInput:
    name: str
    """As in the ABI; may be empty."""
    type: AbiType
    indexed: bool

    @property
    def hashed(self) -> bool:
        """Whether the log holds only the Keccak-256 of the value: an indexed parameter that is not one word."""
        return self.indexed and not self.type.word


@dataclass(frozen=True)
class EventAbi:
    """One event of a contract."""

    name: str
    inputs: tuple[EventInput, ...]
    anonymous: bool = False
    label: str = ""
    """What it is called in tables and handlers: its name, longer where others share it (see the module)."""

    @cached_property
    def signature(self) -> str:
        """`Transfer(address,address,uint256)`."""
        return f"{self.name}({','.join(str(i.type) for i in self.inputs)})"

    @cached_property
    def topic0(self) -> str:
        """Keccak-256 of the signature. An anonymous event's log does not carry it."""
        return "0x" + keccak256(self.signature.encode()).hex()

    @property
    def indexed_count(self) -> int:
        return sum(i.indexed for i in self.inputs)

    @property
    def topic_count(self) -> int:
        return self.indexed_count + (not self.anonymous)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The parameters' columns, in the order of the ABI."""
        wished = [f"{i.name or f'arg{n}'}_hash" if i.hashed else i.name for n, i in enumerate(self.inputs)]
        kinds = [Kind.HASH if i.hashed else i.type.kind for i in self.inputs]
        return tuple(Column(*pair) for pair in zip(column_names(wished, _FIXED_NAMES), kinds, strict=True))


@dataclass(frozen=True)
class Abi:
    """The events of one ABI."""

    origin: str
    """For people: which file or built-in."""
    events: tuple[EventAbi, ...]
    faults: dict[str, AbiError] = field(default_factory=dict)
    """Events that cannot be read, by name: raised when they are selected."""

    def select(self, names: Sequence[str] | None = None) -> tuple[EventAbi, ...]:
        """The events of these names or full signatures (None: all), labelled, in the order of the ABI.

        Raises AbiError for a name that does not exist, an event that cannot be read, and events that cannot be told
        apart."""
        if names is None:
            for fault in self.faults.values():
                raise fault
            return _labelled(self.events, self.origin)
        chosen: set[EventAbi] = set()
        for name in names:
            chosen.update(self._named(name))
        return _labelled([e for e in self.events if e in chosen], self.origin)

    def _named(self, wanted: str) -> list[EventAbi]:
        if wanted in self.faults:
            raise self.faults[wanted]
        canonical = re.sub(r"\b(u?int)\b", r"\g<1>256", "".join(wanted.split()))
        found = [e for e in self.events if canonical in (e.name, e.signature)]
        if found:
            return found
        known = sorted({e.name for e in self.events} | {e.signature for e in self.events})
        close = difflib.get_close_matches(canonical, known, n=1, cutoff=0.5)
        names = sorted({e.name for e in self.events})
        raise AbiError(
            f"{self.origin} has no event {wanted!r}",
            todo=f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(names[:20])}.",
        )


def load_abi(abi: str | Path | Sequence[Any], base_dir: Path | None = None) -> Abi:
    """Read an ABI: a built-in name, the path of a JSON file (relative to `base_dir`), or the parsed list itself.

    Raises AbiError, naming the file and what to do."""
    if isinstance(abi, str | Path):
        origin, text = _read(abi, base_dir)
        try:
            document = json.loads(text)
        except ValueError as error:
            raise AbiError(
                f"{origin} is not JSON: {error}", todo="Give the ABI as the compiler wrote it (a JSON list)."
            ) from error
    else:
        origin, document = "The given ABI", abi
    entries = document.get("abi") if isinstance(document, dict) else document
    if isinstance(entries, str | bytes) or not isinstance(entries, Sequence):
        raise AbiError(
            f"{origin} is not an ABI", todo="It must be a JSON list of entries, or an object with that list as 'abi'."
        )
    events, faults = _events(entries, origin)
    if not events and not faults:
        raise AbiError(f"{origin} has no events", todo="Give the ABI of the contract that emits them.")
    return Abi(origin, events, faults)


def _read(abi: str | Path, base_dir: Path | None) -> tuple[str, str]:
    if abi in BUILT_IN:
        file = resources.files("gapless.sources.evm") / "abis" / f"{abi}.json"
        return f"The built-in ABI {abi!r}", file.read_text("utf-8")
    path = (base_dir or Path()) / Path(abi).expanduser()
    try:
        return f"The ABI file {path}", path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        close = difflib.get_close_matches(str(abi), BUILT_IN, n=1)
        hint = f"Did you mean the built-in {close[0]!r}?" if close else f"Built-in ones: {', '.join(BUILT_IN)}."
        raise AbiError(f"There is no ABI file {path}", todo=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise AbiError(f"The ABI file {path} cannot be read: {error}", todo="Give a readable JSON file.") from error


def _events(entries: Sequence[Any], origin: str) -> tuple[tuple[EventAbi, ...], dict[str, AbiError]]:
    """Every event once: merged ABIs often repeat them."""
    events: dict[EventAbi, None] = {}
    faults: dict[str, AbiError] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise AbiError(f"{origin} holds {str(entry)[:40]!r} where an entry is expected", todo="Give a JSON ABI.")
        if entry.get("type") != "event":
            continue
        try:
            events[_event(entry, origin)] = None
        except AbiError as fault:
            faults[str(entry.get("name"))] = fault
    return tuple(events), faults


def _event(entry: dict[str, Any], origin: str) -> EventAbi:
    name, inputs = entry.get("name"), entry.get("inputs", [])
    if not isinstance(name, str) or not snake_case(name) or not isinstance(inputs, list):
        raise AbiError(f"{origin} has an event without a name or a list of inputs", todo="Mend or remove it.")
    where = f"{origin}, event {name}"
    parameters = tuple(
        EventInput(pname, ptype, bool(raw.get("indexed", False)))
        for raw, (pname, ptype) in ((p, _parameter(p, where)) for p in inputs)
    )
    event = EventAbi(name, parameters, bool(entry.get("anonymous", False)), name)
    if event.topic_count > 4:
        raise AbiError(
            f"{where}, has {event.indexed_count} indexed parameters",
            todo="A log has at most four topics: three parameters, four when the event is anonymous.",
        )
    return event


def _parameter(raw: Any, where: str) -> tuple[str, AbiType]:
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        raise AbiError(f"{where}, has a parameter without a type", todo="Mend it, or leave the event out of 'events'.")
    name = str(raw.get("name") or "")
    return name, _type(raw, f"{where}, parameter {name!r}")


def _type(raw: dict[str, Any], where: str, depth: int = 0) -> AbiType:
    match = _TYPE.fullmatch(raw["type"])
    base = _ALIASES.get(match["base"], match["base"]) if match else ""
    if match is None or not (base in _UNSIZED or _valid_size(base)):
        raise AbiError(
            f"{where}, has the unknown type {raw['type']!r}",
            todo="Known: address, bool, string, bytes, bytes1-32, int8-256, uint8-256, function, tuple, and arrays.",
        )
    sizes = re.findall(r"\[([0-9]*)\]", match["dimensions"])
    if any(s and int(s) == 0 for s in sizes) or depth > NESTING_MAX:
        what = f"tuples nested more than {NESTING_MAX} deep" if depth > NESTING_MAX else f"the empty {raw['type']}"
        raise AbiError(f"{where}, has {what}", todo="Leave the event out of 'events'.")
    components: tuple[tuple[str, AbiType], ...] = ()
    if base == "tuple":
        parts = raw.get("components")
        if not isinstance(parts, list) or not all(
            isinstance(p, dict) and isinstance(p.get("type"), str) for p in parts
        ):
            parts = []
        components = tuple((str(p.get("name") or ""), _type(p, where, depth + 1)) for p in parts)
        if not components:
            raise AbiError(f"{where}, is a tuple without components", todo="Give them as the compiler writes them.")
    return AbiType(base, tuple(int(s) if s else None for s in sizes), components)


def _valid_size(base: str) -> bool:
    match = _SIZED.fullmatch(base)
    if match is None:
        return False
    size = int(match["size"])
    return size <= 32 if match["family"] == "bytes" else size <= 256 and size % 8 == 0


def _labelled(events: Sequence[EventAbi], origin: str) -> tuple[EventAbi, ...]:
    """Give each event a label that no other has, also when written in snake case."""
    candidates: tuple[Callable[[EventAbi], str], ...] = (
        lambda e: e.name,
        lambda e: "_".join([e.name, *(i.type.token for i in e.inputs)]),
        lambda e: "_".join([e.name, *(i.type.token for i in e.inputs), f"indexed_{e.indexed_count}"]),
        lambda e: f"{e.name}_{e.topic0[2:10]}_indexed_{e.indexed_count}",
    )
    labels: dict[EventAbi, str] = {}
    for candidate in candidates:
        named = {e: snake_case(candidate(e)) for e in events if e not in labels}
        count = Counter([*named.values(), *map(snake_case, labels.values())])
        labels.update({e: candidate(e) for e, name in named.items() if count[name] == 1})
    left = [e for e in events if e not in labels]
    if left:
        raise AbiError(
            f"{origin} has the event {left[0].signature} twice, with the same number of indexed parameters",
            todo="Their logs cannot be told apart: remove one of the two from the ABI.",
        )
    return tuple(replace(e, label=labels[e]) for e in events)
