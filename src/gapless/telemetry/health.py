"""`/health/live`, `/health/ready` and `/metrics` over HTTP, from a thread and loop of their own.

Live means that the engine's event loop turns: the thread looks at the age of its last tick, so a frozen loop is
answered with 503 and not with silence. It asks nothing else: a database outage must not restart the fleet. Ready
means that what this process promises holds: it leads, its sources are followed without trouble, and the lag is within
its limit. A standby is live and not ready.
"""

from __future__ import annotations

import asyncio
import errno
import json
import threading
from dataclasses import dataclass

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from gapless.clock import Clock
from gapless.errors import GaplessError, PortTaken
from gapless.model import Mode
from gapless.telemetry.metrics import Metrics
from gapless.telemetry.watch import SourceState, Watch

TICK_SECONDS = 0.5
TICK_AGE_SECONDS_MAX = 10.0
"""A loop that has not turned for so long counts as frozen."""
_START_SECONDS_MAX = 10.0
_STOP_SECONDS_MAX = 2.0
_GOOD = frozenset({Mode.LIVE, Mode.IDLE, Mode.CATCHING_UP})


class Pulse:
    """Shows from other threads that the event loop turns, and how late its ticks come."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.monotonic()
        self._lag_seconds = 0.0

    @property
    def lag_seconds(self) -> float:
        """How late the last tick came, or the next one already is."""
        return max(self._lag_seconds, self.age_seconds - TICK_SECONDS)

    async def beat(self) -> None:
        """Tick until cancelled, on the loop to be watched."""
        while True:
            before = self._last = self._clock.monotonic()
            await self._clock.sleep(TICK_SECONDS)
            self._lag_seconds = max(0.0, self._clock.monotonic() - before - TICK_SECONDS)

    @property
    def age_seconds(self) -> float:
        return self._clock.monotonic() - self._last


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer with the reasons for it, by source (or by `process`)."""

    good: bool
    reasons: dict[str, str]
    checks: dict[str, dict[str, object]]

    def document(self, *, verbose: bool) -> dict[str, object]:
        found: dict[str, object] = {"status": "ok" if self.good else "unavailable", "reasons": self.reasons}
        return {**found, "checks": self.checks} if verbose else found


class Health:
    """Judges what the watch has seen."""

    def __init__(self, watch: Watch, pulse: Pulse, lag_seconds_max: float) -> None:
        self._watch = watch
        self._pulse = pulse
        self._lag_seconds_max = lag_seconds_max

    def live(self) -> Verdict:
        age = self._pulse.age_seconds
        frozen = age > TICK_AGE_SECONDS_MAX
        reasons = {"process": f"the event loop has not turned for {age:.0f} s"} if frozen else {}
        return Verdict(not frozen, reasons, {"process": {"tick_age_seconds": round(age, 3)}})

    def ready(self) -> Verdict:
        live = self.live()
        reasons, checks = dict(live.reasons), dict(live.checks)
        for name, state in self._watch.states.items():
            reason = self._trouble(state)
            if reason is not None:
                reasons[name] = reason
            checks[name] = {
                "mode": state.mode.value,
                "leads": state.leads,
                "head": state.head,
                "position": state.position,
                "lag_positions": state.lag_positions,
                "lag_seconds": state.lag_seconds,
            }
        return Verdict(not reasons, reasons, checks)

    def _trouble(self, state: SourceState) -> str | None:
        if state.mode not in _GOOD:
            return f"{state.mode.value}: {state.reason}" if state.reason else state.mode.value
        if not state.leads:
            return "this process does not lead"
        lag_seconds = state.lag_seconds
        if lag_seconds is None:
            return "nothing is committed yet"
        if lag_seconds > self._lag_seconds_max:
            return f"{state.lag_positions} positions ({lag_seconds:.0f} s) behind the head"
        return None


class Server:
    """The HTTP server. `address` is what it listens on, also where port 0 left the choice to the system."""

    def __init__(self, listen: str, health: Health, metrics: Metrics) -> None:
        host, _, port = listen.rpartition(":")
        self._listen = listen
        self._host = host.strip("[]") or None
        self._port = int(port)
        self._health = health
        self._metrics = metrics
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._failure: OSError | None = None
        self.address: tuple[str, int] = ("", 0)
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        """Returns when it answers. Raises PortTaken, or GaplessError where the address cannot be listened on."""
        self._thread.start()
        self._started.wait(_START_SECONDS_MAX)
        if self._failure is None:
            return
        self._thread.join(_STOP_SECONDS_MAX)
        where = f"{self._listen} ({self._failure.strerror})"
        if self._failure.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"The address to serve metrics and health on is in use: {where}",
                todo='Stop the process that has it, or set another `[telemetry] listen`; "" serves none.',
            ) from self._failure
        raise GaplessError(
            f"The address to serve metrics and health on cannot be used: {where}",
            todo="Correct `[telemetry] listen`.",
        ) from self._failure

    def close(self) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_SECONDS_MAX)

    def _run(self) -> None:
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0.1)
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._bind(runner))
        except OSError as error:
            self._failure = error
            self._started.set()
        else:
            self._started.set()
            self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _bind(self, runner: web.AppRunner) -> None:
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port)
        await site.start()
        self.address = runner.addresses[0][:2]

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/health/live", self._live)
        application.router.add_get("/health/ready", self._ready)
        application.router.add_get("/metrics", self._scrape)
        return application

    async def _live(self, request: web.Request) -> web.Response:
        return _answer(self._health.live(), request)

    async def _ready(self, request: web.Request) -> web.Response:
        return _answer(self._health.ready(), request)

    async def _scrape(self, request: web.Request) -> web.Response:
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encoder(self._metrics.registry), headers={"Content-Type": content_type})


def _answer(verdict: Verdict, request: web.Request) -> web.Response:
    document = {"schema": 1, **verdict.document(verbose="verbose" in request.query)}
    return web.Response(
        status=200 if verdict.good else 503,
        text=json.dumps(document) + "\n",
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
