"""One suite for every backend: what ``Backend`` promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from agentflow.backends.base import Backend
from agentflow.backends.litellm import LiteLLMBackend
from agentflow.backends.llamacpp import LlamaCppBackend
from agentflow.backends.openai_http import OpenAIBackend
from agentflow.errors import BackendTimeout
from agentflow.messages import Message, Request
from agentflow.tokens import TokenCounter
from tests.conftest import RUNGS
from tests.servers.openai_server import ScriptedServer, ServerProcess

COUNT = TokenCounter.for_model("unknown").usage


@dataclass
class Subject:
    backend: Backend
    model: str
    prepare: Callable[[dict[str, Any]], None]
    can_wait: bool


@pytest.fixture(scope="session")
def llama_address() -> Iterator[str]:
    process = ServerProcess("tests.servers.llama")
    yield process.address
    process.stop()


@pytest.fixture(params=["openai", "openai-whole", "litellm", "llamacpp", "llamacpp-http"])
async def subject(
    request: pytest.FixtureRequest, scripted_server: ScriptedServer, llama_address: str
) -> AsyncIterator[Subject]:
    def prepare(step: dict[str, Any]) -> None:
        scripted_server.script({"*": [step]})

    def nothing(_: dict[str, Any]) -> None:
        pass

    match request.param:
        case "openai":
            found = Subject(OpenAIBackend(scripted_server.url, COUNT), "m", prepare, True)
        case "openai-whole":
            found = Subject(OpenAIBackend(scripted_server.url, COUNT, stream=False), "m", prepare, True)
        case "litellm":
            backend = LiteLLMBackend("openai/m", COUNT, base_url=scripted_server.url, options={"api_key": "none"})
            found = Subject(backend, "openai/m", prepare, True)
        case "llamacpp":
            found = Subject(LlamaCppBackend(RUNGS / "large.gguf", context=256), "large", nothing, False)
        case _:
            found = Subject(OpenAIBackend(f"{llama_address}/v1", COUNT), "large", nothing, False)
    yield found
    await found.backend.aclose()
    await found.backend.aclose()


async def test_a_whole_reply_with_usage_and_time(subject: Subject) -> None:
    subject.prepare({"text": "12", "logprobs": [-0.1, -0.2]})
    request = Request((Message("user", "7+5"),), max_output_tokens=8, logprobs=True, timeout_s=30)
    completion = await subject.backend.complete(subject.model, request)
    assert completion.text.strip() == "12"
    assert completion.usage.input > 0
    assert completion.usage.output > 0
    assert completion.usage.source in ("provider", "server")
    assert completion.timings.total_s > 0
    assert completion.logprobs is not None
    assert all(p <= 0 for p in completion.logprobs)
    assert completion.finish_reason in ("stop", "length")


async def test_a_time_limit_ends_the_call(subject: Subject) -> None:
    subject.prepare({"text": "12", "gate": "never"})
    prompt = "7+5" if subject.can_wait else "12345+67890" * 10
    request = Request((Message("user", prompt),), max_output_tokens=100, timeout_s=0.3 if subject.can_wait else 1e-6)
    with pytest.raises(BackendTimeout):
        await subject.backend.complete(subject.model, request)


async def test_cancelling_ends_the_call(subject: Subject) -> None:
    subject.prepare({"text": "12", "gate": "never"})
    request = Request((Message("user", "1+1"),), max_output_tokens=200, timeout_s=30)
    task = asyncio.create_task(subject.backend.complete(subject.model, request))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_probe_answers_without_a_call(subject: Subject) -> None:
    subject.prepare({"text": "12"})
    probe = await subject.backend.probe()
    assert probe.reachable, probe.detail


async def test_the_pieces_are_told_as_they_come_and_are_the_text(subject: Subject) -> None:
    subject.prepare({"text": "a reply of several words"})
    pieces: list[str] = []
    request = Request((Message("user", "7+5"),), max_output_tokens=8, timeout_s=30)
    completion = await subject.backend.complete(subject.model, request, lambda delta: pieces.append(delta.text))
    assert "".join(pieces) == completion.text
    assert all(pieces)
