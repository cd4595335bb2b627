"""A server's own load, looked at around each call, reaches the joules of the call; and is never in its way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from agentflow.backends import make_backend
from agentflow.backends.observed import ObservedBackend
from agentflow.backends.openai_http import OpenAIBackend
from agentflow.backends.server_metrics import ServerMetrics
from agentflow.budget.prices import Price
from agentflow.cascade.rung import ModelRung
from agentflow.config import EnergySettings, ModelSettings
from agentflow.energy.profiles import profile_for
from agentflow.messages import Message, Request
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer, ServerProcess

COUNTER = TokenCounter.for_model("gpt-4o")
ASK = Request((Message("user", "What is 2 + 2?"),), max_output_tokens=50)


@pytest.fixture
def pages() -> Iterator[str]:
    process = ServerProcess("tests.servers.metrics_pages")
    yield process.address
    process.stop()


@pytest.fixture
async def inner(scripted_server: ScriptedServer) -> AsyncIterator[OpenAIBackend]:
    scripted_server.script({"*": [{"text": "4", "usage": {"prompt_tokens": 20, "completion_tokens": 50}}]})
    yield OpenAIBackend(scripted_server.url, COUNTER.usage, retries=0)


async def test_a_completion_carries_the_servers_batch(inner: OpenAIBackend, pages: str) -> None:
    backend = ObservedBackend(inner, ServerMetrics(f"{pages}/vllm/v1"))
    try:
        completion = await backend.complete("m", ASK)
    finally:
        await backend.aclose()
    assert completion.batch == 4.0
    assert completion.text == "4"


async def test_the_joules_of_a_call_are_found_with_the_batch_that_it_shared(inner: OpenAIBackend, pages: str) -> None:
    facts = EnergySettings(kind="gpu", active_b=8, layers=32, kv_bytes=131_072, chip="H100")
    profile = profile_for(facts, model="m", in_process=False)
    backend = ObservedBackend(inner, ServerMetrics(f"{pages}/vllm/v1"))
    rung = ModelRung("m", backend, "m", Price.per_million("0", "0", source="test"), profile, COUNTER)
    try:
        shared = await backend.complete("m", ASK)
        alone = await inner.complete("m", ASK)
    finally:
        await backend.aclose()
    assert alone.batch is None
    together, unknown = rung.spend(shared).energy, rung.spend(alone).energy
    assert ("batch", 4.0) in together.basis
    assert "batch" not in dict(unknown.basis)
    assert together != unknown


@pytest.mark.parametrize("page", ["nothing/here", "endless"])
async def test_a_page_that_is_none_leaves_the_reply_as_it_is_and_is_not_asked_for_again(
    inner: OpenAIBackend, pages: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = ServerMetrics(f"{pages}/{page}/v1")
    looks = 0
    read = metrics.read

    async def counted() -> object:
        nonlocal looks
        looks += 1
        return await read()

    monkeypatch.setattr(metrics, "read", counted)
    backend = ObservedBackend(inner, metrics)
    try:
        for _ in range(3):
            assert (await backend.complete("m", ASK)).batch is None
    finally:
        await backend.aclose()
    assert looks == 1


async def test_the_configuration_asks_for_it() -> None:
    settings = ModelSettings(backend="openai", base_url="http://127.0.0.1:9/v1", metrics=True)
    backend = make_backend("m", settings, COUNTER.usage)
    assert isinstance(backend, ObservedBackend)
    assert not (await backend.probe()).reachable
    await backend.aclose()
