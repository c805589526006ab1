"""The configuration as one frozen typed tree. Sections equal packages; every field has a unit, a default and a line.

Names in the file are short (`ttl = "15 seconds"`); attributes say their unit (`config.lease.ttl_seconds`). The
reference page and the JSON Schema are generated from these classes: what is said here is what users read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from gapless.config.fields import (
    Addresses,
    AppName,
    ContractName,
    Count,
    Datasets,
    JournalUrl,
    Listen,
    Names,
    NotEmpty,
    Position,
    RpcUrls,
    SourceName,
    StoreUrl,
    Switch,
)
from gapless.config.units import Duration, FinalityText, Share, Size, Start
from gapless.model import Finality, FinalityRule


class Section(BaseModel):
    """A part of the tree: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, serialize_by_alias=True, defer_build=True
    )


class App(Section):
    """What the app is called."""

    name: AppName = Field(description="Also the database schema or table prefix. Up to 40 characters: `a-z0-9_`.")


class Store(Section):
    """Where the tables live."""

    url: StoreUrl = Field(
        description="`sqlite:///file.db` (relative to the configuration file) or `postgresql://user@host/database`. "
        "`url_file` names a file that holds it instead. Left out: `sqlite:///<app name>.db`."
    )
    pool_max: Count = Field(default=20, description="Most connections open at a time (Postgres).")
    idle_timeout_seconds: Duration = Field(
        default=30.0,
        alias="idle_timeout",
        description="Close a pooled connection that was not used for so long (Postgres).",
    )
    connect_timeout_seconds: Duration = Field(
        default=5.0, alias="connect_timeout", description="Give up connecting after this."
    )
    statement_timeout_seconds: Duration = Field(
        default=30.0, alias="statement_timeout", description="Give up one statement after this, also a wait for a lock."
    )


class Journal(Section):
    """What lies between a source and its indexers."""

    url: JournalUrl = Field(
        default="memory:",
        description="`memory:`, a bounded buffer in the process. `url_file` names a file that holds it.",
    )


class Hashing(Section):
    """What this chain hashes as Ethereum does; a part that differs is switched off and then not recomputed."""

    headers: Switch = Field(default=True, description="The block hash is the Keccak of the RLP of the header's fields.")
    transactions: Switch = Field(
        default=True, description="`transactionsRoot` is the trie root over encoded transactions."
    )
    receipts: Switch = Field(default=True, description="`receiptsRoot` is the trie root over encoded receipts.")
    withdrawals: Switch = Field(default=True, description="`withdrawalsRoot` is the trie root over the withdrawals.")
    bloom: Switch = Field(default=True, description="`logsBloom` covers the address and topics of every log.")


class Chain(Section):
    """What every chain source has, live or replayed."""

    start: Start = Field(
        default=0, description='First position: a number, `"head"`, or a date (first block at or after it).'
    )
    end: Position | None = Field(default=None, description="Last position; left out: follow for ever.")
    finality: FinalityText = Field(
        default=Finality(FinalityRule.TAG, "finalized"),
        description="When an entry never changes: the chain's tag (`finalized` or `safe`), a depth such as "
        '`"12 blocks"`, or an age such as `"15 minutes"`.',
    )
    confirmations: Position = Field(default=0, description="Stay this many positions behind the head.")
    verify: Literal["off", "linked", "checked", "proved"] = Field(
        default="checked",
        description="How much of every answer is checked before it is committed (see docs/GUARANTEES.md).",
    )
    datasets: Datasets = Field(default=(), description="Raw tables to keep: `blocks`, `transactions`, `logs`.")
    chain_id: Count | None = Field(
        default=None, description="Refuse endpoints of any other chain. Left out: not compared."
    )
    reorg_max: Count = Field(
        default=1000, description="Most positions undone without an operator; a deeper fork halts."
    )
    stall_after_seconds: Duration = Field(
        default=300.0, alias="stall_after", description="Call the source idle when its head has not moved for so long."
    )
    poll_seconds: Duration = Field(
        default=0.5, alias="poll", description="Ask for the head this often; a WebSocket hint shortens the wait."
    )
    span_max: Count = Field(
        default=2000, description="Most positions one fetch asks for; it adapts below this by itself."
    )
    hashing: Hashing = Field(default_factory=Hashing, description="What of this chain hashes as Ethereum does.")


