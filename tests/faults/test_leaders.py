"""T8 and T4b: leaders whose sessions the server ends, and leaders frozen for longer than anything waits for them."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from faults.live import Weaver, at_head, broken, seconds_until, settle, through
from faults.scale import draws, figures, patience, quantile, tiers
from gapless.testing.tcp_proxy import COMMIT, Fault, TcpProxy, Trigger, Weather
from servers.anvil import Anvil, build_transfers
from servers.postgres import PostgresServer
from servers.project import APP, Project, stop

TAKE_OVER_MARGIN_SECONDS = 2.0
GO_ON_SECONDS_MAX = 60.0
AUDIT = f"""
CREATE TABLE public.audit (at timestamptz, token bigint, granted bigint);
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO public.audit SELECT clock_timestamp(), NEW.token, max(token) FROM {APP}.gapless_leases; RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER note AFTER UPDATE OF position ON {APP}_v1.gapless_cursors
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.note();
"""
"""Notes, at the very COMMIT, under which token it was written and which was granted last: the database's witness."""


@dataclass
class Instance:
    """One process with a proxy of its own to the database."""

    project: Project
    proxy: TcpProxy
    process: subprocess.Popen[bytes]


@dataclass
class Pair:
    """Two processes on one database: one leads."""

    url: str
    first: Instance
    second: Instance
    witness: Project

    def roles(self) -> tuple[Instance, Instance]:
        """Leader and standby, by the lease."""
        [(holder,)] = self.witness.sql("select holder from gapless_leases")
        if str(holder).endswith(f":{self.second.process.pid}"):
            return self.second, self.first
        return self.first, self.second

    def written(self) -> tuple[int, int]:
        """How often the source changed, and under which token last."""
        [row] = self.witness.sql("select revision, token from gapless_cursors")
        return row[0], row[1]

    def end_sessions(self) -> int:
        """Of everybody, as an administrator or a failover would."""
        return len(
            self.witness.sql(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid() and application_name like 'gapless%'"
            )
        )

    def zombies(self) -> int:
        """Commits accepted under a token older than the one granted last."""
        return int(self.witness.sql("select count(*) from public.audit where token < granted")[0][0])


@contextmanager
def pair(
    anvil: Anvil, token: str, folder: Path, server: PostgresServer, url: str, *, ttl_seconds: float, build: str = ""
) -> Iterator[Pair]:
    """The first leads and the second waits. `build`: what the first one is broken by."""
    with ExitStack() as stack:
        instances: list[Instance] = []
        for name in ("first", "second"):
            proxy = stack.enter_context(TcpProxy(server.port))
            project = Project(folder / name, through(url, proxy.port), [anvil.url], token, span_max=3, poll="50 ms")
            config = project.folder / project.config
            config.write_text(
                config.read_text().replace('ttl = "3 seconds"', f'ttl = "{round(ttl_seconds * 1000)} ms"')
            )
            if build and not instances:
                stack.enter_context(broken(project, build))
            process = project.start("run")
            stack.callback(end, process)
            instances.append(Instance(project, proxy, process))
            if not instances[1:]:
                project.wait_position(0)
        witness = Project(folder / "witness", url, [anvil.url], token)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(AUDIT.encode())
        yield Pair(url, *instances, witness)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
    stop(process)


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.parametrize(
    "terminations", tiers("TERMINATIONS", 6, 100)[1:]
)  # waits too long now and then for `make test`
def test_ended_sessions_stop_nobody_for_long(
    anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, terminations: int
) -> None:
    """With all sessions ended, and every second time the leader kept from connecting again, somebody writes on within
    the lease's length and two seconds; nothing is lost, and no deposed leader gets a commit through."""
    ttl_seconds, draw = 2.0, draws("ended_sessions", terminations)
    built = build_transfers(anvil, 30, 10, real=False)
    went_on: list[float] = []
    taken_over: list[float] = []
    with pair(anvil, built.token, tmp_path, postgres_server, postgres_url, ttl_seconds=ttl_seconds) as two:
        with Weaver(anvil, built.token, draw, pause=(0.05, 0.15), fork=0.05):
            for n in range(terminations):
                time.sleep(draw.uniform(0.2, 1.0))
                leader, _ = two.roles()
                revision, token = two.written()
                if n % 2:
                    leader.proxy.weather = Weather(refusing=True)
                two.end_sessions()
                if n % 2:
                    leader.proxy.cut()  # a session that was only beginning is not ended, and would keep the lease
                    if two.roles()[0] is not leader:  # the lease had changed hands in between: nobody has to take over
                        leader.proxy.calm()
                        continue
                seconds = seconds_until(
                    lambda r=revision, t=token, n=n: two.written()[n % 2] > (t if n % 2 else r),
                    GO_ON_SECONDS_MAX,
                    lambda: two.first.project.log() + two.second.project.log(),
                )
                (taken_over if n % 2 else went_on).append(seconds)
                leader.proxy.calm()
        lost, doubled = settle(two.witness, anvil, built.token)
        zombies = two.zombies()
    figures(
        "T8 terminations",
        terminations=terminations,
        went_on_p95=round(quantile(went_on, 0.95), 2),
        take_over_p50=round(quantile(taken_over, 0.5), 2),
        take_over_p95=round(quantile(taken_over, 0.95), 2),
        ttl=ttl_seconds,
        lost=lost,
        doubled=doubled,
        zombies=zombies,
    )
    assert (lost, doubled, zombies) == (0, 0, 0)
    limit = (ttl_seconds + TAKE_OVER_MARGIN_SECONDS) * patience(few=terminations < 50)
    assert quantile(taken_over, 0.95) <= limit
    assert quantile(went_on, 0.95) <= limit


