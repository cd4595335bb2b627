"""agentflow's orchestrator: one call, then eight side by side, then one, in a job; and forty such jobs at once.

Every call is answered after 50 ms, so that 150 ms is the least a job can take. Once with the ledger in memory; and once
durable, as jobs are by default: each call is committed to an SQLite file before it leaves and again when it is
answered. ``python -m benchmarks.own_plan ADDRESS RUNS`` prints JSON: milliseconds of one job, and of forty, the medians
of so many runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentflow.chain import Chain
from agentflow.orchestration.agent import Agent
from agentflow.orchestration.orchestrator import Orchestrator
from agentflow.orchestration.plan import Plan, Task
from agentflow.runtime import Runtime
from benchmarks.own_call import BUDGET, REQUEST, settings
from benchmarks.peers.calling import AT_ONCE_DELAY_MS

WIDTH, JOBS = 8, 40


async def ask(chain: Chain, inputs: Mapping[str, Any]) -> str:
    return (await chain.call(REQUEST)).output


def plan() -> Plan:
    """One task, as many as ``WIDTH`` after it, and one after those."""
    agent = Agent("benchmark", "Asks.", "Answer.")
    middle = [Task(f"middle-{n}", agent, ask, ("first",)) for n in range(WIDTH)]
    return Plan((Task("first", agent, ask), *middle, Task("last", agent, ask, tuple(task.name for task in middle))))


async def job(runtime: Runtime, name: str) -> None:
    node = await runtime.job(name, BUDGET)
    outcomes = await Orchestrator(runtime, node, lambda call: None, lambda task, state, meter: None).run(plan())
    failed = [outcome.error for outcome in outcomes.values() if outcome.error is not None]
    node.close()
    if failed:
        raise failed[0]


async def milliseconds(runtime: Runtime, run: int, jobs: int) -> float:
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(jobs):
            group.create_task(job(runtime, f"job-{run}-{jobs}-{number}"))
    return (time.monotonic() - started) * 1000


async def measure(address: str, runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        fanout_ms, jobs_ms = await medians(address, None, runs)
        fanout_durable_ms, jobs_durable_ms = await medians(address, Path(folder, "ledger.db"), runs)
    return {
        "fanout_ms": fanout_ms,
        "jobs_ms": jobs_ms,
        "fanout_durable_ms": fanout_durable_ms,
        "jobs_durable_ms": jobs_durable_ms,
    }


async def medians(address: str, ledger: Path | None, runs: int) -> tuple[float, float]:
    """Milliseconds of one job, and of forty at once."""
    runtime = Runtime(settings(f"{address}/{AT_ONCE_DELAY_MS}/v1", ledger))
    try:
        await milliseconds(runtime, 0, JOBS)
        one = [await milliseconds(runtime, run, 1) for run in range(1, 3 * runs + 1)]
        forty = [await milliseconds(runtime, run, JOBS) for run in range(1, runs + 1)]
    finally:
        await runtime.aclose()
    return statistics.median(one), statistics.median(forty)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("runs", type=int)
    asked = parser.parse_args()
    print(json.dumps(asyncio.run(measure(asked.address, asked.runs))))
