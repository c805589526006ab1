"""The identity guard: every endpoint must serve the same chain, at the start and ever after.

A chain is its id and its genesis hash; test chains often share an id. An endpoint is checked before its first use,
again after any new or broken connection (somebody may have started another node at that address), and from time to
time.
"""

from __future__ import annotations

import asyncio

from gapless.clock import Clock
from gapless.errors import BadAnswer, SourceError, WrongChain
from gapless.model import Identity
from gapless.sources.evm.endpoints import Endpoint, Pool, verdict
from gapless.sources.evm.options import EvmOptions
from gapless.sources.evm.rpc import HEAD, TEXT, Call

_CHAIN_ID = Call("eth_chainId")
_GENESIS = Call("eth_getBlockByNumber", ("0x0", False))
_LAST_SECOND = 253_402_300_799
"""Of the year 9999."""


class Guard:
    """Admits endpoints that serve the known chain; the first one asked makes it known."""

    def __init__(self, name: str, options: EvmOptions, clock: Clock) -> None:
        self._name = name
        self._options = options
        self._clock = clock
        self._known: Identity | None = None
        self._known_from = ""

    async def admit(self, endpoint: Endpoint, deadline: float) -> None:
        """Return when the endpoint serves the known chain, asking it where that was not seen lately.

        Raises WrongChain when it serves another one, SourceError when it cannot be asked."""
        checked = endpoint.identity_checked_at
        now = self._clock.monotonic()
        if checked is not None and now - checked < self._options.identity_check_seconds:
            return
        self._compare(endpoint, await self._read(endpoint, deadline))

    async def identity(self, pool: Pool, deadline: float) -> Identity:
        """Ask every endpoint now. Those that do not answer are checked when they do.

        Raises WrongChain where two differ, SourceError when none answers."""
        reads = [self._read(endpoint, deadline) for endpoint in pool.endpoints]
        found = await asyncio.gather(*reads, return_exceptions=True)
        errors: dict[str, SourceError] = {}
        for endpoint, identity in zip(pool.endpoints, found, strict=True):
            if isinstance(identity, SourceError):
                errors[endpoint.label] = identity
            elif isinstance(identity, BaseException):
                raise identity
            else:
                self._compare(endpoint, identity)
        if len(errors) == len(pool.endpoints) or self._known is None:
            raise verdict("No endpoint answers", errors)
        return self._known

    async def _read(self, endpoint: Endpoint, deadline: float) -> Identity:
        chain = (await endpoint.call(_CHAIN_ID, TEXT, deadline=deadline, quick=True)).value
        genesis = (await endpoint.call(_GENESIS, HEAD, deadline=deadline, quick=True)).value
        if genesis is None:
            raise BadAnswer(f"{endpoint.label} has no block 0, by which its chain is known")
        return Identity("evm", str(number_of(chain, endpoint.label)), genesis.hash.lower())

    def _compare(self, endpoint: Endpoint, identity: Identity) -> None:
        if self._known is None:
            self._known, self._known_from = identity, endpoint.label
        if identity != self._known:
            raise WrongChain(
                f"{endpoint.label} serves chain {identity.chain} with genesis {identity.genesis}, but the chain is "
                f"{self._known.chain} with genesis {self._known.genesis} (seen at {self._known_from})",
                source=self._name,
                todo="Nothing was written. Remove the address that serves another chain from `rpc`.",
            )
        endpoint.identity_checked_at = self._clock.monotonic()


def number_of(text: str, label: str) -> int:
    """The integer of a quantity. Raises BadAnswer naming the endpoint."""
    try:
        return int(text, 16)
    except ValueError as error:
        raise BadAnswer(f"{label} answered with {text[:40]!r} in the place of a number") from error


def time_of(text: str, label: str) -> int:
    """A block's time in microseconds since 1970 UTC. Raises BadAnswer where it is none, or lies beyond the year 9999,
    where no TIMESTAMP reaches."""
    seconds = number_of(text, label)
    if not 0 <= seconds <= _LAST_SECOND:
        raise BadAnswer(
            f"{label} gave a block of {seconds} seconds after 1970, which is beyond the year 9999; the chain does not "
            "count seconds, or the endpoint lies"
        )
    return seconds * 1_000_000
