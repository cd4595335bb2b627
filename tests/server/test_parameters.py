"""How a reply is to be written, said by OpenAI's client and by litellm, and what reaches the model's server of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.server.test_chat import ASK, TOOL, TOOL_CALL, USAGE
from tests.servers.api import Api
from tests.servers.openai_server import ScriptedServer

SAMPLING: Any = {"top_p": 0.5, "frequency_penalty": 0.25, "presence_penalty": -0.5, "reasoning_effort": "low"}
CALLED = {"text": "", "tool_calls": [TOOL_CALL], "finish_reason": "tool_calls", "usage": USAGE}
FORCED: Any = {"type": "function", "function": {"name": "tide"}}
TOKENS = [["The", -0.5, [["The", -0.5], ["A", -1.5]]], [" tide", -0.25, [[" tide", -0.25], [" moon", -3.0]]]]


@pytest.fixture
def client(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def sent(models: ScriptedServer) -> dict[str, Any]:
    """What the model was asked last."""
    return models.requests()[-1]["body"]


def test_what_is_said_of_sampling_reaches_the_model(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "High.", "usage": USAGE}]})
    client.chat.completions.create(
        model="small", messages=ASK, seed=7, stop=["."], max_completion_tokens=50, **SAMPLING
    )
    body = sent(models)
    assert {name: body[name] for name in SAMPLING} == SAMPLING
    assert (body["seed"], body["stop"], body["max_tokens"]) == (7, ["."], 50)
    client.responses.create(model="small", input="How high?", top_p=0.5, reasoning={"effort": "high"})
    assert (sent(models)["top_p"], sent(models)["reasoning_effort"]) == (0.5, "high")


def test_what_changes_nothing_is_taken_and_not_sent_on(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "High.", "usage": USAGE}]})
    client.chat.completions.create(
        model="small", messages=ASK, n=1, top_p=1, presence_penalty=0, frequency_penalty=0, logit_bias={}, store=False,
        logprobs=False, user="u", safety_identifier="s", prompt_cache_key="k", service_tier="auto", metadata={"a": "b"},
        modalities=["text"], verbosity="medium",
    )  # fmt: skip
    assert set(sent(models)) == {"model", "messages", "temperature", "stream", "stream_options", "max_tokens"}
    client.responses.create(
        model="small", input="How high?", top_p=1, truncation="disabled", user="u", service_tier="default",
        include=["reasoning.encrypted_content"], text={"verbosity": "medium"},
    )  # fmt: skip
    assert set(sent(models)) == {"model", "messages", "temperature", "stream", "stream_options", "max_tokens"}


def test_several_replies_are_several_calls_on_one_bill(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": text, "usage": USAGE} for text in ("One.", "Two.", "Three.")]})
    before = len(models.requests())
    raw = client.chat.completions.with_raw_response.create(model="small", messages=ASK, n=3, seed=5)
    reply = raw.parse()
    assert sorted(choice.message.content or "" for choice in reply.choices) == ["One.", "Three.", "Two."]
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert reply.usage is not None and (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (300, 150)
    assert raw.headers["x-agentflow-usd"] == "0.0006" and raw.headers["x-agentflow-attempts"] == "3"
    bill = reply.usage.model_dump()["agentflow"]
    assert bill["rung"] == "small" and len(bill["attempts"]) == 3
    asked = models.requests()[before:]
    assert sorted(one["body"]["seed"] for one in asked) == [5, 6, 7], "one seed would give one reply three times"


def test_several_replies_come_side_by_side_in_a_stream(client: openai.OpenAI, models: ScriptedServer) -> None:
    texts = ["The tide is high. " * 5, "The moon is bright. " * 5]
    models.script({"small": [{"text": text, "usage": USAGE} for text in texts]})
    told: dict[int, str] = {0: "", 1: ""}
    finished: list[int] = []
    usage: Any = None
    for chunk in client.chat.completions.create(
        model="small", messages=ASK, n=2, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            told[choice.index] += choice.delta.content or ""
            finished += [choice.index] if choice.finish_reason else []
    assert sorted(told.values()) == sorted(texts)
    assert sorted(finished) == [0, 1] and usage.total_tokens == 300


def test_several_replies_are_had_all_or_not_at_all(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "One.", "usage": USAGE}, {"status": 400}]})
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="small", messages=ASK, n=2)
    before = len(models.requests())
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model="small", messages=ASK, n=2, max_tokens=10, extra_body={"agentflow": {"budget": {"calls": 1}}}
        )
    assert caught.value.status_code == 402 and len(models.requests()) - before <= 1, "each is held before it leaves"


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_come_with_their_probabilities(client: openai.OpenAI, models: ScriptedServer, stream: bool) -> None:
    models.script({"small": [{"text": "The tide", "tokens": TOKENS, "usage": USAGE}]})
    if stream:
        chunks = client.chat.completions.create(model="small", messages=ASK, logprobs=True, top_logprobs=2, stream=True)
        told = [c.choices[0].logprobs for c in chunks if c.choices and c.choices[0].logprobs]
    else:
        reply = client.chat.completions.create(model="small", messages=ASK, logprobs=True, top_logprobs=2)
        told = [reply.choices[0].logprobs]
    assert sent(models)["top_logprobs"] == 2
    (logprobs,) = told
    assert logprobs is not None and logprobs.content is not None
    assert [(token.token, token.logprob) for token in logprobs.content] == [("The", -0.5), (" tide", -0.25)]
    assert [[other.token for other in token.top_logprobs] for token in logprobs.content] == [
        ["The", "A"], [" tide", " moon"],
    ]  # fmt: skip
    assert logprobs.content[1].bytes == list(b" tide")


def test_responses_bring_their_tokens_when_they_are_to(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "The tide", "tokens": TOKENS, "usage": USAGE}]})
    plain = client.responses.create(model="small", input="How high?")
    assert plain.output[0].model_dump()["content"][0]["logprobs"] == []
    told = client.responses.create(
        model="small", input="How high?", include=["message.output_text.logprobs"], top_logprobs=1
    )
    found = told.output[0].model_dump()["content"][0]["logprobs"]
    assert [(token["token"], len(token["top_logprobs"])) for token in found] == [("The", 1), (" tide", 1)]


def test_a_model_that_leaves_something_out_is_named_on_the_bill(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "The tide", "usage": USAGE}]})
    reply = client.chat.completions.create(model="small", messages=ASK, logprobs=True)
    assert reply.choices[0].logprobs is None and reply.usage is not None
    assert reply.usage.model_dump()["agentflow"]["ignored"] == ["logprobs"]


@pytest.mark.parametrize("choice", ["required", FORCED])
def test_a_reply_without_the_tool_it_must_call_climbs(
    client: openai.OpenAI, models: ScriptedServer, choice: Any
) -> None:
    models.script({"small": [{"text": "I would rather not."}], "large": [CALLED]})
    raw = client.chat.completions.with_raw_response.create(
        model="default", messages=ASK, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False
    )
    called = raw.parse().choices[0].message.tool_calls
    assert called is not None and len(called) == 1
    call = called[0]
    assert call.function.name == "tide" and raw.headers["x-agentflow-rung"] == "large"  # type: ignore[union-attr]
    assert sent(models)["tool_choice"] == choice and sent(models)["parallel_tool_calls"] is False
    tool: Any = {"type": "function", "name": "tide", "parameters": {"type": "object", "properties": {}}}
    named: Any = choice if choice == "required" else {"type": "function", "name": "tide"}
    models.script({"*": [CALLED]})
    response = client.responses.create(model="small", input="How high?", tools=[tool], tool_choice=named)
    assert [item.type for item in response.output] == ["function_call"]
    assert response.tool_choice == choice or response.model_dump()["tool_choice"] == named


def test_tools_that_are_not_to_be_called_are_not_shown(client: openai.OpenAI, models: ScriptedServer) -> None:
    models.script({"small": [{"text": "No.", "usage": USAGE}]})
    client.chat.completions.create(model="small", messages=ASK, tools=[TOOL], tool_choice="none")
    assert "tools" not in sent(models) and "tool_choice" not in sent(models)


def test_litellm_says_the_same(api: Api, models: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    common: dict[str, Any] = {"model": "openai/small", "api_base": f"{api.url}/v1", "api_key": "none",
                              "messages": ASK, "num_retries": 0}  # fmt: skip
    models.script({"small": [{"text": text, "usage": USAGE, "tokens": TOKENS} for text in ("One.", "Two.")]})
    reply: Any = litellm.completion(**common, n=2, top_p=0.5, presence_penalty=1, logprobs=True, top_logprobs=1)
    assert sorted(choice.message.content for choice in reply.choices) == ["One.", "Two."]
    assert reply.choices[0].logprobs.content[0].token == "The"
    assert (sent(models)["top_p"], sent(models)["presence_penalty"]) == (0.5, 1)
    models.script({"small": [CALLED]})
    reply = litellm.completion(**common, tools=[TOOL], tool_choice=FORCED, _skip_mcp_handler=True)
    assert json.loads(reply.choices[0].message.tool_calls[0].function.arguments) == {"bay": "Fundy"}
    with pytest.raises(litellm.exceptions.BadRequestError, match="logit_bias"):
        litellm.completion(**common, logit_bias={"1": 5})


@pytest.mark.parametrize(
    ("wrong", "status", "word"),
    [
        ({"input": []}, 422, "input"),
        ({"top_p": 2}, 422, "top_p"),
        ({"top_logprobs": 21}, 422, "top_logprobs"),
        ({"reasoning": {"effort": 3}}, 422, "effort"),
        ({"reasoning": {"summary": "auto"}}, 422, "summary"),
        ({"text": {"verbosity": "low"}}, 422, "verbosity"),
        ({"text": {"format": {"type": "xml"}}}, 400, "xml"),
        ({"truncation": "auto"}, 422, "truncation"),
        ({"conversation": "conv_1"}, 422, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, 422, "prompt"),
        ({"tools": [{"type": "web_search"}]}, 422, "tools"),
        ({"tool_choice": {"type": "function", "name": "moon"}}, 400, "moon"),
        ({"metadata": {"a": "b" * 513}}, 422, "metadata"),
        ({"service_tier": "priority"}, 422, "service_tier"),
        ({"background": True, "store": False}, 400, "background"),
        ({"previous_response_id": ""}, 422, "previous_response_id"),
        ({"previous_response_id": "resp_\0"}, 422, "previous_response_id"),
        ({"previous_response_id": "'; drop table agentflow_response; --"}, 422, "previous_response_id"),
        ({"previous_response_id": "resp_0"}, 404, "resp_0"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 422, "input"),
    ],
)
def test_what_a_response_cannot_honour_is_refused_by_name(
    api: Api, wrong: dict[str, Any], status: int, word: str
) -> None:
    with api.client() as http:
        reply = http.post("/v1/responses", json={"model": "default", "input": "How high?", **wrong})
    assert reply.status_code == status, reply.text
    assert word in reply.json()["detail"] and reply.json()["error"]["message"] == reply.json()["detail"]
