"""What one source's follower works with."""

from __future__ import annotations

from dataclasses import dataclass

from gapless.clock import Clock
from gapless.engine import plan
from gapless.engine.derive import Deriver
from gapless.engine.flags import Switchboard
from gapless.engine.lease import LeaseKeeper
from gapless.engine.mend import Mender
from gapless.engine.observer import Observer
from gapless.engine.offload import Offload
from gapless.sources import AnySource
from gapless.store import Store


@dataclass(frozen=True, slots=True)
class Lane:
    """Everything one source's follower works with."""

    source: AnySource
    deriver: Deriver
    store: Store
    options: plan.FollowOptions
    clock: Clock
    offload: Offload
    observer: Observer
    keeper: LeaseKeeper
    mender: Mender
    switches: Switchboard
