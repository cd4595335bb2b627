"""Durable jobs under kill -9, load and a stopwatch, on SQLite and on PostgreSQL.

    python -m benchmarks.jobs [--quick] [--json] [--engine sqlite|postgres]

Workers are real processes (``agentflow worker``), the model server is a real one that counts what reaches it, and all
of it runs on this machine. Timings are wall clock, whatever else it does. What a figure is held against stands beside
it; the program ends with 1 when one misses. ``--quick`` has fewer kills and jobs, and leaves memory out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentflow.budget.ledger import Entry, EntryFilter, open_ledger
from agentflow.budget.ledger.durable import DurableLedger
from agentflow.jobs.job import JobBudget, JobSpec, JobState
from agentflow.jobs.service import Jobs
from benchmarks.table import Figure, show
from tests.jobs.places import Place, calls_of, make_place
from tests.jobs.workers import Workers
from tests.servers.counting import CountingServer, answer
from tests.servers.postgres import PostgresServer, programs

SSE = "null: readers of events over HTTP are measured with the server"
BRANCHES = 4


@dataclass(frozen=True)
class Size:
    """How much is done."""

    kills: int
    jobs: int
    running: int
    submitted: int
    compared: int
    echoes: int


FULL = Size(kills=100, jobs=1_000, running=200, submitted=300, compared=100, echoes=10_000)
QUICK = Size(kills=8, jobs=30, running=30, submitted=60, compared=30, echoes=0)


@dataclass
class Found:
    """What one engine came to. None was not measured."""

    kills: int = 0
    lost: int = 0
    wrong: int = 0
    repeated_calls: int = 0
    in_doubt: int = 0
    gaps: int = 0
    overspend_ratio: float = 0.0
    takeover_s: float | None = None
    jobs: int = 0
    jobs_per_s: float | None = None
    calls_per_s: float | None = None
    submit_p95_ms: float | None = None
    durable_cpu_ratio: float | None = None
    cpu_ms_per_call: float | None = None
    memory_growth: float | None = None
    notes: list[str] = field(default_factory=list)


class Bench:
    """One engine, one folder, one model server."""

    def __init__(self, place: Place, counting: CountingServer, size: Size) -> None:
        self.place = place
        self.counting = counting
        self.size = size
        self.found = Found()

    async def run(self) -> Found:
        steps = [self.kill, self.take_over, self.submit, self.load, self.compare]
        for step in [*steps, *([self.remember] if self.size.echoes else [])]:
            started = time.monotonic()
            await step()
            print(f"  {step.__name__}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        return self.found

    async def kill(self) -> None:
        """Jobs of several shapes; a worker is killed again and again while they run."""
        chance, found = random.Random(11), self.found
        self.counting.settings(delay=0.02)
        async with self.workers() as (workers, jobs):
            shapes: dict[str, tuple[str, int, int]] = {}

            async def submit(number: int) -> None:
                branches, calls = chance.choice([(1, 10), (4, 5), (10, 2)])
                query = f"kill-{number}"
                spec = calls_of(query, branches=branches, calls=calls, pause=0.02, budget=JobBudget(calls=400))
                shapes[(await jobs.submit(spec)).id] = (query, branches, calls)

            for number in range(6):
                await submit(number)
            while found.kills < self.size.kills:
                pid = workers.start("--slots", "4")
                await self.calls_came(chance.randint(1, 25))
                await asyncio.sleep(0.02 * chance.random())
                await asyncio.to_thread(workers.end, pid)
                found.kills += 1
                # One more for each kill: there is always work to be interrupted.
                await submit(6 + found.kills)
            workers.start("--slots", "4")
            for id, (query, branches, calls) in shapes.items():
                await self.judge(jobs, id, query, branches, calls)

    async def calls_came(self, count: int) -> None:
        """Wait until so many more calls have reached the server."""
        enough = await asyncio.to_thread(self.counting.total) + count
        async with asyncio.timeout(60):
            while await asyncio.to_thread(self.counting.total) < enough:
                await asyncio.sleep(0.003)

    async def judge(self, jobs: Jobs, id: str, query: str, branches: int, calls: int) -> None:
        """Whether a job ended in its right result, and what it paid."""
        found = self.found
        view = await jobs.wait(id, seconds=120)
        if view.state != JobState.COMPLETED:
            found.lost += 1
            found.notes.append(f"{id} is {view.state}: {view.error.message if view.error else ''}")
            return
        right = [[answer(f"{query} {b}.{c}") for c in range(calls)] for b in range(branches)]
        found.wrong += (await jobs.result(id)).output != {"said": right}
        entries = await self.entries(id)
        settled = sum(entry.state == "settled" for entry in entries)
        doubted = sum(entry.state == "in_doubt" for entry in entries)
        # A call of which the ledger had the reply, and which was paid again all the same.
        found.repeated_calls += settled - branches * calls
        found.in_doubt += doubted
        numbers = [event.number async for event in jobs.events(id, follow=False)]
        found.gaps += numbers != list(range(1, view.events + 1))
        limit = view.spec.budget.calls
        if limit:
            found.overspend_ratio = max(found.overspend_ratio, view.spend.calls / limit)

    async def take_over(self) -> None:
        """From the death of a worker to a living one having its job, the median of a few."""
        self.counting.settings(delay=0.05)
        taken: list[float] = []
        async with self.workers() as (workers, jobs):
            sqlite = self.place.settings.jobs.kind == "sqlite"
            for number in range(3 if self.size is FULL else 1):
                first = workers.start()
                job = await jobs.submit(calls_of(f"take-{number}-{time.time_ns()}", pause=2.0))
                while (view := await jobs.get(job.id)).worker is None:
                    await asyncio.sleep(0.02)
                if not sqlite:
                    workers.start()
                    await asyncio.sleep(1.5 + 2 * self.place.settings.jobs.lease_s)
                    if (await jobs.get(job.id)).state.ended:
                        continue
                    view = await jobs.get(job.id)
                old = view.worker
                await asyncio.to_thread(workers.end, first)
                started = time.monotonic()
                if sqlite:
                    workers.start()
                while (now := await jobs.get(job.id)).worker in (None, old):
                    if now.state.ended:
                        break
                    await asyncio.sleep(0.02)
                taken.append(time.monotonic() - started)
                for pid in tuple(workers.alive):
                    await asyncio.to_thread(workers.end, pid, signal.SIGTERM)
        self.found.takeover_s = round(statistics.median(taken), 2) if taken else None

    async def submit(self) -> None:
        """How long a submission takes while many jobs run."""
        self.counting.settings(delay=0.05)
        async with self.workers() as (workers, jobs):
            workers.start("--slots", str(self.size.running))
            running = [
                (await jobs.submit(calls_of(f"busy-{n}-{time.time_ns()}", branches=1, calls=40, pause=0.5))).id
                for n in range(self.size.running)
            ]
            while sum(q.at_work for q in (await jobs.statistics()).queues) < self.size.running * 0.9:
                await asyncio.sleep(0.05)
            took: list[float] = []
            for number in range(self.size.submitted):
                started = time.perf_counter()
                await jobs.submit(JobSpec(kind="echo", query=str(number), queue="nobody"))
                took.append((time.perf_counter() - started) * 1000)
                await asyncio.sleep(0.005)
            self.found.submit_p95_ms = round(statistics.quantiles(took, n=20)[-1], 1)
            for id in running:
                await jobs.cancel(id)

    async def load(self) -> None:
        """Many jobs of 20 calls submitted at once, the model at 50 ms."""
        found, size = self.found, self.size
        self.counting.settings(delay=0.05)
        async with self.workers() as (workers, jobs):
            stamp = f"load-{time.time_ns()}"
            workers.start("--slots", "64")
            started = time.monotonic()
            specs = [calls_of(f"{stamp}-{n}", branches=BRANCHES, calls=5) for n in range(size.jobs)]
            views = await asyncio.gather(*(jobs.submit(spec) for spec in specs))
            for view in views:
                ended = await jobs.wait(view.id, seconds=600)
                found.lost += ended.state != JobState.COMPLETED
            seconds = time.monotonic() - started
            counts = await asyncio.to_thread(self.counting.counts, stamp)
            found.repeated_calls += sum(came - 1 for came, _ in counts.values())
            found.lost += size.jobs * 20 - len(counts)
            found.jobs, found.jobs_per_s = size.jobs, round(size.jobs / seconds, 1)
            found.calls_per_s = round(size.jobs * 20 / seconds)

    async def compare(self) -> None:
        """CPU time of a call in durable jobs, against the same calls without jobs and with a ledger in memory."""
        self.counting.settings(delay=0.0)
        calls = self.size.compared * 20
        async with self.workers() as (workers, jobs):
            stamp = f"cpu-{time.time_ns()}"
            pid = workers.start("--slots", "8")
            warm = await jobs.submit(calls_of(f"{stamp}-warm"))
            await jobs.wait(warm.id, seconds=60)
            before = cpu_s(pid)
            specs = [calls_of(f"{stamp}-{n}", branches=BRANCHES, calls=5) for n in range(self.size.compared)]
            views = await asyncio.gather(*(jobs.submit(spec) for spec in specs))
            for view in views:
                await jobs.wait(view.id, seconds=120)
            durable = (cpu_s(pid) - before) / calls
        plain = await asyncio.to_thread(plain_cpu_s, self.place, f"{stamp}-plain", self.size.compared) / calls
        self.found.cpu_ms_per_call = round(durable * 1000, 2)
        self.found.durable_cpu_ratio = round(durable / plain, 2)

    async def remember(self) -> None:
        """Memory of a worker after a fifth of many small jobs, and after all of them."""
        async with self.workers() as (workers, jobs):
            pid = workers.start("--slots", "64")
            at: list[int] = []
            for part in range(5):
                count = self.size.echoes // 5
                views = [await jobs.submit(JobSpec(kind="echo", query=f"{part}.{n}")) for n in range(count)]
                for view in views:
                    await jobs.wait(view.id, seconds=300)
                at.append(resident_kb(pid))
            self.found.memory_growth = round(at[-1] / at[0], 3)
            self.found.notes.append(f"worker's memory in MB after each fifth: {[kb // 1024 for kb in at]}")

    async def entries(self, job: str) -> list[Entry]:
        return list(await self.ledger.entries(EntryFilter(job=job)))

    @contextlib.asynccontextmanager
    async def workers(self) -> AsyncIterator[tuple[Workers, Jobs]]:
        ledger = open_ledger(self.place.settings.ledger)
        assert isinstance(ledger, DurableLedger)
        self.ledger = ledger
        with Workers(self.place.folder, self.place.environment) as workers:
            async with self.place.jobs() as jobs:
                yield workers, jobs
        await ledger.aclose()


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, in user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kb(pid: int) -> int:
    """Memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


