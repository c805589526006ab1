"""What an app follows: contracts by address or at any address, and which logs that asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.errors import ConfigError
from gapless.schema import Nature, Table
from gapless.sources.evm.abi import FIXED_COLUMNS, EventAbi, load_abi
from gapless.sources.evm.keccak import keccak256
from gapless.sources.evm.names import table_name
from gapless.sources.evm.types import LogClause

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def checksum_address(address: str) -> str:
    """The mixed-case form of EIP-55."""
    digits = address[2:].lower()
    digest = keccak256(digits.encode()).hex()
    return "0x" + "".join(c.upper() if int(d, 16) >= 8 else c for c, d in zip(digits, digest, strict=False))


def parse_address(text: str, where: str = "The address") -> str:
    """Lower case of an address as people write it. Mixed case must pass its EIP-55 checksum; raises ConfigError."""
    if not _ADDRESS.fullmatch(text):
        raise ConfigError(f"{where} {text!r} is not an address", todo="Write 0x and 40 hex digits.")
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper()) and text != checksum_address(text):
        raise ConfigError(
            f"{where} {text} fails its checksum (EIP-55): a digit or the case of a letter is wrong",
            todo=f"If the digits are right, write {checksum_address(text)}, or all of it in lower case.",
        )
    return text.lower()


@dataclass(frozen=True, slots=True)
class ContractSpec:
    """Events of a contract, or of every contract that emits them."""

    name: str
    events: tuple[EventAbi, ...]
    addresses: frozenset[str] | None
    """Lower case; None is any address."""
    named_topics: frozenset[str] = frozenset()
    """First topics of all named events of the ABI, selected or not: logs with them are not anonymous ones."""

    def __post_init__(self) -> None:
        """Raises ConfigError for what cannot be followed."""
        where = f"Contract {self.name!r}"
        if not self.events:
            raise ConfigError(f"{where} has no events", todo="Name some in 'events', or leave the key out.")
        if self.addresses is not None:
            if not self.addresses:
                raise ConfigError(
                    f"{where} has an empty list of addresses", todo="Leave 'address' out for any address."
                )
            normal = frozenset(parse_address(a, f"{where}: the address") for a in self.addresses)
            object.__setattr__(self, "addresses", normal)
        self._check_anonymous(where)

    def _check_anonymous(self, where: str) -> None:
        by_count: dict[int, EventAbi] = {}
        for event in self.events:
            if not event.anonymous:
                continue
            if self.addresses is None:
                raise ConfigError(
                    f"{where} has no address, and its event {event.name} is anonymous: any log could be one",
                    todo="Give the address, or list the other events in 'events'.",
                )
            if event.topic_count in by_count:
                raise ConfigError(
                    f"{where} has the anonymous events {by_count[event.topic_count].name} and {event.name} with "
                    "equally many indexed parameters: nothing tells their logs apart",
                    todo="List only one of them in 'events'.",
                )
            by_count[event.topic_count] = event

    @classmethod
    def load(
        cls,
        name: str,
        abi: str | Path | Sequence[Any],
        address: str | Iterable[str] | None = None,
        events: Sequence[str] | None = None,
        base_dir: Path | None = None,
    ) -> ContractSpec:
        """From what a config says: a built-in ABI, a file or a parsed list; one address, several, or none for any.

        Raises AbiError and ConfigError."""
        found = load_abi(abi, base_dir)
        topics = frozenset(e.topic0 for e in found.events if not e.anonymous)
        addresses = None if address is None else frozenset([address] if isinstance(address, str) else address)
        return cls(name, found.select(events), addresses, topics)

    def table(self, event: EventAbi, source: str) -> Table:
        """`<contract>_<event>`: the columns that place the log, then the parameters."""
        columns = (*FIXED_COLUMNS, *event.columns)
        return Table(table_name(self.name, event.label), source, Nature.FACT, columns, ("block_number", "log_index"))

    def event_name(self, event: EventAbi) -> str:
        """What handlers subscribe to: `<contract>.<Event>`."""
        return f"{self.name}.{event.label}"


def log_clauses(contracts: Sequence[ContractSpec]) -> tuple[LogClause, ...]:
    """The fewest clauses that ask for exactly the logs these contracts need, in a fixed order.

    Addresses that need the same events share a clause. Addresses with different ones do not: a clause of both would
    fetch every Transfer of a token of which only the rare `Upgraded` is wanted."""
    anywhere = frozenset(e.topic0 for c in contracts if c.addresses is None for e in c.events)
    wanted: dict[str, set[str] | None] = {}
    for contract in contracts:
        for address in contract.addresses or ():
            topics = wanted.setdefault(address, set())
            if any(e.anonymous for e in contract.events):
                wanted[address] = None
            elif topics is not None:
                topics.update(e.topic0 for e in contract.events if e.topic0 not in anywhere)
    grouped: dict[frozenset[str] | None, set[str]] = {}
    for address, topics in wanted.items():
        grouped.setdefault(None if topics is None else frozenset(topics), set()).add(address)
    clauses = [LogClause(frozenset(a), t) for t, a in grouped.items() if t is None or t]
    clauses.sort(key=lambda c: min(c.addresses or ("",)))
    return (*([LogClause(None, anywhere)] if anywhere else []), *clauses)
