"""What one seed decides before anything happens: the setting, and which faults there are, how often.

Swarm testing (Groce et al., ISSTA 2012): every kind of fault is off in a good part of the seeds, for faults hide each
other. A run with all of them gets nowhere, and only shows that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random  # noqa: TID251 - the plan is drawn from the seed

from gapless.testing.behaviour import Behaviour
from gapless.testing.block_lies import (
    ForeignBlock,
    ForeignReceipts,
    NullBlock,
    NullReceipt,
    NullReceipts,
    ReceiptsMiscounted,
    TamperedHeader,
    TamperedReceipt,
    TamperedTransaction,
    Unlinked,
    WrongNumber,
)
from gapless.testing.faults import (
    BatchIncomplete,
    BatchReversed,
    CloseConnection,
    CutBody,
    Html,
    InvalidJson,
    Late,
    Refusal,
    ServerError,
    SlowDrip,
    Stall,
    TooManyRequests,
    WrongId,
)
from gapless.testing.log_lies import (
    ALL_CARRIERS,
    DuplicateLog,
    EmptyLogs,
    ForeignLogs,
    InventedLog,
    NotAskedFor,
    OmitLog,
    OutOfRangeLog,
    TamperedLog,
)
from gapless.testing.methods import Limits

LIES_AT_CHECKED: tuple[Behaviour, ...] = (
    NullBlock(),
    WrongNumber(),
    ForeignBlock(),
    Unlinked(),
    Unlinked(rehash=False),
    EmptyLogs(),
    ForeignLogs(),
    DuplicateLog(),
    InventedLog(),
    NotAskedFor("address"),
    NotAskedFor("topic"),
    OutOfRangeLog(),
    TamperedLog("removed", value=True),
    TamperedLog("blockHash"),
    NullReceipts(),
    NullReceipt(),
    ForeignReceipts(),
    ReceiptsMiscounted(),
    ReceiptsMiscounted(1),
)
"""What the level `checked` promises to refuse everywhere (docs/GUARANTEES.md)."""
LIES_AT_PROVED: tuple[Behaviour, ...] = (
    *LIES_AT_CHECKED,
    OmitLog("any"),
    OmitLog("last"),
    OmitLog("covered"),
    OmitLog("any", mend_bloom=True),
    EmptyLogs(ALL_CARRIERS),
    ForeignLogs(disguised=True),
    DuplicateLog(ALL_CARRIERS),
    TamperedLog("data"),
    TamperedHeader("gasUsed"),
    TamperedHeader("logsBloom"),
    TamperedHeader("transactionsRoot"),
    TamperedTransaction("value"),
    TamperedReceipt("status"),
    TamperedReceipt("gasUsed"),
    ForeignReceipts(disguised=True),
)
FAULTS: tuple[Behaviour, ...] = (
    Late(0.3),
    Late(4.0),
    Stall(),
    SlowDrip(20_000.0),
    CutBody(),
    CutBody(0.7, honest_length=True),
    CloseConnection(),
    Html(502),
    Html(200),
    InvalidJson(),
    ServerError(),
    ServerError(503),
    TooManyRequests(),
    TooManyRequests(1),
    TooManyRequests(7),
    BatchIncomplete(),
    BatchReversed(),
    WrongId(),
    Refusal(-32000, "header not found"),
    Refusal(-32603, "internal error"),
    Refusal(-32005, "limit exceeded"),
)

EVENTS: dict[str, float] = {
    "mine": 6.0,
    "fork": 4.0,
    "unfork": 1.5,
    "rollback": 0.5,
    "finality": 0.7,
    "lie": 3.0,
    "fault": 3.0,
    "lag": 1.5,
    "backwards": 0.5,
    "branch": 1.0,
    "other_chain": 0.15,
    "unreachable": 1.0,
    "slow": 0.7,
    "ease": 4.0,
    "crash": 2.0,
    "stop": 1.0,
    "pause": 2.0,
    "handover": 1.5,
    "freeze": 0.7,
    "database_away": 0.7,
    "database_worse": 1.0,
    "flag": 0.7,
    "tamper": 0.5,
    "rewind": 0.6,
}
"""What may happen, and how often against each other."""
_ALWAYS = frozenset({"mine", "ease"})


@dataclass(frozen=True, slots=True)
class Plan:
    """The setting of one seed. Seconds are simulated ones."""

    seed: int
    processes: int
    nodes: int
    steps: int
    """How many things happen before all is healed."""
    events: dict[str, float]
    """Those that may happen here, with their weights."""
    start: int
    blocks_at_first: int
    logs_max: int
    """Per block."""
    fork_depth_max: int
    finalized_distance: int
    confirmations: int
    verify: str
    lies: tuple[Behaviour, ...]
    faults: tuple[Behaviour, ...]
    strict_positions_max: int
    lease_seconds: float
    poll_seconds: float
    request_seconds: float
    """Longest request."""
    latency_seconds: float
    pace_seconds: float
    """Mean time of a call to the database, or of deriving."""
    clock_off_seconds: float
    clock_drift: float
    commit_refused: float
    commit_unknown: float
    database_refused: float
    database_lost: float
    disk_full: float
    full_check_every: int
    """After so many commits everything is compared, not only what the commit wrote."""
    hints: bool
    limits: tuple[Limits, ...] = field(default=())

    @property
    def distrust(self) -> bool:
        """Whether an operator may see a process end for what its endpoints say."""
        return bool({"other_chain"} & self.events.keys())


def draw_plan(seed: int) -> Plan:
    """The plan of a seed."""
    draw = Random(f"plan {seed}")
    events = {k: w * draw.choice((0.5, 1.0, 2.0)) for k, w in EVENTS.items() if k in _ALWAYS or draw.random() < 0.6}
    finalized_distance = draw.choice((6, 12, 24, 24, 40, 70, 70))
    verify = draw.choice(("checked", "checked", "checked", "proved"))
    lies = LIES_AT_PROVED if verify == "proved" else LIES_AT_CHECKED
    nodes = draw.choice((2, 2, 3, 3, 4))
    return Plan(
        seed=seed,
        processes=draw.choice((1, 2, 2, 2, 2, 3)),
        nodes=nodes,
        steps=draw.choice((10, 20, 30, 50)),
        events=events,
        start=draw.choice((0, 0, 0, 1, 7)),
        blocks_at_first=draw.choice((8, 25, 40, 60, 90, 120)),
        logs_max=draw.choice((0, 1, 3, 3, 6)),
        fork_depth_max=draw.choice((1, 3, 8, 20, 64)),
        finalized_distance=finalized_distance,
        confirmations=draw.choice((0, 0, 0, 0, 1, 3)),
        verify=verify,
        lies=tuple(draw.sample(lies, draw.randint(3, 12))),
        faults=tuple(draw.sample(FAULTS, draw.randint(1, 6))),
        strict_positions_max=draw.choice((256, 80, 5)),
        lease_seconds=draw.choice((2.0, 6.0, 15.0)),
        poll_seconds=draw.choice((0.2, 0.5, 1.0)),
        request_seconds=draw.choice((3.0, 10.0, 30.0)),
        latency_seconds=draw.choice((0.0, 0.005, 0.05, 0.3)),
        pace_seconds=draw.choice((0.0, 0.002, 0.05, 0.2, 0.5)),
        clock_off_seconds=draw.choice((0.0, 5.0, 3600.0)),
        clock_drift=draw.choice((0.0, 0.0, 0.02)),
        commit_refused=draw.choice((0.0, 0.0, 0.05, 0.2)),
        commit_unknown=draw.choice((0.0, 0.0, 0.05, 0.2)),
        database_refused=draw.choice((0.0, 0.0, 0.01, 0.05)),
        database_lost=draw.choice((0.0, 0.0, 0.1)),
        disk_full=draw.choice((0.0, 0.0, 0.0, 0.1)),
        full_check_every=draw.choice((1, 5, 20)),
        hints=draw.random() < 0.4,
        limits=tuple(_limits(draw) for _ in range(nodes)),
    )


def quiet(plan: Plan) -> Plan:
    """The same setting with one process and one node, and nothing that goes wrong."""
    from dataclasses import replace

    return replace(
        plan,
        processes=1,
        nodes=1,
        steps=0,
        events={},
        latency_seconds=0.0,
        pace_seconds=0.0,
        clock_off_seconds=0.0,
        clock_drift=0.0,
        commit_refused=0.0,
        commit_unknown=0.0,
        database_refused=0.0,
        database_lost=0.0,
        disk_full=0.0,
        hints=False,
        limits=(Limits(),),
    )


def _limits(draw: Random) -> Limits:
    """What a provider refuses: nothing, mostly."""
    kind = draw.choice(("", "", "", "range", "results", "batch", "receipts"))
    if kind == "range":
        return Limits(range_blocks_max=draw.choice((1, 5, 20)))
    if kind == "results":
        return Limits(results_max=draw.choice((10, 30)))
    if kind == "batch":
        return Limits(batch_max=draw.choice((1, 4)))
    if kind == "receipts":
        return Limits(missing_methods=frozenset({"eth_getBlockReceipts"}))
    return Limits()
