"""What a server left out in silence is seen in its reply."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow.backends.ignored import is_same_model
from agentflow.backends.openai_http import OpenAIBackend
from agentflow.messages import Completion, Message, OutputSchema, Request, ToolSpec
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer

COUNT = TokenCounter.for_model("gpt-4o").usage
QUESTION = (Message("user", "hello"),)
OBJECT = OutputSchema("S", {"type": "object", "required": ["a"]})
TOOL = ToolSpec("look_up", "Looks up.", {"type": "object"})
PROSE = "It is a truth universally acknowledged that a single man in possession of a good fortune wants a wife. "


@pytest.fixture
async def backend(scripted_server: ScriptedServer) -> AsyncIterator[OpenAIBackend]:
    it = OpenAIBackend(scripted_server.url, COUNT, retries=0, dialect="openai")
    yield it
    await it.aclose()


async def reply(backend: OpenAIBackend, server: ScriptedServer, step: dict[str, Any], **asked: Any) -> Completion:
    server.script({"m": [step]})
    return await backend.complete("m", Request(**{"messages": QUESTION, "timeout_s": 20, **asked}))


USAGE = {"prompt_tokens": 8, "completion_tokens": 30}


@pytest.mark.parametrize(
    ("asked", "step", "ignored"),
    [
        ({"logprobs": True}, {"text": "hi"}, ("logprobs",)),
        ({"logprobs": True}, {"text": "hi", "logprobs": [-0.5]}, ()),
        ({"schema": OBJECT}, {"text": "Of course! Here is your JSON."}, ("schema",)),
        ({"schema": OBJECT}, {"json": {"b": 1}}, ("schema",)),
        ({"schema": OBJECT}, {"json": [1]}, ("schema",)),
        ({"schema": OBJECT}, {"json": {"a": 1}}, ()),
        ({"schema": OBJECT}, {"text": '{"a": ', "finish_reason": "length"}, ()),
        ({"tools": (TOOL,)}, {"text": '<tool_call>{"name": "look_up"}</tool_call>'}, ("tools",)),
        ({"tools": (TOOL,)}, {"text": '{"name": "look_up", "parameters": {}}'}, ("tools",)),
        ({"tools": (TOOL,)}, {"text": '{"name": "Ada"}'}, ()),
        ({"stop": ("END",)}, {"text": "one END two"}, ("stop",)),
        ({"stop": ("END",)}, {"text": "one "}, ()),
        ({"max_output_tokens": 20}, {"text": PROSE, "usage": USAGE}, ("max_tokens",)),
        ({"max_output_tokens": 30}, {"text": PROSE, "usage": USAGE}, ()),
        ({}, {"text": "hi", "whole": True}, ("stream",)),
        ({}, {"text": "hi", "omit_usage": True}, ("usage",)),
        ({}, {"text": "hi", "usage": {"prompt_tokens": -1, "completion_tokens": "NaN"}}, ("usage",)),
        ({}, {"text": PROSE * 5, "usage": {"prompt_tokens": 8, "completion_tokens": 3}}, ("usage_too_low",)),
        (
            {"messages": (Message("user", PROSE * 5),)},
            {"text": "hi", "usage": {"prompt_tokens": 9, "completion_tokens": 1}},
            ("usage_too_low",),
        ),
        (
            {"max_output_tokens": 9},
            {"text": "hi", "usage": {"prompt_tokens": 8, "completion_tokens": 9_999}},
            ("usage",),
        ),
        ({}, {"text": "hi", "usage": {"prompt_tokens": 99_999, "completion_tokens": 1}}, ("usage",)),
        ({}, {"text": "hi", "model": "another"}, ("model",)),
        ({}, {"text": "hi", "model": "m-2024-08-06"}, ()),
    ],
)
async def test_what_was_asked_for_and_not_done_is_named(
    backend: OpenAIBackend,
    scripted_server: ScriptedServer,
    asked: dict[str, Any],
    step: dict[str, Any],
    ignored: tuple[str, ...],
) -> None:
    assert (await reply(backend, scripted_server, step, **asked)).ignored == ignored


async def test_it_is_warned_of_once_for_each_thing(
    backend: OpenAIBackend, scripted_server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "agentflow")
    for _ in range(3):
        await reply(backend, scripted_server, {"text": "hi", "model": "tiny"}, logprobs=True)
    await reply(backend, scripted_server, {"text": "hi", "omit_usage": True})
    assert [record.getMessage().split(" ", 1)[1] for record in caplog.records] == [
        "does not heed logprobs, model of requests for 'm' (it says that it serves 'tiny').",
        "does not heed usage of requests for 'm'.",
    ]


async def test_a_model_that_was_swapped_is_told_by_its_own_name(
    backend: OpenAIBackend, scripted_server: ScriptedServer
) -> None:
    assert (await reply(backend, scripted_server, {"text": "hi", "model": "another"})).model == "another"


@pytest.mark.parametrize(
    ("asked", "replied", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("openai/gpt-4o", "gpt-4o", True),
        ("claude-sonnet-4", "claude-sonnet-4-20250514", True),
        ("claude-3-5-sonnet", "us.anthropic.claude-3-5-sonnet-20241022-v2:0", True),
        ("gemini-2.5-flash", "gemini-2.5-flash-001", True),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct", True),
        ("small", "/models/small.gguf", True),
        ("gpt-4", "gpt-4o", False),
        ("gpt-4", "gpt-4.1", False),
        ("gpt-4", "gpt-4-32k", False),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o-mini", "gpt-4o", False),
        ("claude-sonnet-4", "claude-sonnet-4-5", False),
        ("llama-3", "llama-3.1-8b", False),
        ("o1", "o1-preview", False),
        ("m", "", False),
    ],
)
def test_a_name_with_a_date_a_revision_or_a_prefix_is_the_same_models(asked: str, replied: str, same: bool) -> None:
    assert is_same_model(asked, replied) is same
