"""One suite for every backend: what ``Backend`` promises of a reply."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from agentflow.errors import ConnectionDropped
from agentflow.messages import Message, OutputSchema, Request, ToolCall, ToolSpec
from tests.contract.subjects import COUNT, OVER_HTTP, TINY, Subject

ASK = Request((Message("user", "7+5"),), max_output_tokens=8, timeout_s=30)
EVEN = OutputSchema(
    "even",
    {
        "type": "object",
        "properties": {"even": {"type": "boolean"}},
        "required": ["even"],
        "additionalProperties": False,
    },
)
ADD = ToolSpec(
    "add", "Adds two numbers.", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
)
CALL: dict[str, Any] = {
    "id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 7, "b": 5}'},
}  # fmt: skip

only_over_http = pytest.mark.parametrize("subject", OVER_HTTP, indirect=True)
only_tiny = pytest.mark.parametrize("subject", TINY, indirect=True)


async def test_a_whole_reply_with_usage_and_time(subject: Subject) -> None:
    subject.script({"text": "12"})
    completion = await subject.backend.complete(subject.model, ASK)
    assert completion.text.strip() == "12"
    assert completion.model
    assert completion.usage.input > 0
    assert completion.usage.output > 0
    assert completion.usage.source in ("provider", "server")
    assert completion.timings.total_s > 0
    assert completion.finish_reason == "stop"
    assert completion.tool_calls == ()
    assert completion.ignored == ()


async def test_log_probabilities_come_when_they_are_asked_for(subject: Subject) -> None:
    subject.script({"text": "12", "logprobs": [-0.1, -0.2]})
    asked = await subject.backend.complete(subject.model, replace(ASK, logprobs=True))
    assert asked.logprobs
    assert all(p <= 0 for p in asked.logprobs)
    assert (await subject.backend.complete(subject.model, ASK)).logprobs is None


async def test_the_pieces_are_told_as_they_come_and_are_the_text(subject: Subject) -> None:
    subject.script({"text": "a reply of several words"})
    pieces: list[str] = []
    completion = await subject.backend.complete(subject.model, ASK, lambda delta: pieces.append(delta.text))
    assert "".join(pieces) == completion.text
    assert completion.text
    assert all(pieces)


async def test_a_reply_keeps_to_its_schema(subject: Subject) -> None:
    subject.script({"json": {"even": False}})
    request = replace(ASK, schema=EVEN, max_output_tokens=64)
    found = json.loads((await subject.backend.complete(subject.model, request)).text)
    assert isinstance(found.pop("even"), bool)
    assert found == {}
    if subject.server is not None:
        sent = subject.server.requests()[-1]["body"]["response_format"]["json_schema"]
        assert sent["schema"] == EVEN.schema


async def test_a_tool_is_shown_called_and_answered(subject: Subject) -> None:
    subject.script({"tool_calls": [CALL], "finish_reason": "tool_calls"})
    request = replace(ASK, tools=(ADD,))
    first = await subject.backend.complete(subject.model, request)
    called = ToolCall("call-1", "add", '{"a": 7, "b": 5}')
    if subject.tiny:
        # It has learnt nothing of tools, nor has its template a place for them: the call goes through, and where we
        # know the template, the caller is told.
        assert first.text.strip() == "12"
        assert first.ignored == (() if subject.kind == "llamacpp-http" else ("tools",))
    else:
        assert first.tool_calls == (called,)
        assert first.finish_reason == "tool_calls"
        assert first.usage.output > 0
    subject.script({"text": "It is 12."})
    turns = (*request.messages, Message("assistant", "", (called,)), Message("tool", "12", tool_call_id="call-1"))
    second = await subject.backend.complete(subject.model, replace(request, messages=turns))
    assert second.text
    if subject.server is not None:
        shown, answered = (asked["body"] for asked in subject.server.requests())
        assert shown["tools"][0]["function"]["parameters"] == ADD.parameters
        assert answered["messages"][1]["tool_calls"][0]["function"]["arguments"] == called.arguments
        assert answered["messages"][2]["role"] == "tool"
        assert answered["messages"][2]["tool_call_id"] == "call-1"


@only_over_http
@pytest.mark.parametrize(
    "step",
    [
        {"omit_usage": True},
        {"usage": {"prompt_tokens": -5, "completion_tokens": 3}},
        {"usage": {"prompt_tokens": "many", "completion_tokens": None}},
    ],
)
async def test_usage_that_is_missing_or_cannot_be_is_counted_by_us_and_marked(
    subject: Subject, step: dict[str, Any]
) -> None:
    subject.script({"text": "twelve, I should think", **step})
    if subject.kind == "litellm" and step.get("usage", {}).get("prompt_tokens") == "many":
        # litellm chokes on it before we see it: the reply is lost, and charged at its worst.
        with pytest.raises(ConnectionDropped):
            await subject.backend.complete(subject.model, ASK)
        return
    completion = await subject.backend.complete(subject.model, ASK)
    assert completion.usage == COUNT(ASK, "twelve, I should think")
    assert completion.usage.source in ("tokenizer", "estimate")


@only_tiny
async def test_a_tiny_model_counts_for_itself(subject: Subject) -> None:
    first, second = [await subject.backend.complete(subject.model, ASK) for _ in range(2)]
    assert first.usage.input == second.usage.input == 5
    assert first.usage.output == 3
    assert second.usage.cached_input > 0
    assert first.usage.source == ("provider" if subject.kind == "llamacpp-http" else "server")
    assert second.timings.prefill_s is not None
    assert second.timings.decode_s is not None


async def test_many_calls_at_once_each_get_their_own_reply(subject: Subject) -> None:
    sums = {f"{a}+{b}": str(a + b) for a in range(1, 5) for b in range(1, 5)}
    if subject.server is not None:
        subject.server.script({f"m{text}": [{"text": result}] for text, result in sums.items()})
    elif not subject.tiny:
        pytest.skip("what it replies does not hang on what it is asked")
    name = "{}" if subject.tiny else "openai/m{}" if subject.kind == "litellm" else "m{}"

    async def ask(text: str) -> str:
        request = replace(ASK, messages=(Message("user", text),))
        return (await subject.backend.complete(name.format(text), request)).text.strip()

    async with asyncio.TaskGroup() as group:
        asked = {text: group.create_task(ask(text)) for text in sums}
    assert {text: task.result() for text, task in asked.items()} == sums


async def test_a_probe_answers_without_a_call(subject: Subject) -> None:
    subject.script({"text": "12"})
    probe = await subject.backend.probe()
    assert probe.reachable, probe.detail
    assert probe.detail
    assert subject.server is None or subject.server.requests() == []


async def test_what_was_never_used_closes_too(subject: Subject) -> None:
    await subject.backend.aclose()
