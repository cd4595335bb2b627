from __future__ import annotations

import json
from typing import Any

import pytest

from agentflow.backends.openai_http import OpenAIBackend
from agentflow.errors import (
    BackendError,
    BackendUnavailable,
    BadReply,
    ConnectionDropped,
    ContextOverflow,
    RequestRejected,
)
from agentflow.messages import Message, OutputSchema, Request, ToolCall, ToolSpec
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer

COUNT = TokenCounter.for_model("gpt-4o").usage
ASK = Request((Message("user", "hello"),), max_output_tokens=50, timeout_s=20)


async def ask(server: ScriptedServer, step: dict[str, Any], request: Request = ASK, **options: Any) -> Any:
    server.script({"m": [step]})
    backend = OpenAIBackend(server.url, COUNT, **{"retries": 0, **options})
    try:
        return await backend.complete("m", request)
    finally:
        await backend.aclose()


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        ({"status": 429}, BackendUnavailable, "429"),
        ({"status": 503}, BackendUnavailable, "503"),
        ({"status": 500}, BackendError, "500"),
        ({"status": 401, "error": {"error": {"message": "bad key sk-abc123def"}}}, RequestRejected, "bad key …"),
        ({"status": 404, "error": {"error": {"message": "no such model"}}}, RequestRejected, "no such model"),
        (
            {"status": 400, "error": {"error": {"message": "x", "type": "exceed_context_size_error"}}},
            RequestRejected,
            "400",
        ),
        (
            {"status": 400, "error": {"error": {"message": "the maximum context length is 10"}}},
            ContextOverflow,
            "Shorten",
        ),
        ({"garbage": "<html>"}, BadReply, "not JSON"),
        ({"garbage": '{"choices": "none"}'}, BadReply, "no list of choices"),
        ({"garbage": '{"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]}'}, BadReply, "type int"),
        ({"garbage": "[]"}, BadReply, "chat completion"),
        ({"text": "x" * 200, "drop_after": 1}, ConnectionDropped, "ended the stream|closed"),
    ],
)
async def test_failures_are_told_by_their_kind(
    scripted_server: ScriptedServer, step: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        await ask(scripted_server, step)
    assert "sk-abc" not in str(raised.value)


async def test_only_what_generated_nothing_is_sent_again(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        {"m": [{"status": 429, "retry_after": 0}, {"status": 503, "retry_after": 0}, {"text": "ok"}]}
    )
    backend = OpenAIBackend(scripted_server.url, COUNT, retries=2)
    assert (await backend.complete("m", ASK)).text == "ok"
    scripted_server.script({"m": [{"status": 500}, {"text": "ok"}]})
    with pytest.raises(BackendError):
        await backend.complete("m", ASK)
    await backend.aclose()
    assert len(scripted_server.requests()) == 4


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": -5, "completion_tokens": 1}, {"prompt_tokens": "many", "completion_tokens": 1},
     {"prompt_tokens": 1e300, "completion_tokens": 1}, {"prompt_tokens": True, "completion_tokens": 1}, {}],
)  # fmt: skip
async def test_usage_that_makes_no_sense_is_counted_by_us(
    scripted_server: ScriptedServer, usage: dict[str, Any]
) -> None:
    completion = await ask(scripted_server, {"text": "Hello world", "usage": usage})
    assert (completion.usage.input, completion.usage.output) == (8, 2)
    assert completion.usage.source == "tokenizer"


async def test_usage_missing_from_a_stream_is_counted_by_us(scripted_server: ScriptedServer) -> None:
    completion = await ask(scripted_server, {"text": "Hello world", "omit_usage": True})
    assert (completion.usage.output, completion.usage.source) == (2, "tokenizer")


@pytest.mark.parametrize("stream", [True, False])
async def test_details_of_usage_timings_and_energy_are_read(scripted_server: ScriptedServer, stream: bool) -> None:
    usage = {
        "prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }  # fmt: skip
    extra = {"timings": {"prompt_ms": 12.0, "predicted_ms": 40.0}, "energy_joules": 3.5}
    completion = await ask(scripted_server, {"text": "hi", "usage": usage, "extra": extra}, stream=stream)
    assert (completion.usage.cached_input, completion.usage.reasoning) == (60, 5)
    assert (completion.timings.prefill_s, completion.timings.decode_s) == (0.012, 0.04)
    assert completion.reported_joules == 3.5
    assert (completion.timings.first_token_s is not None) == stream


@pytest.mark.parametrize("stream", [True, False])
async def test_tools_and_schemas_travel_both_ways(scripted_server: ScriptedServer, stream: bool) -> None:
    tool = ToolSpec("look_up", "Looks up.", {"type": "object"})
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": 1}'}}
    request = Request(ASK.messages, tools=(tool,), schema=OutputSchema("S", {"type": "object"}), timeout_s=20)
    completion = await ask(
        scripted_server, {"tool_calls": [call], "finish_reason": "tool_calls"}, request, stream=stream
    )
    assert completion.tool_calls == (ToolCall("c1", "look_up", '{"q": 1}'),)
    assert completion.finish_reason == "tool_calls"
    body = scripted_server.requests()[0]["body"]
    assert body["tools"][0]["function"]["name"] == "look_up"
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


async def test_the_key_is_read_from_its_variable_and_sent_nowhere_else(
    scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    await ask(scripted_server, {"text": "hi"}, api_key_env="MY_KEY")
    asked = scripted_server.requests()[0]
    assert asked["headers"]["Authorization"] == "Bearer sk-secret-123"
    assert "secret" not in json.dumps(asked["body"])


async def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    backend = OpenAIBackend("http://127.0.0.1:9/v1", COUNT, retries=0)
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9 does not answer") as raised:
        await backend.complete("m", ASK)
    assert not raised.value.sent
    assert not (await backend.probe()).reachable
    await backend.aclose()
