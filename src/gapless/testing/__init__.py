"""For tests of what you build on Gapless: a scripted chain, a node that serves it and misbehaves, a clock to move.

    chain = ScriptedChain(seed=1)
    chain.mine(100, logs=5)
    with FakeNode(chain) as node:
        node.behave(OmitLog(), first=40, last=60)
        ...                                        # index node.url
    assert rows == fold(chain).transfers           # the oracle

Or, for the handlers of an app, `Trial(app, node.url).run()`, and `simulate(app, seeds=range(100))` for everything at
once; see docs/howto/test-your-handlers.md.

The contract suites for stores and sources are modules of their own beside these, and so are a disk that fails and
forgets (`faulty_disk`), and a proxy that breaks connections (`tcp_proxy`, whose names are here too).
"""

from __future__ import annotations

from gapless.testing.behaviour import (
    AnswerBehaviour,
    Behaviour,
    Envelope,
    EnvelopeBehaviour,
    Push,
    PushBehaviour,
    Response,
    ResponseBehaviour,
    Scene,
    Switch,
    ViewBehaviour,
)
from gapless.testing.block import (
    NOBODY,
    TOKEN,
    TRANSFER_TOPIC,
    ScriptedBlock,
    ScriptedLog,
    ScriptedTransaction,
    holder,
    transfer,
    word,
)
from gapless.testing.block_lies import (
    ForeignBlock,
    ForeignReceipts,
    GoesBackwards,
    NullBlock,
    NullReceipt,
    NullReceipts,
    OtherChainId,
    OtherGenesis,
    ReceiptsMiscounted,
    StaleReplica,
    TamperedHeader,
    TamperedReceipt,
    TamperedTransaction,
    Unlinked,
    WrongNumber,
)
from gapless.testing.calls import Call, RpcFault, View
from gapless.testing.chain import ScriptedChain
from gapless.testing.dispatch import NodeStatistics
from gapless.testing.fake_clock import FakeClock
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
from gapless.testing.fold import Fold, TransferRow, fold, fold_logs
from gapless.testing.log_lies import (
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
from gapless.testing.node import FakeNode
from gapless.testing.pushes import (
    DroppedSocket,
    DuplicatedHeads,
    GarbageHeads,
    OutOfOrderHeads,
    RefusedSocket,
    SilentHeads,
)
from gapless.testing.simulation import Outcome, simulate
from gapless.testing.simulation_checks import SimulationFailed
from gapless.testing.tcp_proxy import Armed, Direction, Fault, TcpProxy, Trigger, Weather
from gapless.testing.trial import Trial
from gapless.testing.virtual_loop import EverybodyWaits

__all__ = [
    "NOBODY",
    "TOKEN",
    "TRANSFER_TOPIC",
    "AnswerBehaviour",
    "Armed",
    "BatchIncomplete",
    "BatchReversed",
    "Behaviour",
    "Call",
    "CloseConnection",
    "CutBody",
    "Direction",
    "DroppedSocket",
    "DuplicateLog",
    "DuplicatedHeads",
    "EmptyLogs",
    "Envelope",
    "EnvelopeBehaviour",
    "EverybodyWaits",
    "FakeClock",
    "FakeNode",
    "Fault",
    "Fold",
    "ForeignBlock",
    "ForeignLogs",
    "ForeignReceipts",
    "GarbageHeads",
    "GoesBackwards",
    "Html",
    "InvalidJson",
    "InventedLog",
    "Late",
    "Limits",
    "NodeStatistics",
    "NotAskedFor",
    "NullBlock",
    "NullReceipt",
    "NullReceipts",
    "OmitLog",
    "OtherChainId",
    "OtherGenesis",
    "OutOfOrderHeads",
    "OutOfRangeLog",
    "Outcome",
    "Push",
    "PushBehaviour",
    "ReceiptsMiscounted",
    "Refusal",
    "RefusedSocket",
    "Response",
    "ResponseBehaviour",
    "RpcFault",
    "Scene",
    "ScriptedBlock",
    "ScriptedChain",
    "ScriptedLog",
    "ScriptedTransaction",
    "ServerError",
    "SilentHeads",
    "SimulationFailed",
    "SlowDrip",
    "StaleReplica",
    "Stall",
    "Switch",
    "TamperedHeader",
    "TamperedLog",
    "TamperedReceipt",
    "TamperedTransaction",
    "TcpProxy",
    "TooManyRequests",
    "TransferRow",
    "Trial",
    "Trigger",
    "Unlinked",
    "View",
    "ViewBehaviour",
    "Weather",
    "WrongId",
    "WrongNumber",
    "fold",
    "fold_logs",
    "holder",
    "simulate",
    "transfer",
    "word",
]
