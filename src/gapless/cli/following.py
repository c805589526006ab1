"""One run: signals, jobs, what hears the engine and what is shown meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from gapless.cli import output
from gapless.cli.observers import Watching, observe
from gapless.cli.progress import Bar, Lines
from gapless.engine.runner import Runner
from gapless.telemetry import logs
from gapless.wiring import build_job

if TYPE_CHECKING:
    from gapless.cli.project import Project
    from gapless.engine.observer import Observer
    from gapless.engine.plan import Until
    from gapless.store import Store


class Run:
    """One run, from the first job to the last report."""

    def __init__(self, project: Project, store: Store, until: Until | int) -> None:
        self._project = project
        self._store = store
        self._until = until
        self._runner: Runner | None = None
        self._interrupted = False
        self._stopping = False
        self.watch: Watching = Watching(project.config.sources, project.clock)

    async def follow(self) -> bool:
        """Returns when stopped (True after Ctrl-C) or when the end is reached. Raises what ended it."""
        telemetry = self._project.config.telemetry
        logs.configure(telemetry.log_level, telemetry.log_format, fields={"app": self._project.config.app.name})
        main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number, main)
        observer, service = observe(self._project, self.watch)
        display = self._display()
        work = [display.show()] if service is None else [display.show(), service.pulse.beat()]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            if service is not None:
                service.server.start()
            await self._run(observer)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            display.close()
            self._summarize()
            if service is not None:
                service.server.close()
        return self._interrupted

    async def _run(self, observer: Observer) -> None:
        project = self._project
        jobs = []
        try:
            for wired in project.wired.values():
                job = await build_job(project.app, wired, self._store, project.clock, until=self._until)
                jobs.append(job)
            ttl_seconds = project.config.lease.ttl_seconds
            runner = Runner(jobs, project.schema, self._store, project.clock, observer, ttl_seconds)
        except BaseException:
            for job in jobs:
                await job.source.close()
            raise
        self._runner = runner
        await runner.run()

    def _summarize(self) -> None:
        for name, state in self.watch.states.items():
            if state.position is not None:
                did = f"{output.counted(state.entries, 'position')} and {output.counted(state.rows, 'row')} committed"
                output.talk(f"{name}: {did}; at {output.cell(state.position)}, head {output.cell(state.head)}.")

    def _stop(self, number: signal.Signals, main: asyncio.Task[Any] | None) -> None:
        """The first signal asks for a graceful end; the second ends at once, which a commit survives."""
        if self._stopping:
            os._exit(130 if number == signal.SIGINT else 1)
        self._stopping = True
        self._interrupted = number == signal.SIGINT
        output.talk("Stopping after the commit in progress; once more to stop at once.")
        if self._runner is not None:
            self._runner.stop()
        elif main is not None:
            main.cancel()

    def _display(self) -> Bar | Lines:
        people = sys.stderr.isatty() and self._project.config.telemetry.log_format != "json"
        return (Bar if people else Lines)(self.watch, self._project.clock)
