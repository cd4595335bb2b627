"""Chat completions through a real server process, by the clients that people have: OpenAI's and litellm."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.servers.api import Api
from tests.servers.openai_server import ScriptedServer

ASK: Any = [{"role": "user", "content": "Which ticket is urgent?"}]
USAGE = {"prompt_tokens": 100, "completion_tokens": 50}
TOOL: Any = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"bay":"Fundy"}'}}


@pytest.fixture
def client(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_reply_comes_with_its_bill(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "The second.", "usage": USAGE}]})
    raw = client.chat.completions.with_raw_response.create(model="default", messages=ASK)
    reply = raw.parse()
    assert reply.choices[0].message.content == "The second."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None and (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (100, 50)
    assert raw.headers["x-agentflow-rung"] == "small"
    assert raw.headers["x-agentflow-usd"] == "0.0002", "100 tokens at a dollar a million and 50 at two"
    assert raw.headers["x-agentflow-tokens"] == "150"
    assert float(raw.headers["x-agentflow-joules"]) > 0
    bill = reply.usage.model_dump()["agentflow"]
    assert bill["usd"] == "0.0002" and bill["joules"]["low"] < bill["joules"]["mean"] < bill["joules"]["high"]
    assert [attempt["outcome"] for attempt in bill["attempts"]] == ["accepted"]


def test_a_stream_comes_in_pieces_and_ends_with_its_bill(client: openai.OpenAI, models: ScriptedServer) -> None:
    long = "The tide rises by sixteen metres. " * 6
    models.script({"small": [{"text": long, "usage": USAGE}]})
    stream = client.chat.completions.create(
        model="small", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert "".join(text) == long
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 150
    finished = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    assert [c.choices[0].finish_reason for c in finished] == ["stop"]
    assert finished[0].model_dump()["agentflow"]["rung"] == "small"


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_asked_for_and_their_results_sent_back(
    client: openai.OpenAI, models: ScriptedServer, stream: bool
) -> None:
    models.script({"small": [
        {"text": "", "tool_calls": [TOOL_CALL], "finish_reason": "tool_calls", "usage": USAGE},
        {"text": "Sixteen metres.", "usage": USAGE},
    ]})  # fmt: skip
    if stream:
        parts = [c.choices[0] for c in client.chat.completions.create(
            model="default", messages=ASK, tools=[TOOL], stream=True) if c.choices]  # fmt: skip
        (call,) = [call for part in parts for call in part.delta.tool_calls or []]
        assert parts[-1].finish_reason == "tool_calls"
    else:
        choice = client.chat.completions.create(model="default", messages=ASK, tools=[TOOL]).choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
    assert call.function is not None and call.function.name == "tide"  # type: ignore[union-attr]
    assert json.loads(call.function.arguments or "") == {"bay": "Fundy"}  # type: ignore[union-attr]
    history = [*ASK, {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
               {"role": "tool", "tool_call_id": "call_1", "content": "16 m"}]  # fmt: skip
    reply = client.chat.completions.create(model="default", messages=history, tools=[TOOL])
    assert reply.choices[0].message.content == "Sixteen metres."
    sent = models.requests()[-1]["body"]
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["tools"][0]["function"]["name"] == "tide"


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_must_be_json_climbs_until_it_is(
    client: openai.OpenAI, models: ScriptedServer, stream: bool
) -> None:
    models.script({"small": [{"text": "no idea"}], "large": [{"text": '{"urgent": 2}'}]})
    schema: Any = {"type": "json_schema", "json_schema": {"name": "triage", "schema": {"type": "object"}}}
    if stream:
        chunks = client.chat.completions.create(model="default", messages=ASK, response_format=schema, stream=True)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    else:
        text = (
            client.chat.completions.create(model="default", messages=ASK, response_format=schema)
            .choices[0]
            .message.content
        )
    assert json.loads(text or "") == {"urgent": 2}


def test_a_budget_is_kept_and_told_as_a_problem(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"*": [{"text": "x", "usage": USAGE}]})
    before = len(models.requests())
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(
                model="default", messages=ASK, stream=stream, extra_body={"agentflow": {"budget": {"tokens": 5}}}
            )
        assert caught.value.status_code == 402
        assert caught.value.code == "budget_exceeded"
        problem = caught.value.response.json()
        assert problem["type"] == "urn:agentflow:problem:budget-exceeded" and not problem["retryable"]
        assert caught.value.response.headers["content-type"] == "application/problem+json"
    assert len(models.requests()) == before, "nothing was sent"


def test_models_are_cascades_and_models_by_name(client: openai.OpenAI) -> None:
    found = {model.id: model.model_dump() for model in client.models.list()}
    assert list(found) == ["default", "careful", "small", "large"]
    assert found["default"]["rungs"] == ["small", "large"] and found["default"]["kind"] == "cascade"
    assert client.models.retrieve("careful").id == "careful"
    with pytest.raises(openai.NotFoundError, match="there are: default, careful, small, large"):
        client.chat.completions.create(model="gpt-9", messages=ASK)


@pytest.mark.parametrize(
    ("wrong", "status", "word"),
    [
        ({"n": 0}, 422, "n"),
        ({"n": 129}, 422, "n"),
        ({"top_p": 1.1}, 422, "top_p"),
        ({"presence_penalty": 3}, 422, "presence_penalty"),
        ({"frequency_penalty": "a"}, 422, "frequency_penalty"),
        ({"logprobs": "yes please"}, 422, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 422, "top_logprobs"),
        ({"top_logprobs": 2}, 400, "top_logprobs"),
        ({"logit_bias": {"50256": -100}}, 422, "logit_bias"),
        ({"reasoning_effort": "a lot!"}, 422, "reasoning_effort"),
        ({"verbosity": "high"}, 422, "verbosity"),
        ({"service_tier": "flex"}, 422, "service_tier"),
        ({"modalities": ["text", "audio"]}, 422, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, 422, "audio"),
        ({"functions": [{"name": "tide"}]}, 422, "functions"),
        ({"web_search_options": {"search_context_size": "low"}}, 422, "web_search_options"),
        ({"store": True}, 422, "store"),
        ({"tools": [{"type": "custom", "custom": {"name": "tide"}}]}, 422, "tools"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"tool_choice": "often"}, 422, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "moon"}}}, 400, "moon"),
        ({"temperature": 3}, 422, "temperature"),
        ({"max_tokens": -1}, 422, "max_tokens"),
        ({"messages": []}, 422, "messages"),
        ({"messages": "hi"}, 422, "messages"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, 422, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "image_url"),
        ({"response_format": {"type": "xml"}}, 400, "xml"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop"),
        ({"agentflow": {"budget": {"usd": -1}}}, 422, "usd"),
        ({"agentflow": {"bugdet": {}}}, 422, "bugdet"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(api: Api, wrong: dict[str, Any], status: int, word: str) -> None:
    with api.client() as http:
        reply = http.post("/v1/chat/completions", json={"model": "default", "messages": ASK, **wrong})
    assert reply.status_code == status, reply.text
    assert word in reply.json()["detail"]
    assert reply.json()["error"]["message"] == reply.json()["detail"]


def test_a_model_that_fails_is_a_problem_that_says_so(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"*": [{"status": 500}]})
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="default", messages=ASK)
    assert caught.value.status_code == 502 and "small" in str(caught.value)
    models.script({"*": [{"text": "The tide rises by sixteen metres in the bay. " * 4, "drop_after": 2}]})
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="small", messages=ASK, stream=True))


def test_a_client_that_hangs_up_ends_the_call(api: Api, models: ScriptedServer) -> None:
    models.script({"*": [{"text": "a " * 500, "gate_chunk": "never"}]})
    before = models.disconnects()
    with api.client() as http, pytest.raises(Exception):  # noqa: B017 - whatever the client makes of it
        http.post("/v1/chat/completions", json={"model": "small", "messages": ASK}, timeout=0.5)
    ends = time.monotonic() + 20
    while models.disconnects() <= before:
        assert time.monotonic() < ends, "the model is still being asked"


def test_litellm_is_served_whole_streamed_and_with_tools(
    api: Api, models: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    models.script({"small": [{"text": "The second.", "usage": USAGE}]})
    common: dict[str, Any] = {"model": "openai/default", "api_base": f"{api.url}/v1", "api_key": "none",
                              "messages": ASK, "num_retries": 0}  # fmt: skip
    reply: Any = litellm.completion(**common)
    assert reply.choices[0].message.content == "The second." and reply.usage.total_tokens == 150
    text = "".join(c.choices[0].delta.content or "" for c in litellm.completion(**common, stream=True))  # type: ignore[union-attr]
    assert text == "The second."
    models.script({"small": [{"text": "", "tool_calls": [TOOL_CALL], "finish_reason": "tool_calls"}]})
    # Without this litellm imports the package mcp, which it does not bring along.
    reply = litellm.completion(**common, tools=[TOOL], _skip_mcp_handler=True)
    assert reply.choices[0].message.tool_calls[0].function.name == "tide"
