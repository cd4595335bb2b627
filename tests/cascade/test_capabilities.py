from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from pydantic import BaseModel

from agentflow.budget.prices import Price, Rates, Tier
from agentflow.cascade.capabilities import EVERYTHING, known_capabilities, known_context
from agentflow.config import Settings
from agentflow.errors import CallFailed, ContextOverflow, NotServed
from agentflow.flow import Flow
from agentflow.messages import Image, Message, Request, ToolSpec
from tests.cascade.test_cascade import OPENED, _backends_are_closed, chain, code, rung  # noqa: F401
from tests.servers.openai_server import ScriptedServer

TEXT = frozenset({"text", "tools", "json", "logprobs"})
PICTURE = Image(b"png", "image/png", 1024, 1024)
LOOK = Request((Message("user", "What does it say?", images=(PICTURE,)),))


class Sum(BaseModel):
    total: int


async def test_a_call_with_an_image_goes_to_the_rung_that_sees_and_the_trail_says_why(
    scripted_server: ScriptedServer,
) -> None:
    it = chain(rung(scripted_server, "small", serves=TEXT), rung(scripted_server, "seeing"))
    reply = await it.call(LOOK)
    assert reply.rung == "seeing"
    assert [(a.rung, a.outcome, a.reason) for a in reply.attempts] == [
        ("small", "skipped", "it does not serve images"),
        ("seeing", "accepted", ""),
    ]
    assert [asked["body"]["model"] for asked in scripted_server.requests()] == ["seeing"]
    assert reply.escalations == 0


async def test_images_are_held_metered_and_priced(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"seeing": [{"text": "STOP", "usage": {"prompt_tokens": 800, "completion_tokens": 2}}]})
    by_the_piece = Price((Tier(0, Rates.dollars(input="1", output="4", image="0.01")),), source="test")
    seeing = rung(scripted_server, "seeing")
    dear = dataclasses.replace(seeing, price=by_the_piece)
    reply = await chain(dear).call(LOOK)
    assert reply.spend.usage.images == 1
    assert reply.spend.nano_usd == 800 * 1_000 + 2 * 4_000 + 10_000_000
    asked = dataclasses.replace(LOOK, max_output_tokens=10, timeout_s=5.0)
    assert dear.quote(asked).nano_usd - seeing.quote(asked).nano_usd == 10_000_000
    assert seeing.quote(asked).tokens > 765


@pytest.mark.parametrize(
    ("request_", "output", "serves", "lack"),
    [
        (LOOK, str, TEXT, "images"),
        (Request((Message("user", "Hi"),), tools=(ToolSpec("t", "d", {}),)), str, {"text"}, "tools"),
        (Request((Message("user", "Hi"),)), Sum, {"text"}, "replies in a schema"),
        (Request((Message("user", "Hi"),), logprobs=True), str, {"text"}, "log-probabilities"),
    ],
)
async def test_when_no_rung_can_nothing_is_sent_and_the_error_says_what_lacks(
    scripted_server: ScriptedServer, request_: Request, output: type, serves: frozenset[str], lack: str
) -> None:
    it = chain(rung(scripted_server, "small", serves=frozenset(serves)))
    with pytest.raises(NotServed, match=f"small: it does not serve {lack}"):
        await it.call(request_, output=output)
    assert scripted_server.requests() == []
    assert it.meter.spent.calls == 0


LONG = Request((Message("user", "word " * 3_000),))


async def test_a_prompt_that_is_too_long_goes_to_the_rung_with_the_longer_context(
    scripted_server: ScriptedServer,
) -> None:
    it = chain(rung(scripted_server, "small", context=1_000), rung(scripted_server, "large", context=10_000))
    reply = await it.call(LONG)
    assert reply.rung == "large"
    assert "in a context of 1,000" in reply.attempts[0].reason
    assert [asked["body"]["model"] for asked in scripted_server.requests()] == ["large"]


async def test_a_prompt_too_long_for_every_rung_is_refused_before_it_is_sent(scripted_server: ScriptedServer) -> None:
    it = chain(rung(scripted_server, "small", context=1_000), rung(scripted_server, "large", context=2_000))
    with pytest.raises(ContextOverflow, match=r"small: .* tokens and 64 for a reply, in a context of 1,000; large: "):
        await it.call(LONG)
    assert scripted_server.requests() == []
    assert it.meter.spent.calls == 0


async def test_a_rung_that_was_asked_and_failed_is_not_said_to_be_unable(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"seeing": [{"status": 500}]})
    it = chain(rung(scripted_server, "small", serves=TEXT), rung(scripted_server, "seeing"))
    with pytest.raises(CallFailed, match="small: it does not serve images; seeing: "):
        await it.call(LOOK)


async def test_code_answers_what_no_model_can(scripted_server: ScriptedServer) -> None:
    it = chain(code("STOP", 0.4), rung(scripted_server, "small", serves=TEXT))
    reply = await it.call(LOOK)
    assert (reply.rung, reply.output) == ("code", "STOP")


def test_what_nobody_says_is_known_of_the_model() -> None:
    assert known_capabilities("openai", "gpt-4o") == EVERYTHING
    assert known_capabilities("openai", "llama-3.1-8b") == TEXT
    assert known_capabilities("llamacpp", "qwen2-vl") == TEXT
    assert "vision" in known_capabilities("litellm", "openai/gpt-4o-mini")
    assert known_context("litellm", "openai/gpt-4o-mini") == 128_000
    assert known_context("openai", "gpt-4o-mini") is None


async def test_the_configuration_says_what_a_model_serves(here: Path) -> None:
    own = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "price": {"input": 0, "output": 0}}
    models = {"blind": own, "seeing": {**own, "serves": ["text", "vision"]}}
    async with Flow(Settings.model_validate({"models": models})) as flow:
        assert flow.runtime.rung("blind").serves == TEXT
        assert flow.runtime.rung("seeing").serves == {"text", "vision"}