PLAIN = """
import asyncio, resource, sys
from pathlib import Path
from agentflow.budget.ledger import MemoryLedger
from agentflow.config import load_settings
from agentflow.runtime import Runtime

async def job(runtime, name):
    meter = await runtime.job(name)
    async def branch(number):
        async with runtime.chain(f"branch-{number}", parent=meter) as chain:
            return [(await chain.call(f"{name} {number}.{call}", name="step")).output for call in range(5)]
    await asyncio.gather(*(branch(number) for number in range(4)))

async def main(config, stamp, count):
    runtime = Runtime(load_settings(Path(config)), MemoryLedger())
    await job(runtime, stamp + "-warm")
    before = resource.getrusage(resource.RUSAGE_SELF)
    some = asyncio.Semaphore(8)
    async def one(number):
        async with some:
            await job(runtime, f"{stamp}-{number}")
    await asyncio.gather(*(one(number) for number in range(count)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    await runtime.aclose()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def plain_cpu_s(place: Place, stamp: str, jobs: int) -> float:
    """CPU time of the same calls in a process of their own, without jobs, with a ledger in memory."""
    environment = {**os.environ, **place.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [sys.executable, "-c", PLAIN, str(place.folder / "agentflow.toml"), stamp, str(jobs)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


@contextlib.contextmanager
def places(engines: list[str], counting: CountingServer) -> Iterator[Iterator[tuple[str, Place]]]:
    with contextlib.ExitStack() as stack:

        def each() -> Iterator[tuple[str, Place]]:
            for engine in engines:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agentflow-jobs-")))
                url = None
                if engine == "postgres":
                    server = PostgresServer()
                    stack.callback(server.close)
                    url = stack.enter_context(server.fresh_database())
                    os.environ["TEST_URL"] = url
                yield engine, make_place(folder, counting.url, url, worker_deaths=1000)

        yield each()


def figures(engine: str, found: Found) -> list[Figure]:
    def number(value: float | None, unit: str) -> str:
        return "not measured" if value is None else f"{value:g} {unit}".strip()

    def zero(what: str, value: int) -> Figure:
        return Figure(f"{engine}: {what}", f"{value}", "0", value == 0)

    def limited(what: str, value: float | None, unit: str, most: float) -> Figure:
        passed = None if value is None else value <= most
        return Figure(f"{engine}: {what}", number(value, unit), f"at most {most:g} {unit}".strip(), passed)

    def plain(what: str, value: float | None, unit: str = "") -> Figure:
        return Figure(f"{engine}: {what}", number(value, unit))

    return [
        plain("kill -9", found.kills),
        zero("jobs lost", found.lost),
        zero("wrong results", found.wrong),
        zero("finished calls paid again", found.repeated_calls),
        plain("calls cut off and charged in doubt", found.in_doubt),
        zero("logs with a gap or a repeat", found.gaps),
        limited("most spent of a budget", found.overspend_ratio, "", 1),
        limited("dead worker's job taken up", found.takeover_s, "s", 10),
        plain(f"{found.jobs} jobs of 20 calls at once", found.jobs_per_s, "jobs/s"),
        plain("calls at 50 ms each", found.calls_per_s, "calls/s"),
        limited("submit while jobs run, p95", found.submit_p95_ms, "ms", 50),
        plain("CPU of a durable call", found.cpu_ms_per_call, "ms"),
        limited("the same against not durable", found.durable_cpu_ratio, "times", 2),
        limited("memory after all small jobs against a fifth", found.memory_growth, "times", 1.1),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Durable jobs under kill -9, load and a stopwatch.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--engine", choices=["sqlite", "postgres"])
    asked = parser.parse_args()
    engines = [asked.engine] if asked.engine else ["sqlite", "postgres"]
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    counting = CountingServer()
    results: dict[str, Found] = {}
    notes: list[str] = []
    try:
        if "postgres" in engines and programs() is None:
            engines.remove("postgres")
            notes.append("No PostgreSQL on this machine: left out.")
        with places(engines, counting) as each:
            for engine, place in each:
                print(f"{engine} ...", file=sys.stderr)
                results[engine] = asyncio.run(Bench(place, counting, QUICK if asked.quick else FULL).run())
    finally:
        counting.stop()
    shown = [figure for engine, found in results.items() for figure in figures(engine, found)]
    notes += [f"{engine}: {note}" for engine, found in results.items() for note in found.notes]
    if asked.as_json:
        print(json.dumps({engine: as_json(found) for engine, found in results.items()}, indent=2))
        return int(any(figure.passed is False for figure in shown))
    return show("Durable jobs", shown, [*notes, f"sse_p95_ms is {SSE}."])


def as_json(found: Found) -> dict[str, Any]:
    return {**vars(found), "sse_p95_ms": None, "sse_p95_ms_reason": SSE}


if __name__ == "__main__":
    sys.exit(main())
