"""Servers that misbehave: each fault ends in another rung's reply or in one clear error, and nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agentflow.backends.openai_http import OpenAIBackend
from agentflow.budget.budget import Budget
from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.checks import token_confidence
from agentflow.cascade.lane import Lane, LaneLimits
from agentflow.cascade.policy import Policy
from agentflow.cascade.rung import ModelRung
from agentflow.chain import Chain
from agentflow.energy.profiles import RemotePrior
from agentflow.errors import CallFailed
from tests.cascade.simulated import COUNTER, PRICE, nothing_is_held
from tests.servers.openai_server import ScriptedServer

GOOD = {"text": "4", "usage": {"prompt_tokens": 10, "completion_tokens": 1}}
FAULTS: dict[str, dict[str, Any]] = {
    "hangs": {"gate": "never"},
    "hangs in the middle": {"text": "late " * 40, "gate_chunk": "never"},
    "drops at once": {"text": "cut", "drop_after": 0},
    "drops in the middle": {"text": "cut " * 40, "drop_after": 2},
    "is overloaded": {"status": 429},
    "is overloaded and says how long": {"status": 429, "retry_after": 30},
    "fails": {"status": 500},
    "is down": {"status": 503},
    "is lost behind a gateway": {"status": 502},
    "refuses": {"status": 400},
    "does not know the key": {"status": 401},
    "sends no JSON": {"garbage": "{oops"},
    "sends something else": {"garbage": "[1, 2]"},
    "has an error in its error": {"status": 500, "error": [None]},
    "says to come back in a year without end": {"status": 503, "retry_after": "01 Jan 99999999999 00:00:00 GMT"},
}
UNREACHABLE = {
    "has no name": "http://nowhere.invalid/v1",
    "does not listen": "http://127.0.0.1:1/v1",
    "speaks no TLS": "https://{here}",
}


class Servers:
    """Rungs over real connections, closed with the test."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.opened: list[OpenAIBackend] = []

    def rung(self, name: str, url: str = "", timeout_s: float = 0.4) -> ModelRung:
        backend = OpenAIBackend(url or self.server.url, COUNTER.usage, retries=0)
        self.opened.append(backend)
        lane = Lane(LaneLimits())
        return ModelRung(
            name, backend, name, PRICE, RemotePrior(), COUNTER, default_output=100, timeout_s=timeout_s, lane=lane
        )

    def large(self) -> ModelRung:
        return self.rung("large", timeout_s=20.0)


@pytest.fixture
async def servers(scripted_server: ScriptedServer) -> AsyncIterator[Servers]:
    it = Servers(scripted_server)
    yield it
    for backend in it.opened:
        await backend.aclose()


def chain(*rungs: ModelRung) -> Chain:
    return Chain(Meter("chain", Budget(usd="0.1", tokens=100_000)), Cascade("test", rungs, Policy()), MemoryLedger())


async def nothing_is_left(it: Chain) -> None:
    await nothing_is_held(it)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert it.spend.nano_usd <= 100_000_000


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_server_that_misbehaves_leaves_the_call_to_the_next_rung(servers: Servers, fault: str) -> None:
    servers.server.script({"small": [FAULTS[fault]], "large": [GOOD]})
    it = chain(servers.rung("small"), servers.large())
    reply = await it.call("2 + 2?")
    assert (reply.text, reply.rung) == ("4", "large")
    failed = reply.attempts[0]
    assert (failed.rung, failed.outcome) == ("small", "failed")
    assert failed.reason and "\n" not in failed.reason
    await nothing_is_left(it)


@pytest.mark.parametrize("fault", FAULTS)
async def test_alone_it_ends_in_one_clear_error(servers: Servers, fault: str) -> None:
    servers.server.script({"small": [FAULTS[fault]]})
    it = chain(servers.rung("small"))
    with pytest.raises(CallFailed) as told:
        await it.call("2 + 2?")
    assert "small: " in str(told.value) and "\n" not in str(told.value)
    await nothing_is_left(it)


@pytest.mark.parametrize("fault", UNREACHABLE)
async def test_a_server_that_cannot_be_reached_costs_nothing(servers: Servers, fault: str) -> None:
    servers.server.script({"large": [GOOD]})
    url = UNREACHABLE[fault].replace("{here}", servers.server.url.removeprefix("http://"))
    it = chain(servers.rung("small", url, timeout_s=10.0), servers.large())
    reply = await it.call("2 + 2?")
    assert (reply.rung, reply.attempts[0].outcome) == ("large", "failed")
    assert reply.attempts[0].spend.nano_usd == 0
    await nothing_is_left(it)


async def test_counts_that_cannot_be_are_not_believed(servers: Servers) -> None:
    servers.server.script({"small": [{"text": "4", "usage": {"prompt_tokens": -7, "completion_tokens": 10**12}}]})
    it = chain(servers.rung("small", timeout_s=20.0))
    reply = await it.call("2 + 2?")
    assert 0 < reply.spend.usage.total < 100
    await nothing_is_left(it)


HUGE = 10**400


@pytest.mark.parametrize(
    "extra", [{"energy_joules": HUGE}, {"energy_kwh": HUGE}, {"timings": {"prompt_ms": HUGE, "predicted_ms": -HUGE}}]
)
async def test_figures_larger_than_any_float_are_not_believed(servers: Servers, extra: dict[str, Any]) -> None:
    servers.server.script({"small": [{**GOOD, "extra": extra}]})
    it = chain(servers.rung("small", timeout_s=20.0))
    assert (await it.call("2 + 2?")).text == "4"
    await nothing_is_left(it)


@pytest.mark.parametrize("logprobs", [[-HUGE], [-1e308] * 5])
async def test_probabilities_that_cannot_be_are_no_confidence(servers: Servers, logprobs: list[float]) -> None:
    servers.server.script({"small": [{**GOOD, "logprobs": logprobs}]})
    it = chain(replace(servers.rung("small", timeout_s=20.0), logprobs=True))
    reply = await it.call("2 + 2?", checks=(token_confidence,))
    assert (reply.text, reply.confidence) == ("4", None)
    await nothing_is_left(it)


async def test_a_storm_of_errors_reaches_nobody_and_is_met_by_a_circuit(servers: Servers) -> None:
    servers.server.script({"small": [{"status": 500}], "large": [GOOD]})
    it = chain(servers.rung("small", timeout_s=20.0), servers.large())

    async def wave(number: int) -> None:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(it.call("2 + 2?", name=f"{number} {n}")) for n in range(40)]
        assert all(call.result().rung == "large" for call in calls)

    await wave(1)
    asked = len(servers.server.requests())
    await wave(2)
    assert len(servers.server.requests()) - asked == 40, "nobody asks the one that is down"
    await nothing_is_left(it)


async def test_all_dead_is_told_once_with_every_reason(servers: Servers) -> None:
    servers.server.script({"small": [{"status": 500}], "large": [{"status": 503}]})
    it = chain(servers.rung("small"), servers.large())
    with pytest.raises(CallFailed, match=r"small: .*answered 500.*large: .*answered 503"):
        await it.call("2 + 2?")
    await nothing_is_left(it)
