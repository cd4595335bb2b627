"""What a request says of sampling and tools: sent by each backend that can, told as ignored where it cannot."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.backends.base import Backend
from agentflow.backends.exchange import Exchange, from_line, readable, to_line
from agentflow.backends.litellm import LiteLLMBackend
from agentflow.backends.llamacpp import LlamaCppBackend
from agentflow.backends.openai_http import OpenAIBackend
from agentflow.budget.ledger.rows import reply_of, reply_text
from agentflow.messages import Completion, Message, Request, Sampling, Timings, Token, TokenUsage, ToolChoice, ToolSpec
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer
from tests.servers.remade import remade

RUNGS = Path(__file__).parents[1] / "fixtures" / "rungs"
COUNT = TokenCounter.for_model("gpt-4o").usage
PLAIN = Request((Message("user", "7+5"),), max_output_tokens=8, timeout_s=20)
ADD = ToolSpec("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
TAKE = replace(ADD, name="take")
SAMPLING = Sampling(top_p=0.5, frequency_penalty=0.25, presence_penalty=-0.5, reasoning_effort="low")
TOKENS = [["12", -0.5, [["12", -0.5], ["13", -1.0]]]]
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
Backends = Callable[..., Backend]


@pytest.fixture
async def backend(scripted_server: ScriptedServer) -> AsyncIterator[Backends]:
    made: list[Backend] = []

    def make(kind: str, dialect: str = "openai") -> Backend:
        if kind == "litellm":
            options = {"api_key": "none", "drop_params": True, "allowed_openai_params": ["reasoning_effort"]}
            made.append(LiteLLMBackend("openai/m", COUNT, base_url=scripted_server.url, options=options))
        else:
            made.append(OpenAIBackend(scripted_server.url, COUNT, retries=0, dialect=dialect))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


@pytest.mark.parametrize("kind", ["openai", "litellm"])
async def test_it_is_sent_as_it_was_said(scripted_server: ScriptedServer, backend: Backends, kind: str) -> None:
    scripted_server.script({"m": [{"text": "12", "tokens": TOKENS}, {"text": "", "tool_calls": [CALL]}]})
    model = "openai/m" if kind == "litellm" else "m"
    asked = replace(PLAIN, sampling=SAMPLING, logprobs=True, top_logprobs=2)
    completion = await backend(kind).complete(model, asked)
    body = scripted_server.requests()[-1]["body"]
    assert {name: body[name] for name in SAMPLING.said()} == SAMPLING.said() and body["top_logprobs"] == 2
    assert completion.tokens == (Token("12", -0.5, (("12", -0.5), ("13", -1.0))),)
    assert completion.logprobs == (-0.5,)
    choice = ToolChoice(name="add", parallel=False)
    await backend(kind).complete(model, replace(PLAIN, tools=(ADD, TAKE), tool_choice=choice))
    body = scripted_server.requests()[-1]["body"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["parallel_tool_calls"] is False and len(body["tools"]) == 2


async def test_what_is_not_said_is_not_sent(scripted_server: ScriptedServer, backend: Backends) -> None:
    scripted_server.script({"m": [{"text": "12"}]})
    await backend("openai").complete("m", replace(PLAIN, tools=(ADD,)))
    body = scripted_server.requests()[-1]["body"]
    assert not body.keys() & {"top_p", "tool_choice", "parallel_tool_calls", "top_logprobs", "reasoning_effort"}


async def test_a_server_that_cannot_be_told_a_tools_name_is_shown_no_other(
    scripted_server: ScriptedServer, backend: Backends
) -> None:
    scripted_server.script({"m": [{"text": "", "tool_calls": [CALL]}]})
    await backend("openai", "llamacpp").complete(
        "m", replace(PLAIN, tools=(ADD, TAKE), tool_choice=ToolChoice(name="add"))
    )
    body = scripted_server.requests()[-1]["body"]
    assert body["tool_choice"] == "required" and [tool["function"]["name"] for tool in body["tools"]] == ["add"]


@pytest.mark.parametrize(
    ("choice", "step", "ignored"),
    [
        (ToolChoice(required=True), {"text": "no"}, ("tool_choice",)),
        (ToolChoice(name="take"), {"text": "", "tool_calls": [CALL], "finish_reason": "tool_calls"}, ("tool_choice",)),
        (ToolChoice(name="add"), {"text": "", "tool_calls": [CALL], "finish_reason": "tool_calls"}, ()),
        (
            ToolChoice(parallel=False),
            {"text": "", "tool_calls": [CALL, {**CALL, "id": "d"}], "finish_reason": "tool_calls"},
            ("parallel_tool_calls",),
        ),
    ],
)
async def test_a_choice_of_tools_that_was_not_heeded_is_told(
    scripted_server: ScriptedServer, backend: Backends, choice: ToolChoice, step: dict[str, Any], ignored: tuple[str]
) -> None:
    scripted_server.script({"m": [step]})
    asked = replace(PLAIN, tools=(ADD, TAKE), tool_choice=choice)
    assert (await backend("openai").complete("m", asked)).ignored == ignored


async def test_llamacpp_in_this_process_does_what_it_is_told(tmp_path: Path) -> None:
    template = (
        "{% if tools %}{% for t in tools %}{{ t | tojson }};{% endfor %}{% endif %}"
        "{% for m in messages %}{% if m.content %}{{ m.content }}={% endif %}{% endfor %}"
    )
    path = remade(RUNGS / "small.gguf", tmp_path / "tools.gguf", chat_template=template, context_length=1024)
    model = LlamaCppBackend(path, context=1024)
    asked = replace(PLAIN, logprobs=True, top_logprobs=3, temperature=0.0)
    told = await model.complete("small", asked)
    assert told.tokens and "".join(token.text for token in told.tokens).startswith(told.text)
    assert all(len(token.top) == 3 for token in told.tokens)
    assert all(token.top[0][1] >= token.top[-1][1] for token in told.tokens)
    hot = replace(PLAIN, temperature=2.0, seed=11)
    narrow = await model.complete("small", replace(hot, sampling=Sampling(top_p=1e-6)))
    assert narrow.text == (await model.complete("small", replace(PLAIN, temperature=0.0))).text, "one token is left"
    effort = await model.complete("small", replace(PLAIN, sampling=Sampling(reasoning_effort="low")))
    assert effort.ignored == ("reasoning_effort",)
    free = await model.complete("small", replace(PLAIN, tools=(ADD, TAKE)))
    forced = await model.complete("small", replace(PLAIN, tools=(ADD, TAKE), tool_choice=ToolChoice(name="add")))
    assert forced.usage.input < free.usage.input, "it is shown the one tool alone"
    assert (free.ignored, forced.ignored) == ((), ("tool_choice",)), "a model that knows digits only calls no tool"
    await model.aclose()


SAMPLINGS = st.builds(
    Sampling,
    top_p=st.none() | st.floats(0, 1),
    frequency_penalty=st.none() | st.floats(-2, 2),
    presence_penalty=st.none() | st.floats(-2, 2),
    reasoning_effort=st.none() | st.sampled_from(["low", "high"]),
)
CHOICES = st.builds(ToolChoice, st.booleans(), st.none() | st.just("add"), st.none() | st.booleans())
REQUESTS = st.builds(
    lambda sampling, choice, top: replace(
        PLAIN, tools=(ADD,), sampling=sampling, tool_choice=choice, logprobs=True, top_logprobs=top
    ),
    SAMPLINGS,
    CHOICES,
    st.none() | st.integers(0, 20),
)


@given(REQUESTS, REQUESTS)
def test_requests_that_differ_have_names_that_differ(one: Request, other: Request) -> None:
    assert (one == other) == (one.fingerprint() == other.fingerprint())


def test_a_request_that_says_nothing_new_keeps_the_name_it_had() -> None:
    # Of a request as it was named before there were samplings: ledgers and cassettes are read for years.
    assert Request((Message("user", "hello"),)).digest() == "36a9a9d1e52d0d0c"


def test_tokens_are_kept_with_a_reply() -> None:
    told = Completion("12", "m", TokenUsage(3, 1), Timings(0.5), tokens=(Token("12", -0.5, (("12", -0.5),)),))
    assert reply_of(reply_text(told)) == told
    bare = Completion("12", "m", TokenUsage(3, 1), Timings(0.5))
    assert reply_of(reply_text(bare)) == bare and "tokens" not in reply_text(bare)
    asked = replace(PLAIN, sampling=SAMPLING, tool_choice=ToolChoice(required=True), tools=(ADD,), top_logprobs=0)
    shown = readable(asked)
    assert shown["tool_choice"] == {"required": True} and shown["top_p"] == 0.5 and shown["top_logprobs"] == 0
    line = Exchange("small", "openai", "m", asked.digest(), 1, shown, told)
    assert from_line(json.loads(to_line(line)), 0).outcome == told
