"""Every limit of the EVM source, with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from gapless.errors import ConfigError
from gapless.model import Finality, FinalityRule
from gapless.sources.evm.types import Verify
from gapless.sources.evm.verify import ETHEREUM, ChainHashing

MEBIBYTE = 1 << 20
FINALIZED = Finality(FinalityRule.TAG, "finalized")


@dataclass(frozen=True, slots=True)
class EvmOptions:
    """How an EVM source fetches. The defaults suit a public endpoint and a local node alike: sizes and rates are
    learned from there, these are only starts and bounds."""

    verify: Verify = Verify.CHECKED
    hashing: ChainHashing = ETHEREUM
    audit_share: float = 0.01
    """Share of filtered ranges, 0..1, fetched a second time from another endpoint and compared. Needs two endpoints."""
    finality: Finality = FINALIZED
    finality_fallback_depth: int = 128
    """Blocks below the head that count as final where a node does not know the tag: twice an Ethereum justification
    period, so that the fallback is never less strict than the tag on the chains that have one."""
    strict_positions_max: int = 256
    """How many of the newest positions are fetched unfiltered, so that no left-out log goes unseen."""

    connect_timeout_seconds: float = 5.0
    request_timeout_seconds: float = 30.0
    head_timeout_seconds: float = 5.0
    """For the small calls at the head, where waiting costs freshness."""
    request_attempts_max: int = 6
    """How often one range is asked for before `fetch` gives up; the deadline may come first."""
    deadline_seconds: float = 120.0
    """For one `fetch`, all retries and failovers included."""
    backoff_base_seconds: float = 0.1
    backoff_max_seconds: float = 5.0

    poll_seconds: float = 0.5
    """Between two looks at the head. A push channel may make it sooner; nothing makes it later."""
    head_refresh_seconds: float = 5.0
    """How old the finalized position, and what we know of the other endpoints' heads, may become."""
    regression_polls: int = 4
    """A head lower than before is believed when it was seen this many times in a row."""
    identity_check_seconds: float = 60.0
    hint_silence_seconds: float = 60.0
    """A push channel without a message for this long is connected anew."""

    span_start: int = 64
    span_max: int = 2000
    """Blocks per range."""
    answer_bytes_target: int = 8 * MEBIBYTE
    answer_logs_target: int = 20_000
    answer_bytes_max: int = 256 * MEBIBYTE
    """A larger answer is not read to its end."""
    batch_calls_start: int = 32
    batch_calls_max: int = 128
    batch_bytes_target: int = 4 * MEBIBYTE
    concurrency_max: int = 8
    """Requests in flight per endpoint."""
    addresses_per_call_max: int = 500

    rest_after_failures: int = 3
    rest_seconds: float = 1.0
    """First rest of an endpoint that keeps failing; doubles up to `rest_max_seconds`."""
    rest_max_seconds: float = 60.0
    distrust_seconds: float = 600.0
    """How long an endpoint that lied is passed over while another one is there."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.audit_share <= 1.0:
            raise ConfigError(f"audit is {self.audit_share}", todo="Give a share between 0 and 1 (0% to 100%).")
        for name in ("span_start", "span_max", "batch_calls_start", "batch_calls_max", "concurrency_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", todo="Give at least 1.")
