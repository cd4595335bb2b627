"""What one call costs, through agentflow and through its peers: ``python -m benchmarks.call [--json] [--quick]``

Every client sends the same question to the same loopback server, which answers from a process of its own; every client
has a process of its own too, and they take turns. CPU time of a call is of calls one after another, answered at once.
Calls a second are of 200 callers at once, each answered after 50 ms: 4,000 would be ideal. The best of the turns counts
for every client, because what else the machine does is nobody's cost. Peers that cannot share the project's environment
run in the interpreter that ``make peers`` makes; one that is not installed is named as such and has no figure.

Then agentflow alone: a job of one call, eight side by side and one (150 ms would be ideal), forty such jobs at once,
and what it adds to the time to the first token of a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.overspend import NOT_INSTALLED, PEERS_PYTHON, PeerNotInstalled, installed_version, output_of
from benchmarks.table import Figure, show
from tests.servers.openai_server import ServerProcess

CPU_RATIO, CALLS_RATIO = 3.0, 10.0
FANOUT_MS, JOBS_MS, TTFT_ADDED_MS = 1.1 * 150, 2.5 * 150, 1.0
# Frameworks that calls a second are compared with.
FRAMEWORKS = ("pydantic_ai", "openai_agents", "langgraph")


@dataclass(frozen=True, slots=True)
class Client:
    """A client: its module and arguments, its distribution, and whether it runs in the peers' interpreter."""

    name: str
    distribution: str
    module: str = ""
    arguments: tuple[str, ...] = ()
    peer: bool = False

    @property
    def command(self) -> tuple[str, ...]:
        """What its interpreter runs."""
        return ("-m", self.module or f"benchmarks.peers.calls.{self.name}", *self.arguments)

    def interpreter(self, peers: Path) -> Path:
        """The peers' interpreter, or this one."""
        return peers if self.peer else Path(sys.executable)


CLIENTS = (
    Client("aiohttp", "aiohttp"),
    Client("httpx", "httpx"),
    Client("openai", "openai", peer=True),
    Client("litellm", "litellm"),
    Client("pydantic_ai", "pydantic-ai-slim", peer=True),
    Client("openai_agents", "openai-agents", peer=True),
    Client("langgraph", "langgraph", peer=True),
    Client("agentflow", "agentflow", "benchmarks.own_call"),
    Client("agentflow_durable", "agentflow", "benchmarks.own_call", ("durable",)),
)


@dataclass(frozen=True, slots=True)
class Load:
    """How much is measured: calls one after another, seconds of callers at once, turns of each client, own runs."""

    calls: int = 300
    callers: int = 200
    seconds: float = 3.0
    turns: int = 3
    runs: int = 7


QUICK = Load(calls=60, seconds=1.0, turns=1, runs=2)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one client's turn, or the best of several, came to."""

    cpu_ms: float
    calls_per_s: float
    cpu_ms_at_once: float

    def best(self, other: Cost) -> Cost:
        """The better of both, figure by figure."""
        return Cost(
            min(self.cpu_ms, other.cpu_ms),
            max(self.calls_per_s, other.calls_per_s),
            min(self.cpu_ms_at_once, other.cpu_ms_at_once),
        )


@dataclass(frozen=True, slots=True)
class Results:
    """What was measured. ``absent`` says why a client has no figure."""

    costs: Mapping[str, Cost]
    absent: Mapping[str, str]
    versions: Mapping[str, str]
    fanout_ms: float
    jobs_ms: float
    ttft_added_ms: float
    answers_per_cpu_s: float
    fanout_durable_ms: float
    jobs_durable_ms: float


async def measure(load: Load, python: Path) -> Results:
    """Run every client in turns against one server, then agentflow's own.

    Args:
        load: how much.
        python: the interpreter that has the peers.
    """
    versions: dict[str, str] = {}
    absent: dict[str, str] = {}
    for client in CLIENTS:
        try:
            versions[client.name] = await installed_version(client.distribution, client.interpreter(python))
        except PeerNotInstalled:
            absent[client.name] = NOT_INSTALLED
    costs: dict[str, Cost] = {}
    server = await asyncio.to_thread(ServerProcess, "tests.servers.prompt_replies")
    try:
        for _ in range(load.turns):
            for client in CLIENTS:
                if client.name in versions:
                    cost = await turn(client, server.address, load, python)
                    costs[client.name] = cost.best(costs.get(client.name, cost))
        answers_per_cpu_s = await asyncio.to_thread(answered_per_cpu_s, server.address)
        plan = await own("benchmarks.own_plan", server.address, load.runs)
        stream = await own("benchmarks.own_stream", server.address, load.calls)
    finally:
        server.stop()
    return Results(
        costs, absent, versions, plan["fanout_ms"], plan["jobs_ms"], stream["ttft_added_ms"], answers_per_cpu_s,
        plan["fanout_durable_ms"], plan["jobs_durable_ms"],
    )  # fmt: skip


