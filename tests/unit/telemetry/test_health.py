"""Health over HTTP: live says that the loop turns, ready says that what this process promises holds."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from gapless.errors import GaplessError, PortTaken
from gapless.model import Mode
from gapless.telemetry.health import Health, Pulse, Server
from gapless.telemetry.metrics import Metrics
from gapless.telemetry.watch import Watch
from gapless.testing.fake_clock import FakeClock


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.watch = Watch(["mainnet"], self.clock)
        self.pulse = Pulse(self.clock)
        self.health = Health(self.watch, self.pulse, lag_seconds_max=60)
        self.metrics = Metrics("erc20", "0.1.0", {"mainnet": "evm"}, self.watch)

    def follow(self) -> None:
        self.watch.lease("mainnet", True, 1)
        self.watch.mode("mainnet", Mode.LIVE, None)
        self.watch.head("mainnet", 100, 50, 100_000_000)
        self.watch.position("mainnet", 100, 100_000_000)


@contextmanager
def served(bench: Bench, listen: str = "127.0.0.1:0") -> Iterator[str]:
    server = Server(listen, bench.health, bench.metrics)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.address[1]}"
    finally:
        server.close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def document(url: str) -> tuple[int, dict[str, Any]]:
    status, body = get(url)
    return status, json.loads(body)


def test_http() -> None:
    """Three paths answer; ready says why not, in JSON."""
    bench = Bench()
    with served(bench) as url:
        assert document(f"{url}/health/live") == (200, {"schema": 1, "status": "ok", "reasons": {}})
        status, said = document(f"{url}/health/ready")
        assert status == 503
        assert said["reasons"] == {"mainnet": "starting"}
        bench.follow()
        assert document(f"{url}/health/ready")[0] == 200
        status, said = document(f"{url}/health/ready?verbose")
        assert said["checks"]["mainnet"]["position"] == 100
        status, body = get(f"{url}/metrics")
        assert status == 200
        assert 'gapless_store_position{source="mainnet"}' in body
        assert get(f"{url}/nowhere")[0] == 404


@pytest.mark.parametrize(
    ("mode", "reason", "said"),
    [
        (Mode.STANDBY, "another process leads this source", "standby: another process leads this source"),
        (Mode.DEGRADED, "The database cannot be reached", "degraded: The database cannot be reached"),
        (Mode.HALTED, "fork too deep", "halted: fork too deep"),
        (Mode.STOPPED, None, "stopped"),
        (Mode.STARTING, None, "starting"),
    ],
)
def test_not_ready(mode: Mode, reason: str | None, said: str) -> None:
    """Any mode but following is not ready, for the reason the mode has."""
    bench = Bench()
    bench.follow()
    bench.watch.mode("mainnet", mode, reason)
    verdict = bench.health.ready()
    assert not verdict.good
    assert verdict.reasons == {"mainnet": said}
    assert bench.health.live().good, "trouble elsewhere is no reason to restart"


def test_not_leading() -> None:
    """Following without the lease is not ready."""
    bench = Bench()
    bench.follow()
    bench.watch.lease("mainnet", False, 0)
    assert bench.health.ready().reasons == {"mainnet": "this process does not lead"}


def test_lag() -> None:
    """Too far behind is not ready; a chain that stands still is."""
    bench = Bench()
    bench.follow()
    bench.watch.head("mainnet", 200, 50, 161_000_000)
    assert bench.health.ready().reasons == {"mainnet": "100 positions (61 s) behind the head"}
    bench.watch.head("mainnet", 200, 50, 159_000_000)
    assert bench.health.ready().good
    bench.watch.position("mainnet", 200, 159_000_000)
    bench.watch.mode("mainnet", Mode.IDLE, "the chain has not moved")
    bench.pulse._last += 100_000
    bench.clock.advance(100_000)
    assert bench.health.ready().good


def test_frozen_loop() -> None:
    """A loop that does not turn is answered with 503 by the thread, and is not ready either."""
    bench = Bench()
    bench.follow()
    with served(bench) as url:
        bench.clock.advance(11)
        status, said = document(f"{url}/health/live")
        assert status == 503
        assert said["reasons"] == {"process": "the event loop has not turned for 11 s"}
        assert document(f"{url}/health/ready")[0] == 503


def test_pulse() -> None:
    """The pulse beats while the loop turns, and measures how late it is."""
    clock = FakeClock()
    pulse = Pulse(clock)

    async def watched() -> None:
        beating = asyncio.create_task(pulse.beat())
        await clock.sleep(5)
        assert pulse.age_seconds < 1
        clock.advance(3)  # the loop is busy with something else
        await clock.sleep(0.1)
        assert pulse.lag_seconds > 2
        beating.cancel()

    clock.run(watched())


def test_port_taken() -> None:
    """An address in use is an error that says which, and what to do."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"in use: 127\.0\.0\.1:{port}.*\[telemetry\] listen") as caught:
            Server(f"127.0.0.1:{port}", Bench().health, Bench().metrics).start()
        assert caught.value.exit_code == 3


def test_address_unusable() -> None:
    """An address this machine does not have is another error."""
    with pytest.raises(GaplessError, match="cannot be used") as caught:
        Server("192.0.2.1:0", Bench().health, Bench().metrics).start()
    assert not isinstance(caught.value, PortTaken)
