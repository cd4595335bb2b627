"""Where jobs of a test live: a folder, a database, a configuration; and workers in this process or outside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentflow.budget.ledger import open_ledger
from agentflow.config import Settings, load_settings
from agentflow.jobs.engine import Run, Ticket
from agentflow.jobs.job import JobSpec, JobState, JobView
from agentflow.jobs.kinds import Kinds
from agentflow.jobs.opening import open_database, open_jobs, open_store
from agentflow.jobs.runner import Tries
from agentflow.jobs.service import Jobs
from agentflow.jobs.worker import Worker, WorkerOptions
from agentflow.runtime import Runtime
from tests.jobs import kinds as test_kinds


@dataclass
class Place:
    """One test's jobs. ``environment`` is what a process needs to find the database."""

    folder: Path
    settings: Settings
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def jobs(self) -> Jobs:
        """A service of one's own."""
        return open_jobs(self.settings)


def make_place(folder: Path, model_url: str, postgres_url: str | None = None, **jobs: Any) -> Place:
    """Write a configuration, and read it.

    Args:
        folder: where everything goes.
        model_url: of the only model.
        postgres_url: where jobs and ledger are; SQLite in the folder when None.
        jobs: keys of the table [jobs].
    """
    kinds = "\n".join(f'{name} = "tests.jobs.kinds:{name}"' for name in test_kinds.ALL)
    given = "\n".join(f"{key} = {value}" for key, value in jobs.items())
    if postgres_url is None:
        where = f'[ledger]\nkind = "sqlite"\npath = "{folder}/ledger.db"\n[jobs]\npath = "{folder}/jobs.db"\n'
    else:
        where = '[ledger]\nkind = "postgres"\nurl_env = "TEST_URL"\n[jobs]\nkind = "postgres"\nurl_env = "TEST_URL"\n'
    file = folder / "agentflow.toml"
    file.write_text(
        f'[models.m]\nbackend = "openai"\nmodel = "m"\nbase_url = "{model_url}"\nstream = false\nretries = 0\n'
        'default_output = 20\nprice = { input = 1, output = 2 }\nenergy = { kind = "remote" }\n'
        '[cascades.default]\nrungs = ["code", "m"]\n'
        f'{where}{given}\nstore = {{ path = "{folder}/store" }}\n[jobs.kinds]\n{kinds}\n'
    )
    environment = {} if postgres_url is None else {"TEST_URL": postgres_url}
    return Place(folder, load_settings(file), environment)


class DirectEngine:
    """An engine in this process' memory: what it forgets, the worker's next ticket brings back."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.tickets: list[Ticket] = []

    async def start(self, run: Run, queues: Sequence[str], slots: int) -> None:
        self._run = run

    async def enqueue(self, tickets: Sequence[Ticket]) -> None:
        assert self._run is not None
        for ticket in sorted(tickets, key=lambda ticket: ticket.order):
            self.tickets.append(ticket)
            task = asyncio.create_task(self._run(ticket.job, ticket.number))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def forget(self, ids: Sequence[str]) -> None:
        """It remembers nothing."""

    async def aclose(self) -> None:
        for task in tuple(self._running):
            task.cancel()


@asynccontextmanager
async def at_work(
    place: Place, kinds: Kinds | None = None, options: WorkerOptions | None = None
) -> AsyncGenerator[tuple[Jobs, Worker]]:
    """A worker in this process, on an engine in memory, and the jobs it works on."""
    settings = place.settings
    runtime = Runtime(settings)
    worker = Worker(
        open_database(settings.jobs),
        DirectEngine(),
        runtime,
        kinds or test_kinds.ALL,
        open_store(settings.jobs.store),
        options or WorkerOptions(lease_s=2.0, tries=Tries(3, 0.0)),
    )
    jobs = open_jobs(settings, open_ledger(settings.ledger), worker.nudge)
    enough = asyncio.Event()
    try:
        async with worker, asyncio.TaskGroup() as group:
            group.create_task(worker.serve(enough))
            try:
                yield jobs, worker
            finally:
                enough.set()
    finally:
        await jobs.aclose()
        await runtime.aclose()


async def until(jobs: Jobs, id: str, *states: JobState, seconds: float = 30.0) -> JobView:
    """Wait until a job is in one of these states."""
    async with asyncio.timeout(seconds):
        since = 0
        while (view := await jobs.get(id)).state not in states:
            async for event in jobs.events(id, since=since):
                since = event.number
                if event.kind == "state" and event.data["state"] in states:
                    break
            else:
                await asyncio.sleep(0.02)
    return view


def calls_of(query: str, *, branches: int = 4, calls: int = 5, **more: Any) -> JobSpec:
    """A job of so many calls, which are named after the query."""
    pause = more.pop("pause", 0.0)
    return JobSpec(kind="calls", query=query, input={"branches": branches, "calls": calls, "pause": pause}, **more)
