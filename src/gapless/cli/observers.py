"""Who hears the engine during a run: the watch behind bar and health, and metrics where they are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gapless import __version__
from gapless.engine.observer import Observer, Observers
from gapless.telemetry.watch import Watch

if TYPE_CHECKING:
    from gapless.cli.project import Project
    from gapless.telemetry.health import Pulse, Server


class Watching(Watch, Observer):
    """The watch, as the engine's observer."""


class Service:
    """The HTTP service of a run: metrics and health."""

    def __init__(self, project: Project, watch: Watching) -> None:
        from gapless.sources.evm.lies import LIES
        from gapless.telemetry.health import Health, Pulse, Server
        from gapless.telemetry.metrics import Metrics

        class Metering(Metrics, Observer):
            """Metrics, as the engine's observer."""

        config = project.config
        kinds = {name: source.kind for name, source in config.sources.items()}
        self.metrics: Observer
        self.metrics = metrics = Metering(config.app.name, __version__, kinds, watch, LIES)
        self.pulse: Pulse = Pulse(project.clock)
        metrics.loop_lag(lambda: self.pulse.lag_seconds)
        health = Health(watch, self.pulse, config.telemetry.ready_lag_max_seconds)
        self.server: Server = Server(config.telemetry.listen, health, metrics)


def observe(project: Project, watch: Watching) -> tuple[Observer, Service | None]:
    """What to hand to the engine, and the service where `[telemetry] listen` asks for one."""
    if not project.config.telemetry.listen:
        return watch, None
    service = Service(project, watch)
    return Observers([watch, service.metrics]), service
