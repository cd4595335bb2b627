"""kill -9 of workers and of the server, again and again, over a mix of jobs; and how soon a worker is replaced."""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow.budget.ledger import Entry
from agentflow.client import AsyncClient
from agentflow.errors import ApiError
from agentflow.jobs.job import JobBudget, JobSpec, JobState
from agentflow.jobs.service import Jobs
from benchmarks.job_bench import Bench, free_port
from tests.jobs.places import calls_of
from tests.jobs.workers import Workers
from tests.servers.counting import answer

QUESTION = "How high does the tide rise in the Bay of Fundy?"
# Calls: what a bounded job wants, and may make half of.
LIMIT = 20
AMPLE = 400


@dataclass
class _Kills:
    """Jobs of several shapes, each with a reader over HTTP; whoever works or serves is killed while they run."""

    bench: Bench
    workers: Workers
    jobs: Jobs
    client: AsyncClient
    port: int
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    right: dict[str, Any] = field(default_factory=dict[str, Any])
    calls: dict[str, int] = field(default_factory=dict[str, int])
    asks: int = 0
    submitted: int = 0
    bounded: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    readers: dict[str, asyncio.Task[list[int]]] = field(default_factory=dict[str, asyncio.Task[list[int]]])

    async def run(self) -> None:
        found, size = self.bench.found, self.bench.size
        server = await self.bench.serve(self.workers, self.port)
        worker = self.workers.start("--slots", "4")
        tides = await self.research("reference")
        await self.client.wait(tides)
        said = said_in((await self.client.result(tides)).output)
        # Research asks as often as the one that nobody disturbed.
        self.asks = paid((await self.bench.entries([tides]))[tides])
        async with asyncio.TaskGroup() as group:
            while found.kills < size.kills:
                await self.calls_came(self.chance.randint(1, 25), group, said)
                await asyncio.sleep(0.02 * self.chance.random())
                found.kills += 1
                if found.kills % 3 == 0:
                    found.server_kills += 1
                    await asyncio.to_thread(self.workers.end, server)
                    # Submitted while nobody answers: the client's key makes one job of all its tries.
                    submitting = group.create_task(self.submit(group, said))
                    server = await self.bench.serve(self.workers, self.port)
                    await submitting
                else:
                    await asyncio.to_thread(self.workers.end, worker)
                    worker = self.workers.start("--slots", "4")
            await self.judge()

    async def keep_busy(self, group: asyncio.TaskGroup, said: Any) -> None:
        """There is always work to be interrupted."""
        while sum(not reader.done() for reader in self.readers.values()) < 6:
            await self.submit(group, said)

    async def submit(self, group: asyncio.TaskGroup, said: Any) -> None:
        """Of four jobs one is research, submitted over HTTP, one may spend half of what it needs, two fan out."""
        number = self.submitted = self.submitted + 1
        if number % 4 == 0:
            id = await self.research(f"kill-{number}")
            self.right[id], self.calls[id] = said, self.asks
        elif number % 4 == 1:
            query = f"kill-{number}"
            budget = JobBudget(calls=LIMIT // 2)
            spec = JobSpec(kind="keeping", query=query, input={"calls": LIMIT}, budget=budget)
            id = (await self.jobs.submit(spec)).id
            self.bounded[id] = [answer(f"{query} {call}") for call in range(LIMIT)]
        else:
            branches, calls = self.chance.choice([(1, 10), (4, 5), (10, 2)])
            query = f"kill-{number}"
            spec = calls_of(query, branches=branches, calls=calls, pause=0.02, budget=JobBudget(calls=AMPLE))
            id = (await self.jobs.submit(spec)).id
            self.right[id] = [[answer(f"{query} {b}.{c}") for c in range(calls)] for b in range(branches)]
            self.calls[id] = branches * calls
        self.readers[id] = group.create_task(self.follow(id))

    async def research(self, name: str) -> str:
        while True:
            try:
                asked = {"sources": {"paths": [str(self.bench.place.folder / "tides.md")]}, "metadata": {"name": name}}
                asked["budget"] = {"calls": AMPLE}
                return (await self.client.submit(QUESTION, idempotency_key=name, **asked)).id
            except ApiError:
                await asyncio.sleep(0.1)

    async def follow(self, id: str) -> list[int]:
        """The numbers of a job's events as one reader gets them, who comes back whenever the server is gone."""
        numbers: list[int] = []
        while True:
            try:
                async for event in self.client.events(id, since=numbers[-1] if numbers else 0):
                    numbers.append(event.number)
                return numbers
            except ApiError:
                await asyncio.sleep(0.1)

    async def calls_came(self, count: int, group: asyncio.TaskGroup, said: Any) -> None:
        """Wait until so many more calls have reached the model server."""
        total = self.bench.counting.total
        enough = await asyncio.to_thread(total) + count
        async with asyncio.timeout(60):
            while await asyncio.to_thread(total) < enough:
                await self.keep_busy(group, said)
                await asyncio.sleep(0.003)

    async def judge(self) -> None:
        """Whether every job ended in its right result, what it paid, and what its reader got."""
        found = self.bench.found
        for id in [*self.right, *self.bounded]:
            view = await self.jobs.wait(id, seconds=120)
            if view.state != JobState.COMPLETED:
                found.lost += 1
                found.notes.append(f"{id} is {view.state}: {view.error.message if view.error else ''}")
                continue
            said = said_in((await self.client.result(id)).output)
            right = self.right.get(id)
            if right is None:
                right, self.calls[id] = self.bounded[id][: len(said)], len(said)
            found.wrong += said != right or view.partial != (id in self.bounded)
            found.gaps += await self.readers[id] != list(range(1, view.events + 1))
            found.overspend_ratio = max(found.overspend_ratio, view.spend.calls / (view.spec.budget.calls or AMPLE))
        for id, entries in (await self.bench.entries([*self.right, *self.bounded])).items():
            found.in_doubt += sum(entry.state == "in_doubt" for entry in entries)
            # A call of which the ledger had the reply, and which was paid again all the same.
            found.repeated_calls += paid(entries) - self.calls.get(id, 0)


def paid(entries: Sequence[Entry]) -> int:
    """How many replies of models were paid for, and kept."""
    return sum(entry.state == "settled" and entry.labels.model != "" for entry in entries)


def said_in(output: Any) -> Any:
    """What counts of a result: what a fan-out said, or the claims of a report with their quotes."""
    if "said" in output:
        return output["said"]
    return [(claim["text"], [one["quote"] for one in claim["citations"]]) for claim in output["claims"]]


async def kill(bench: Bench) -> None:
    """Kill workers and the server at random moments, and judge what became of the jobs."""
    bench.counting.settings(delay=0.02)
    port = free_port()
    async with bench.workers() as (workers, jobs), AsyncClient(f"http://127.0.0.1:{port}") as client:
        await _Kills(bench, workers, jobs, client, port).run()


async def take_over(bench: Bench) -> None:
    """From the death of a worker to a living one having its job, the median of a few."""
    bench.counting.settings(delay=0.05)
    taken: list[float] = []
    async with bench.workers() as (workers, jobs):
        alone = bench.place.settings.jobs.kind == "sqlite"
        for number in range(bench.size.takeovers):
            first = workers.start()
            job = await jobs.submit(calls_of(f"take-{number}-{time.time_ns()}", pause=3.0))
            while (view := await jobs.get(job.id)).worker is None:
                await asyncio.sleep(0.02)
            if not alone:
                workers.start()
                while len((await jobs.statistics()).workers) < 2:
                    await asyncio.sleep(0.02)
            old = view.worker
            await asyncio.to_thread(workers.end, first)
            started = time.monotonic()
            if alone:
                workers.start()
            while (now := await jobs.get(job.id)).worker in (None, old):
                assert not now.state.ended, "the job ended before its worker was dead"
                await asyncio.sleep(0.02)
            taken.append(time.monotonic() - started)
            for pid in tuple(workers.alive):
                await asyncio.to_thread(workers.end, pid, signal.SIGTERM)
    bench.found.takeover_s = round(statistics.median(taken), 2)
