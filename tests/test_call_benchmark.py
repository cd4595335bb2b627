"""The benchmark of one call: that it can be lost, that every call is counted, and that its server is understood."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.call import CLIENTS, Cost, Results, as_json, figures
from benchmarks.own_call import open_chain, open_durable
from benchmarks.peers.calling import Open, at_once, cpu_ms
from benchmarks.peers.calls import aiohttp
from tests.servers.openai_server import ServerProcess
from tests.servers.prompt_replies import TEXT

SLOW = Cost(cpu_ms=3.0, calls_per_s=100.0, cpu_ms_at_once=4.0)
COSTS = {client.name: SLOW for client in CLIENTS} | {
    "aiohttp": Cost(0.1, 3_000.0, 0.1),
    "agentflow": Cost(0.25, 1_500.0, 0.3),
    "agentflow_durable": Cost(1.0, 900.0, 0.9),
}
WON = Results(COSTS, {}, {client.name: "1" for client in CLIENTS}, 160.0, 350.0, 0.5, 20_000.0, 180.0, 600.0)


@pytest.fixture(scope="module")
def prompt_replies() -> Iterator[str]:
    process = ServerProcess("tests.servers.prompt_replies")
    yield process.address
    process.stop()


def missed(results: Results) -> list[str]:
    return [figure.what for figure in figures(results) if figure.passed is False]


def test_a_run_within_every_limit_misses_nothing() -> None:
    assert missed(WON) == []


@pytest.mark.parametrize(
    ("name", "worse", "what"),
    [
        ("agentflow", Cost(0.31, 1_500.0, 0.3), ["agentflow : aiohttp, CPU"]),
        ("litellm", Cost(0.2, 100.0, 4.0), ["agentflow : next client, CPU", "agentflow_durable : litellm, CPU"]),
        ("langgraph", Cost(3.0, 151.0, 4.0), ["agentflow : langgraph, calls/s"]),
    ],
)
def test_a_cost_beyond_its_limit_is_missed(name: str, worse: Cost, what: list[str]) -> None:
    assert missed(replace(WON, costs={**COSTS, name: worse})) == what


def test_a_late_plan_and_a_late_token_are_missed() -> None:
    late = replace(WON, fanout_ms=166.0, jobs_ms=376.0, ttft_added_ms=1.1)
    assert missed(late) == ["1 -> 8 -> 1 calls", "forty of these at once", "added time to first token"]


def test_json_has_every_client_and_nothing_for_one_that_is_not_installed() -> None:
    absent = replace(WON, costs={name: cost for name, cost in COSTS.items() if name != "langgraph"})
    names = [
        "aiohttp", "httpx", "openai", "litellm", "pydantic_ai", "openai_agents", "langgraph", "agentflow",
        "agentflow_durable",
    ]  # fmt: skip
    found = as_json(absent)
    own = ["fanout_ms", "jobs_ms", "ttft_added_ms", "fanout_durable_ms", "jobs_durable_ms"]
    assert list(found) == ["cpu_ms", "calls_per_s", *own]
    assert list(found["cpu_ms"]) == list(found["calls_per_s"]) == names
    assert found["cpu_ms"]["langgraph"] is None
    assert missed(absent) == []


def test_the_best_of_turns_counts_figure_by_figure() -> None:
    assert Cost(1.0, 10.0, 2.0).best(Cost(2.0, 20.0, 1.0)) == Cost(1.0, 20.0, 1.0)


@pytest.mark.parametrize("open_client", [aiohttp.open_client, open_chain, open_durable])
async def test_clients_read_the_servers_reply(prompt_replies: str, open_client: Open) -> None:
    async with open_client(f"{prompt_replies}/0/v1") as call:
        assert await call() == TEXT


async def test_a_call_that_works_costs_cpu_time_and_every_call_is_counted(prompt_replies: str) -> None:
    statistics(prompt_replies)
    async with aiohttp.open_client(f"{prompt_replies}/0/v1") as call:
        assert await cpu_ms(call, 20) > 0.0
        assert await asyncio.to_thread(statistics, prompt_replies) == 22
        calls_per_s, at_once_ms = await at_once(call, 5, 0.05)
    assert calls_per_s > 0.0
    assert at_once_ms > 0.0


def statistics(address: str) -> int:
    with urllib.request.urlopen(f"{address}/statistics", timeout=10) as reply:
        return json.load(reply)["answered"]
