"""Load: many jobs at once, submissions and readers meanwhile, what a durable call costs, and whether memory stays."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agentflow.client import AsyncClient
from agentflow.jobs.job import JobSpec, JobState
from benchmarks.job_bench import Bench, free_port
from benchmarks.job_readers import listen
from tests.jobs.places import Place, calls_of

BRANCHES = 4


async def submit(bench: Bench) -> None:
    """How long a submission takes while many jobs run, over HTTP and from Python."""
    found, size = bench.found, bench.size
    bench.counting.settings(delay=0.05)
    port = free_port()
    async with bench.workers() as (workers, jobs), AsyncClient(f"http://127.0.0.1:{port}") as client:
        await bench.serve(workers, port)
        workers.start("--slots", str(size.running))
        running = [
            (await jobs.submit(calls_of(f"busy-{n}-{time.time_ns()}", branches=1, calls=400, pause=0.5))).id
            for n in range(size.running)
        ]
        while sum(queue.at_work for queue in (await jobs.statistics()).queues) < size.running * 0.9:
            await asyncio.sleep(0.05)
        # Nobody works on what is submitted here: only the submission is measured.
        later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        sources = {"paths": [str(bench.place.folder / "tides.md")]}
        found.submit_p95_ms = await p95_ms(
            size.submitted, lambda number: client.submit(f"later {number}", sources=sources, deferrable_until=later)
        )
        found.submit_sdk_p95_ms = await p95_ms(
            size.submitted, lambda number: jobs.submit(JobSpec(kind="echo", query=str(number), queue="nobody"))
        )
        for id in running:
            await jobs.cancel(id)


async def p95_ms(count: int, act: Callable[[int], Awaitable[object]]) -> float:
    """The 95th percentile of how long each of so many acts takes."""
    await act(-1)
    took: list[float] = []
    for number in range(count):
        started = time.perf_counter()
        await act(number)
        took.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.005)
    return round(statistics.quantiles(took, n=20)[-1], 1)


async def stream(bench: Bench) -> None:
    """How late readers hear what happens: ten jobs that tell something five times a second."""
    found, size = bench.found, bench.size
    port = free_port()
    async with bench.workers() as (workers, jobs):
        await bench.serve(workers, port)
        workers.start("--slots", "16")
        telling = {"every": 0.2, "count": 1_000_000}
        ids = [(await jobs.submit(JobSpec(kind="telling", query=str(n), input=telling))).id for n in range(10)]
        for id in ids:
            while (await jobs.get(id)).state != JobState.RUNNING:
                await asyncio.sleep(0.02)
        heard = await listen(f"http://127.0.0.1:{port}", ids, size.readers, size.listen_s)
        found.sse_p50_ms, found.sse_p95_ms, found.sse_events_per_s = heard.p50_ms, heard.p95_ms, heard.per_s
        for id in ids:
            await jobs.cancel(id)


async def load(bench: Bench) -> None:
    """Many jobs of 20 calls submitted at once, the model at 50 ms."""
    found, size = bench.found, bench.size
    bench.counting.settings(delay=0.05)
    async with bench.workers() as (workers, jobs):
        stamp = f"load-{time.time_ns()}"
        workers.start("--slots", "64")
        started = time.monotonic()
        specs = [calls_of(f"{stamp}-{n}", branches=BRANCHES, calls=5) for n in range(size.jobs)]
        views = await asyncio.gather(*(jobs.submit(spec) for spec in specs))
        for view in views:
            ended = await jobs.wait(view.id, seconds=600)
            found.lost += ended.state != JobState.COMPLETED
        seconds = time.monotonic() - started
        counts = await asyncio.to_thread(bench.counting.counts, stamp)
        found.repeated_calls += sum(came - 1 for came, _ in counts.values())
        found.lost += size.jobs * 20 - len(counts)
        found.jobs, found.jobs_per_s = size.jobs, round(size.jobs / seconds, 1)
        found.calls_per_s = round(size.jobs * 20 / seconds)


async def compare(bench: Bench) -> None:
    """CPU time of a call in durable jobs, against the same calls without jobs and with a ledger in memory."""
    found, size = bench.found, bench.size
    bench.counting.settings(delay=0.0)
    calls = size.compared * 20
    async with bench.workers() as (workers, jobs):
        stamp = f"cpu-{time.time_ns()}"
        pid = workers.start("--slots", "8")
        warm = await jobs.submit(calls_of(f"{stamp}-warm"))
        await jobs.wait(warm.id, seconds=60)
        before = cpu_s(pid)
        specs = [calls_of(f"{stamp}-{n}", branches=BRANCHES, calls=5) for n in range(size.compared)]
        views = await asyncio.gather(*(jobs.submit(spec) for spec in specs))
        for view in views:
            await jobs.wait(view.id, seconds=120)
        durable = (cpu_s(pid) - before) / calls
    plain = await asyncio.to_thread(plain_cpu_s, bench.place, f"{stamp}-plain", size.compared) / calls
    found.cpu_ms_per_call = round(durable * 1000, 2)
    found.durable_cpu_ratio = round(durable / plain, 2)


async def remember(bench: Bench) -> None:
    """Memory of a worker after a fifth of many small jobs, and after all of them."""
    async with bench.workers() as (workers, jobs):
        pid = workers.start("--slots", "64")
        at: list[int] = []
        for part in range(5):
            count = bench.size.echoes // 5
            views = [await jobs.submit(JobSpec(kind="echo", query=f"{part}.{n}")) for n in range(count)]
            for view in views:
                await jobs.wait(view.id, seconds=300)
            at.append(resident_kb(pid))
        bench.found.memory_growth = round(at[-1] / at[0], 3)
        bench.found.notes.append(f"worker's memory in MB after each fifth: {[kb // 1024 for kb in at]}")


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