def freeze(two: Pair, seconds: float, draw: random.Random) -> None:
    """Freeze the leader, half of the time with a COMMIT on its way that arrives while it is frozen; then thaw it."""
    leader, _ = two.roles()
    held = None
    if draw.random() < 0.5:
        held = leader.proxy.arm(Trigger(COMMIT, Fault.HOLD, since=b"COPY "))
        held.fired.wait(5)
    leader.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds * 0.8)
    if held is not None:
        held.let_go()
    time.sleep(seconds * 0.2)
    leader.process.send_signal(signal.SIGCONT)
    leader.proxy.calm()


@pytest.mark.anvil
@pytest.mark.postgres
@pytest.mark.parametrize(
    ("pauses", "ttl_seconds"),
    [(3, 1.0), *[pytest.param(p.values[0], 4.0, marks=p.marks) for p in tiers("PAUSES", 3, 30)[1:]]],
)
def test_frozen_leaders_write_nothing(
    anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str, pauses: int, ttl_seconds: float
) -> None:
    """Frozen for 1, 3 and 10 lease lengths (with 4 s: longer than every statement, lock and transaction may take) and
    thawed, a leader gets nothing accepted that it may not write, and all goes on without a hand."""
    draw = draws("frozen_leaders", pauses)
    built = build_transfers(anvil, 30, 10, real=False)
    with pair(anvil, built.token, tmp_path, postgres_server, postgres_url, ttl_seconds=ttl_seconds) as two:
        recoveries = []
        with Weaver(anvil, built.token, draw, pause=(0.05, 0.2), fork=0.05):
            for n in range(pauses):
                time.sleep(draw.uniform(0.2, 1.0))
                freeze(two, ttl_seconds * (1, 3, 10)[n % 3], draw)
                revision, _ = two.written()
                recoveries.append(seconds_until(lambda r=revision: two.written()[0] > r, GO_ON_SECONDS_MAX))
        at_head(two.witness, anvil)
        lost, doubled = settle(two.witness, anvil, built.token)
        zombies, alive = two.zombies(), [i.process.poll() for i in (two.first, two.second)]
    figures(
        "T4b pauses",
        pauses=pauses,
        ttl=ttl_seconds,
        zombie_writes=zombies,
        lost=lost,
        doubled=doubled,
        goes_on_after_thaw_p99=round(quantile(recoveries, 0.99), 2),
    )
    assert (lost, doubled, zombies) == (0, 0, 0)
    assert alive == [None, None], "both go on by themselves"


@pytest.mark.anvil
@pytest.mark.postgres
def test_a_build_without_a_fence_is_caught(
    anvil: Anvil, tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    """A leader that checks nothing, frozen with its COMMIT on the way: the database's witness sees it get through."""
    built = build_transfers(anvil, 30, 10, real=False)
    draw = draws("without_a_fence", 1)
    with (
        pair(anvil, built.token, tmp_path, postgres_server, postgres_url, ttl_seconds=1.0, build="no-fence") as two,
        Weaver(anvil, built.token, draw, pause=(0.05, 0.1), fork=0.0),
    ):
        held = two.first.proxy.arm(Trigger(COMMIT, Fault.HOLD, since=b"COPY "))
        assert held.fired.wait(10), two.first.project.log()
        two.first.process.send_signal(signal.SIGSTOP)
        seconds_until(lambda: two.roles()[0] is two.second, 10)
        held.let_go()
        seconds_until(lambda: two.zombies() > 0, 10, two.first.project.log)
