from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from agentflow.backends.openai_http import OpenAIBackend, request_id
from agentflow.errors import (
    BackendError,
    BackendUnavailable,
    BadReply,
    ConnectionDropped,
    ContextOverflow,
    RequestRejected,
)
from agentflow.messages import Image, Message, OutputSchema, Request, ToolCall, ToolSpec
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


KEY = "team-7f3a9c51e2"


@pytest.mark.parametrize(
    "step",
    [
        {"status": 401, "error": {"error": {"message": f"no such key: {KEY}"}}},
        {"status": 500, "error": {"error": {"message": "x" * 191 + f" {KEY}"}}},
        {"sse": f'data: {{"error": {{"message": "{KEY} is over its quota"}}}}\n\n'},
        {"sse": f"data: {KEY}\n\n"},
        {"garbage": f'{{"Authorization": "Bearer {KEY}"}}'},
    ],
)
async def test_a_server_that_repeats_the_key_does_not_get_it_into_an_error(
    scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, step: dict[str, Any]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with pytest.raises(BackendError) as told:
        await ask(scripted_server, step, api_key_env="MY_KEY")
    assert KEY[:6] not in str(told.value)


async def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    backend = OpenAIBackend("http://127.0.0.1:9/v1", COUNT, retries=0)
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9 does not answer") as raised:
        await backend.complete("m", ASK)
    assert not raised.value.sent
    assert not (await backend.probe()).reachable
    await backend.aclose()


@pytest.mark.parametrize("stream", [True, False])
async def test_several_tool_calls_come_in_pieces_and_are_told_apart(
    scripted_server: ScriptedServer, stream: bool
) -> None:
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": f"tool{n}", "arguments": json.dumps({"long": n * 11})}}
        for n in range(3)
    ]
    completion = await ask(scripted_server, {"tool_calls": calls, "finish_reason": "tool_calls"}, stream=stream)
    expected = [ToolCall(f"c{n}", f"tool{n}", json.dumps({"long": n * 11})) for n in range(3)]
    assert list(completion.tool_calls) == expected


async def test_tool_calls_without_an_index_are_told_apart_by_their_ids(scripted_server: ScriptedServer) -> None:
    def chunk(id: str | None, name: str, arguments: str) -> str:
        call = {"function": {"name": name, "arguments": arguments}} | ({"id": id} if id else {})
        return f"data: {json.dumps({'choices': [{'delta': {'tool_calls': [call]}}]})}\n\n"

    end = 'data: {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}\n\ndata: [DONE]\n\n'
    sse = chunk("a", "one", "{}") + chunk("b", "two", "{") + chunk("b", "", "}") + end
    completion = await ask(scripted_server, {"sse": sse})
    assert completion.tool_calls == (ToolCall("a", "one", "{}"), ToolCall("b", "two", "{}"))


async def test_the_results_of_tools_and_pictures_are_sent(scripted_server: ScriptedServer) -> None:
    picture = Image(b"\x89PNG", "image/png", 1, 1, "high")
    request = Request(
        (
            Message("user", "what is it?", images=(picture, Image(b"GIF", "image/gif", 1, 1))),
            Message("assistant", "", tool_calls=(ToolCall("c1", "look_up", "{}"),)),
            Message("tool", "a cat", tool_call_id="c1"),
        ),
        timeout_s=20,
    )
    await ask(scripted_server, {"text": "a cat"}, request)
    user, assistant, tool = scripted_server.requests()[0]["body"]["messages"]
    assert user["content"] == [
        {"type": "text", "text": "what is it?"},
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{base64.b64encode(picture.data).decode()}", "detail": "high"},
        },
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lG"}},
    ]
    assert assistant["tool_calls"][0] == {
        "id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"},
    }  # fmt: skip
    assert (tool["tool_call_id"], tool["content"]) == ("c1", "a cat")


@pytest.mark.parametrize(
    ("details", "timings", "cached", "written"),
    [
        ({"cached_tokens": 60, "created_cache_tokens": 32}, {}, 60, 32),
        ({}, {"cache_n": 48}, 48, 0),
        ({"cached_tokens": 900}, {}, 100, 0),
        ({"cached_tokens": -1, "created_cache_tokens": "all"}, {"cache_n": "many"}, 0, 0),
    ],
)
async def test_what_the_prefix_cache_spared_is_read_in_every_dialect(
    scripted_server: ScriptedServer, details: dict[str, Any], timings: dict[str, Any], cached: int, written: int
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 2, "prompt_tokens_details": details}
    completion = await ask(scripted_server, {"text": "hi", "usage": usage, "extra": {"timings": timings}})
    assert (completion.usage.cached_input, completion.usage.cache_write) == (cached, written)


async def test_the_server_is_told_a_digest_of_the_attempts_key(scripted_server: ScriptedServer) -> None:
    key = "tenant Ada/chain|1|small"
    await ask(scripted_server, {"text": "hi"}, Request(ASK.messages, key=key, timeout_s=20))
    headers = {name.lower(): value for name, value in scripted_server.requests()[0]["headers"].items()}
    sent = headers["x-request-id"]
    assert sent == request_id(key)
    assert "Ada" not in sent


async def test_a_stream_that_is_done_is_not_waited_for(scripted_server: ScriptedServer) -> None:
    completion = await ask(scripted_server, {"text": "hi", "lingering": True})
    assert completion.text == "hi"


async def test_a_reply_that_the_server_broke_off_is_none(scripted_server: ScriptedServer) -> None:
    with pytest.raises(BackendError, match="broke off"):
        await ask(scripted_server, {"text": "hal", "finish_reason": "abort"})


async def test_calls_of_tools_are_counted_where_the_server_sends_no_usage(scripted_server: ScriptedServer) -> None:
    arguments = json.dumps({"words": "one two three " * 40})
    call = {"id": "1", "type": "function", "function": {"name": "count", "arguments": arguments}}
    completion = await ask(scripted_server, {"tool_calls": [call], "omit_usage": True, "finish_reason": "tool_calls"})
    assert completion.usage.output >= 120


@pytest.mark.parametrize("joules", [-1, "many", True, float("nan"), 1e300])
async def test_joules_that_cannot_be_are_not_believed(scripted_server: ScriptedServer, joules: Any) -> None:
    completion = await ask(scripted_server, {"text": "hi", "extra": {"energy_joules": joules}}, stream=False)
    assert completion.reported_joules is None