class EvmSource(Chain):
    """An EVM chain behind JSON-RPC endpoints."""

    kind: Literal["evm"] = Field(description="`evm`.")
    rpc: RpcUrls = Field(
        description="Endpoints, tried by score; `ws://` ones give head hints. `rpc_file`: one URL a line in a file."
    )
    audit: Share = Field(
        default=0.01, description="Share of ranges compared with a second endpoint, where there is one."
    )
    timeout_seconds: Duration = Field(default=30.0, alias="timeout", description="Give up one request after this.")
    deadline_seconds: Duration = Field(
        default=120.0, alias="deadline", description="Give up one fetch, with its retries and failovers, after this."
    )
    attempts_max: Count = Field(default=6, description="Most attempts at one fetch; the deadline may come first.")
    batch_max: Count = Field(
        default=128, description="Most calls in one JSON-RPC batch; it adapts below this by itself."
    )
    concurrency: Count = Field(default=8, description="Most requests in flight for each endpoint.")
    answer_max_bytes: Size = Field(
        default=256 * 2**20, alias="answer_max", description="Stop reading an answer that is larger."
    )
    silence_seconds: Duration = Field(
        default=60.0, alias="silence", description="Reconnect a WebSocket that pushed nothing for so long."
    )


class ReplaySource(Chain):
    """A recorded chain, served from a file without a network."""

    kind: Literal["replay"] = Field(description="`replay`.")
    file: NotEmpty = Field(description="The recording; relative to the configuration file.")


Source = Annotated[EvmSource | ReplaySource, Field(discriminator="kind")]


class Contract(Section):
    """Events of one contract, or of every contract that emits them; each becomes a table."""

    source: SourceName = Field(description="The source it lives on; may be left out where there is only one.")
    abi: NotEmpty = Field(
        description="`erc20`, `erc721` or `erc1155`, or the path of an ABI as JSON, relative to the configuration file."
    )
    address: Addresses | None = Field(default=None, description="One address or a list. Left out: any address.")
    events: Names | None = Field(
        default=None, description="Names, or signatures where a name is overloaded. Left out: all events of the ABI."
    )


class Telemetry(Section):
    """What an operator sees."""

    listen: Listen = Field(
        default="", description="`host:port` for `/metrics`, `/health/live` and `/health/ready`. Empty: none."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto`: for people on a terminal, JSON elsewhere. Logs go to standard error."
    )
    ready_lag_max_seconds: Duration = Field(
        default=60.0,
        alias="ready_lag_max",
        description="`/health/ready` fails while a source is further behind its head.",
    )


class Lease(Section):
    """Leadership: one process writes a source."""

    ttl_seconds: Duration = Field(
        default=15.0, alias="ttl", description="A leader that was not heard of for so long is replaced by a standby."
    )


class Limits(Section):
    """Bounds of the pipeline; when one is reached, the stage before it waits."""

    inflight_segments_max: Count = Field(
        default=4, description="Most segments of a source fetched ahead of the one being derived."
    )
    memory_max_bytes: Size = Field(
        default=64 * 2**20,
        alias="memory_max",
        description="Fetching pauses while so many received bytes of a source wait to be derived.",
    )


class Config(Section):
    """The whole configuration of one app."""

    app: App
    store: Store
    journal: Journal = Field(default_factory=Journal)
    sources: Mapping[SourceName, Source] = Field(min_length=1)
    contracts: Mapping[ContractName, Contract] = Field(default_factory=dict)
    telemetry: Telemetry = Field(default_factory=Telemetry)
    lease: Lease = Field(default_factory=Lease)
    limits: Limits = Field(default_factory=Limits)

    _path: Path | None = PrivateAttr(None)
    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The file it was read from; None where it was built in Python."""
        return self._path

    @property
    def origins(self) -> Mapping[str, str]:
        """Where the value of each key that was set comes from: `file`, `environment GAPLESS_…`, `file PATH`, `python`.

        By dotted key; a key that is not here has its default."""
        return self._origins

    def with_origins(self, path: Path | None, origins: Mapping[str, str]) -> Config:
        """This tree, with the file it was read from and the origin of its keys."""
        self._path = path
        self._origins = dict(origins)
        return self
