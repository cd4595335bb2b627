"""What servers add to the OpenAI API, and how a backend finds out which one it speaks to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agentflow.backends.base import ServerFacts
from agentflow.backends.openai_http import OpenAIBackend
from agentflow.messages import Message, OutputSchema, Request
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer, ServerProcess

COUNT = TokenCounter.for_model("gpt-4o").usage
PLAIN = Request((Message("user", "hello"),), max_output_tokens=50, timeout_s=20)
SCHEMA = OutputSchema("S", {"type": "object", "required": ["a"]})
ALL = Request(PLAIN.messages, max_output_tokens=50, timeout_s=20, schema=SCHEMA, priority=3, cache_salt="tenant")
VLLM_MODELS = {"object": "list", "data": [{"id": "m", "owned_by": "vllm", "max_model_len": 512}]}
# Names and kinds as a vLLM 0.32 server gives them.
VLLM_METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 1264.0
# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 632.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_cache_hit"} 632.0
"""
Backends = Callable[..., OpenAIBackend]


@pytest.fixture
async def backend(scripted_server: ScriptedServer) -> AsyncIterator[Backends]:
    made: list[OpenAIBackend] = []

    def make(**options: Any) -> OpenAIBackend:
        made.append(OpenAIBackend(scripted_server.url, COUNT, retries=0, **options))
        return made[-1]

    scripted_server.script({"*": [{"json": {"a": 1}}]})
    yield make
    for one in made:
        await one.aclose()


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    process = ServerProcess("tests.servers.llama_metrics")
    yield process.address
    process.stop()


async def test_vllm_is_told_in_its_own_words(scripted_server: ScriptedServer, backend: Backends) -> None:
    completion = await backend(dialect="vllm").complete("m", ALL)
    body = scripted_server.requests()[0]["body"]
    assert body["structured_outputs"] == {"json": SCHEMA.schema, "disable_any_whitespace": True}
    assert (body["priority"], body["cache_salt"]) == (3, "tenant")
    assert "response_format" not in body
    assert not [name for name in body if name.startswith("guided")]
    assert completion.ignored == ()


@pytest.mark.parametrize("dialect", ["openai", "llamacpp"])
async def test_others_are_told_nothing_that_they_may_refuse_and_it_is_said(
    scripted_server: ScriptedServer, backend: Backends, dialect: str
) -> None:
    completion = await backend(dialect=dialect).complete("m", ALL)
    body = scripted_server.requests()[0]["body"]
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA.schema
    assert body.keys().isdisjoint({"structured_outputs", "priority", "cache_salt"})
    assert completion.ignored == ("priority", "cache_salt")


async def test_a_plain_request_asks_no_server_what_it_is(scripted_server: ScriptedServer, backend: Backends) -> None:
    await backend().complete("m", PLAIN)
    assert scripted_server.visits() == []


async def test_the_dialect_is_found_out_once_and_used_from_then_on(
    scripted_server: ScriptedServer, backend: Backends
) -> None:
    scripted_server.pages({"/v1/models": VLLM_MODELS})
    it = backend()
    for _ in range(3):
        await it.complete("m", ALL)
    assert [r["body"].get("cache_salt") for r in scripted_server.requests()] == ["tenant"] * 3
    assert scripted_server.visits() == ["/v1/models"]


async def test_a_page_that_never_comes_is_not_in_the_way_of_a_call(
    scripted_server: ScriptedServer, backend: Backends
) -> None:
    scripted_server.pages({"/v1/models": None})
    request = Request(PLAIN.messages, schema=SCHEMA, max_output_tokens=50, timeout_s=2)
    completion = await backend().complete("m", request)
    assert completion.text == '{"a": 1}'
    assert "response_format" in scripted_server.requests()[0]["body"]


@pytest.mark.parametrize(
    ("pages", "facts"),
    [
        ({"/v1/models": VLLM_MODELS}, ServerFacts("vllm", ("m",), context=512)),
        (
            {"/v1/models": VLLM_MODELS, "/metrics": VLLM_METRICS},
            ServerFacts("vllm", ("m",), context=512, running=3.0, waiting=2.0, cached_share=0.5),
        ),
        (
            {"/v1/models": {"data": [{"id": "m", "max_model_len": 64}]}, "/version": {"version": "0.33.0"}},
            ServerFacts("vllm", ("m",), context=64),
        ),
        (
            {
                "/v1/models": {"data": [{"id": "m"}]},
                "/props": {
                    "default_generation_settings": {"n_ctx": 2048}, "total_slots": 4,
                    "modalities": {"vision": True, "audio": False}, "chat_template_caps": {"supports_tools": True},
                },
            },
            ServerFacts("llamacpp", ("m",), context=2048, slots=4, modalities=("text", "vision"), tools=True),
        ),
        ({"/v1/models": {"data": [{"id": "m"}]}}, ServerFacts("openai", ("m",))),
        ({"/v1/models": {"data": "none"}, "/props": "<html>", "/version": "[" * 5_000}, ServerFacts("openai")),
        (
            {"/v1/models": {"data": [{"id": 7}, 3, {"id": "m", "owned_by": "vllm", "max_model_len": "long"}]}},
            ServerFacts("openai", ("", "m")),
        ),
    ],
)  # fmt: skip
async def test_a_probe_tells_what_a_server_says_of_itself(
    scripted_server: ScriptedServer, backend: Backends, pages: dict[str, Any], facts: ServerFacts
) -> None:
    scripted_server.pages(pages)
    probe = await backend().probe()
    assert probe.reachable, probe.detail
    assert probe.server == facts


@pytest.mark.parametrize("page", ["<html>", "[]", "[" * 200_000])
async def test_a_probe_of_what_is_no_such_server_says_so(
    scripted_server: ScriptedServer, backend: Backends, page: str
) -> None:
    scripted_server.pages({"/v1/models": page})
    probe = await backend().probe()
    assert not probe.reachable
    assert "gives no list of its models" in probe.detail


async def test_a_real_llama_server_is_known_with_its_slots_context_and_load(llama: str) -> None:
    backend = OpenAIBackend(f"{llama}/v1", COUNT)
    probe = await backend.probe()
    await backend.aclose()
    assert probe.server is not None
    assert (probe.server.dialect, probe.server.context, probe.server.slots) == ("llamacpp", 256, 2)
    assert probe.server.modalities == ("text",)
    assert (probe.server.running, probe.server.waiting) == (0.0, 0.0)
    assert "answers: llama.cpp, context 256, 2 slots, text, 0 running, 0 waiting" in probe.detail


async def test_a_real_llama_server_follows_a_schema(llama: str) -> None:
    backend = OpenAIBackend(f"{llama}/v1", COUNT, retries=0)
    schema = OutputSchema("Sum", {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2})
    request = Request((Message("user", "7+5"),), schema=schema, max_output_tokens=24, timeout_s=30)
    completion = await backend.complete("small", request)
    await backend.aclose()
    assert completion.text.startswith("[")
    assert "schema" not in completion.ignored