async def turn(client: Client, address: str, load: Load, python: Path) -> Cost:
    """One client's turn, in a process of its own."""
    figures = map(str, (load.calls, load.callers, load.seconds))
    output = await output_of(client.interpreter(python), *client.command, address, *figures)
    return Cost(**json.loads(output))


async def own(module: str, address: str, runs: int) -> dict[str, float]:
    """What a measurement of agentflow alone prints."""
    return json.loads(await output_of(Path(sys.executable), "-m", module, address, str(runs)))


def answered_per_cpu_s(address: str) -> float:
    """How many calls the server has answered in a second of its own CPU time: far more than any client can make."""
    with urllib.request.urlopen(f"{address}/statistics", timeout=10) as reply:
        done = json.load(reply)
    return done["answered"] / done["cpu_s"]


def as_json(results: Results) -> dict[str, Any]:
    """The figures by client; None for a client that is not installed."""
    found = {client.name: results.costs.get(client.name) for client in CLIENTS}
    return {
        "cpu_ms": {name: cost and cost.cpu_ms for name, cost in found.items()},
        "calls_per_s": {name: cost and cost.calls_per_s for name, cost in found.items()},
        "fanout_ms": results.fanout_ms,
        "jobs_ms": results.jobs_ms,
        "ttft_added_ms": results.ttft_added_ms,
        "fanout_durable_ms": results.fanout_durable_ms,
        "jobs_durable_ms": results.jobs_durable_ms,
    }


def figures(results: Results) -> list[Figure]:
    """Every client's costs, and agentflow's own against what they are held to."""
    costs = results.costs
    shown = [
        Figure(
            f"{client.name} {results.versions[client.name]}",
            f"{cost.cpu_ms:6.3f} ms CPU a call",
            f"{cost.calls_per_s:6,.0f} calls/s, {cost.cpu_ms_at_once:6.3f} ms CPU a call at that",
        )
        for client in CLIENTS
        if (cost := costs.get(client.name)) is not None
    ]
    bare, durable = costs["agentflow"], costs["agentflow_durable"]
    ratio = bare.cpu_ms / costs["aiohttp"].cpu_ms
    shown.append(Figure("agentflow : aiohttp, CPU", f"{ratio:.2f} x", f"limit {CPU_RATIO:g}", ratio <= CPU_RATIO))
    others = {name: cost for name, cost in costs.items() if name != "aiohttp" and not name.startswith("agentflow")}
    least = min(others, key=lambda name: others[name].cpu_ms)
    passed = bare.cpu_ms < others[least].cpu_ms
    shown.append(Figure("agentflow : next client, CPU", f"{bare.cpu_ms / others[least].cpu_ms:.2f} x", least, passed))
    ratio = durable.cpu_ms / costs["litellm"].cpu_ms
    shown.append(Figure("agentflow_durable : litellm, CPU", f"{ratio:.2f} x", "limit 1", ratio < 1.0))
    for name in FRAMEWORKS:
        if name in costs:
            ratio = bare.calls_per_s / costs[name].calls_per_s
            passed = ratio >= CALLS_RATIO
            shown.append(Figure(f"agentflow : {name}, calls/s", f"{ratio:.1f} x", f"limit {CALLS_RATIO:g}", passed))
    for what, value, limit in (
        ("1 -> 8 -> 1 calls", results.fanout_ms, FANOUT_MS),
        ("forty of these at once", results.jobs_ms, JOBS_MS),
        ("added time to first token", results.ttft_added_ms, TTFT_ADDED_MS),
    ):
        shown.append(Figure(what, f"{value:.2f} ms", f"limit {limit:g} ms", value <= limit))
    shown.append(Figure("1 -> 8 -> 1 calls, durable", f"{results.fanout_durable_ms:.2f} ms", "two commits a call"))
    shown.append(Figure("forty of these, durable", f"{results.jobs_durable_ms:.2f} ms", "two commits a call"))
    return shown


def main() -> int:
    """Measure, print, and fail when a figure misses its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls, one turn: to see that it runs")
    parser.add_argument("--python", type=Path, default=PEERS_PYTHON, help="interpreter that has the peers")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    results = asyncio.run(measure(QUICK if asked.quick else Load(), asked.python.absolute()))
    shown = figures(results)
    if asked.json:
        print(json.dumps(as_json(results), indent=2))
        return int(any(figure.passed is False for figure in shown))
    notes = [f"{what}: {why}" for what, why in results.absent.items()]
    notes.append(f"The server answered {results.answers_per_cpu_s:,.0f} calls in a second of its own CPU time.")
    return show("One call", shown, notes)


if __name__ == "__main__":
    sys.exit(main())
