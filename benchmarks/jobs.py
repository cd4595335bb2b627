"""Durable jobs under kill -9, load and a stopwatch, on SQLite and on PostgreSQL.

    python -m benchmarks.jobs [--quick] [--json] [--engine sqlite|postgres] [--only kill,load,...]

Workers and the server are real processes (``agentflow worker``, ``agentflow serve``), the model server is a real one
that counts what reaches it, and all of it runs on this machine. Timings are wall clock, whatever else it does. What a
figure is held against stands beside it; the program ends with 1 when one misses. ``--quick`` has fewer kills and jobs,
and leaves memory out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

from benchmarks.job_bench import Bench, benches
from benchmarks.job_found import FULL, QUICK, Found, figures
from benchmarks.job_kills import kill, take_over
from benchmarks.job_load import compare, load, remember, stream, submit
from benchmarks.table import show
from tests.servers.counting import CountingServer
from tests.servers.postgres import programs

STEPS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    "kill": kill, "take_over": take_over, "submit": submit, "stream": stream, "load": load, "compare": compare,
    "remember": remember,
}  # fmt: skip


async def run(bench: Bench, steps: list[str]) -> Found:
    """Take these steps, and say how long each took."""
    for name in steps:
        started = time.monotonic()
        await STEPS[name](bench)
        print(f"  {name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return bench.found


def main() -> int:
    parser = argparse.ArgumentParser(description="Durable jobs under kill -9, load and a stopwatch.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--engine", choices=["sqlite", "postgres"])
    parser.add_argument("--only", type=lambda names: names.split(","), help=f"of {','.join(STEPS)}")
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    steps = asked.only or [name for name in STEPS if name != "remember" or size.echoes]
    if unknown := set(steps) - set(STEPS):
        parser.error(f"--only: there is no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    engines = [asked.engine] if asked.engine else ["sqlite", "postgres"]
    # A connection for each reader, at both ends of it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    counting = CountingServer()
    results: dict[str, Found] = {}
    notes: list[str] = []
    try:
        if "postgres" in engines and programs() is None:
            engines.remove("postgres")
            notes.append("No PostgreSQL on this machine: left out.")
        for engine, bench in benches(engines, counting, size):
            print(f"{engine} ...", file=sys.stderr)
            results[engine] = asyncio.run(run(bench, steps))
    finally:
        counting.stop()
    shown = [figure for engine, found in results.items() for figure in figures(engine, found)]
    notes += [f"{engine}: {note}" for engine, found in results.items() for note in found.notes]
    if asked.as_json:
        print(json.dumps({engine: vars(found) for engine, found in results.items()}, indent=2))
        return int(any(figure.passed is False for figure in shown))
    return show("Durable jobs", shown, notes)


if __name__ == "__main__":
    sys.exit(main())
