"""What agentflow.testing gives an app builder: scripted models, flows that ask them, runs on a cassette."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentflow import Budget, Flow, Settings, testing
from agentflow.backends.cassette import Cassette
from agentflow.errors import (
    BackendTimeout,
    BudgetExceeded,
    CallFailed,
    CassetteMiss,
    ConfigError,
    ConnectionDropped,
    UsageError,
)
from agentflow.messages import Message, Request, TokenUsage, ToolCall, ToolSpec
from agentflow.testing import ScriptedModel, ScriptedReply
from tests.conftest import PROJECT
from tests.servers.openai_server import ScriptedServer


class Triage(BaseModel):
    ticket: str
    urgent: bool


async def test_a_scripted_model_answers_with_text_and_objects(here: Path) -> None:
    model = ScriptedModel(["Paris", Triage(ticket="T1", urgent=True)])
    async with testing.flow(model) as flow, flow.chain("questions") as chain:
        assert (await chain.call("Capital of France?")).output == "Paris"
        assert (await chain.call("Which ticket?", output=Triage)).output == Triage(ticket="T1", urgent=True)
        assert chain.spend.tokens > 0
    assert [request.messages[-1].content for request in model.requests] == ["Capital of France?", "Which ticket?"]
    assert model.requests[1].schema is not None
    model.assert_complete()
    assert model.closed
    assert list(here.iterdir()) == []


async def test_a_reply_that_is_not_valid_is_repaired_and_then_the_next_model_is_asked() -> None:
    small = ScriptedModel(["no json", "still none"], name="small")
    large = ScriptedModel([Triage(ticket="T2", urgent=False)], name="large")
    async with testing.flow(small, large) as flow, flow.chain("triage") as chain:
        reply = await chain.call("Which ticket?", output=Triage)
    assert reply.rung == "large"
    assert [(attempt.rung, attempt.outcome) for attempt in reply.attempts] == [
        ("small", "rejected"), ("small", "rejected"), ("large", "accepted"),
    ]  # fmt: skip


async def test_tools_usage_and_logprobs_are_as_scripted() -> None:
    call = ToolCall("1", "search", '{"q": "tides"}')
    usage = TokenUsage(100, 20, 80, source="provider")
    model = ScriptedModel([ScriptedReply(call, usage), ScriptedReply("yes", logprobs=(-0.1,)), [call, call]])
    tool = ToolSpec("search", "Search the sources.", {"type": "object"})
    request = Request((Message("user", "tides?"),), tools=(tool,), logprobs=True)
    first, second, third = [await model.complete("m", request) for _ in range(3)]
    assert (first.tool_calls, first.finish_reason, first.usage) == ((call,), "tool_calls", usage)
    assert (second.logprobs, second.finish_reason) == ((-0.1,), "stop")
    assert third.tool_calls == (call, call)
    assert third.usage.output > 0


async def test_confidence_decides_between_scripted_models() -> None:
    from agentflow import token_confidence

    small = ScriptedModel([ScriptedReply("unsure", logprobs=(-2.0,))], name="small")
    large = ScriptedModel([ScriptedReply("sure", logprobs=(-0.01,))], name="large")
    async with testing.flow(small, large) as flow, flow.chain("questions") as chain:
        reply = await chain.call("Is it?", checks=(token_confidence,))
    assert (reply.output, reply.rung) == ("sure", "large")


async def test_an_error_is_raised_as_scripted() -> None:
    async with testing.flow(ScriptedModel([ConnectionDropped("gone")])) as flow, flow.chain("questions") as chain:
        with pytest.raises(CallFailed, match="gone"):
            await chain.call("Still there?")


async def test_a_reply_waits_for_its_event() -> None:
    event = asyncio.Event()
    model = ScriptedModel([ScriptedReply("late", after=event), "early"])
    request = Request((Message("user", "hello"),))
    async with asyncio.TaskGroup() as group:
        late = group.create_task(model.complete("m", request))
        await asyncio.sleep(0)
        assert (await model.complete("m", request)).text == "early"
        assert not late.done()
        event.set()
    assert late.result().text == "late"
    with pytest.raises(BackendTimeout):
        waiting = ScriptedModel([ScriptedReply("never", after=asyncio.Event())])
        await waiting.complete("m", Request(request.messages, timeout_s=0.01))


async def test_a_reply_streams_word_by_word() -> None:
    async with testing.flow(ScriptedModel(["a reply of words "])) as flow, flow.chain("questions") as chain:
        async with chain.stream("Say.") as stream:
            assert [piece async for piece in stream] == ["a ", "reply ", "of ", "words "]


async def test_a_function_may_answer_instead() -> None:
    model = ScriptedModel(lambda request: request.messages[-1].content.upper())
    async with testing.flow(model) as flow, flow.chain("questions") as chain:
        assert [(await chain.call(text)).output for text in ("a", "b")] == ["A", "B"]


async def test_a_budget_holds_over_scripted_prices() -> None:
    model = ScriptedModel([ScriptedReply("x", TokenUsage(1000, 1000, source="provider"))])
    async with testing.flow(model, price=(1, 2)) as flow, flow.chain("dear", budget=Budget(usd=0.004)) as chain:
        await chain.call("first")
        assert chain.spend.nano_usd == 3_000_000
        with pytest.raises(BudgetExceeded):
            await chain.call(Request((Message("user", "second " * 900),)))


async def test_too_few_and_too_many_replies_are_told() -> None:
    model = ScriptedModel(["one", "two"])
    async with testing.flow(model) as flow, flow.chain("questions") as chain:
        await chain.call("1")
        with pytest.raises(AssertionError, match="has 1 replies left"):
            model.assert_complete()
        await chain.call("2")
        with pytest.raises(UsageError, match="was asked 3 times and has 2 replies"):
            await chain.call("3")
    with pytest.raises(UsageError, match="list of replies"):
        ScriptedModel("not a list")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="different names"):
        testing.flow(ScriptedModel([]), ScriptedModel([]))


def test_a_tests_flow_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFLOW_BUDGET__USD", "0.5")
    assert Settings().budget.usd is not None
    assert testing.flow(ScriptedModel([])).settings.budget.usd is None


def configured(server: ScriptedServer, *names: str, **more: Any) -> Settings:
    model: Any = {
        "backend": "openai", "base_url": server.url, "retries": 0, "api_key_env": "A_KEY",
        "price": {"input": 1, "output": 2}, "energy": {"kind": "remote"},
    }  # fmt: skip
    return Settings(models={name: model for name in names}, **more)


async def asked(settings: Settings) -> tuple[Any, ...]:
    """What a call cost, attempt by attempt; seconds of failures are not compared, for they are not recorded."""
    async with Flow(settings) as flow, flow.chain("triage", budget=Budget(usd=1, seconds=60)) as chain:
        reply = await chain.call("Which ticket is urgent?", output=Triage)
        served = [(a.spend.energy, a.spend.seconds) for a in reply.attempts if a.outcome != "failed"]
        return reply.rung, [(a.outcome, a.spend.nano_usd, a.spend.tokens) for a in reply.attempts], served


async def test_a_run_on_a_cassette_is_replayed_offline_at_what_it_cost(
    scripted_server: ScriptedServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "a-very-secret-value")
    scripted_server.script(
        {"small": [{"text": "no json"}, {"status": 500}], "large": [{"json": {"ticket": "T1", "urgent": True}}]}
    )
    with testing.cassette("triage.jsonl") as path:
        recorded = await asked(configured(scripted_server, "small", "large"))
        sent = len(scripted_server.requests())
        assert sent == 3
        assert await asked(configured(scripted_server, "small", "large")) == recorded
        monkeypatch.setenv("AGENTFLOW_CASSETTE__MODE", "replay")
        monkeypatch.delenv("A_KEY")
        assert await asked(configured(scripted_server, "small", "large")) == recorded
    assert recorded[0] == "large"
    assert len(scripted_server.requests()) == sent
    assert "a-very-secret-value" not in path.read_text()
    assert "Authorization" not in path.read_text()
    assert scripted_server.url not in path.read_text()
    assert "AGENTFLOW_CASSETTE__PATH" not in os.environ


async def test_a_miss_is_one_error_and_nothing_is_held_or_spent(scripted_server: ScriptedServer, here: Path) -> None:
    scripted_server.script({"*": [{"text": "hello"}]})
    with testing.cassette("run.jsonl"):
        async with Flow(configured(scripted_server, "small", "large")) as flow, flow.chain("chat") as chain:
            await chain.call("hello")
    with testing.cassette("run.jsonl", "replay"):
        async with Flow(configured(scripted_server, "small", "large")) as flow, flow.chain("chat") as chain:
            with pytest.raises(CassetteMiss, match="'hello' there, 'goodbye' here"):
                await chain.call("goodbye")
            assert chain.spend.tokens == chain.spend.nano_usd == 0
            assert chain.meter.statistics().open_holds == 0
    assert len(scripted_server.requests()) == 1


async def test_settings_name_a_cassette(scripted_server: ScriptedServer, here: Path) -> None:
    (here / "agentflow.toml").write_text(
        f'[models.small]\nbackend = "openai"\nbase_url = "{scripted_server.url}"\nprice = {{ input = 0, output = 0 }}\n'
        '[cassette]\npath = "run.jsonl"\nmode = "record"\n'
    )
    async with Flow.from_config() as flow, flow.chain("chat") as chain:
        await chain.call("hello")
    assert len(Cassette(here / "run.jsonl").exchanges) == 1
    with pytest.raises(ConfigError, match="exists"):
        async with Flow.from_config() as flow:
            flow.chain("chat")
    (here / "agentflow.toml").write_text('[cassette]\nmode = "replay"\n')
    with pytest.raises(ConfigError, match=r"line 1: cassette\.path"):
        Flow.from_config()


QUESTION = "How high does the tide in the Bay of Fundy rise?"


async def test_a_whole_research_job_is_recorded_and_replayed_offline(
    scripted_server: ScriptedServer, here: Path
) -> None:
    text = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest tide of the world.\n"
    (here / "tides.md").write_text(text)
    scripted_server.script({"small": [{"responder": "planning"}, {"responder": "quoting"}]})
    found: list[dict[str, Any]] = []
    for mode in ("record", "replay", "replay"):
        with testing.cassette("job.jsonl", mode):
            settings = configured(scripted_server, "small", cascades={"default": {"rungs": ["small"]}})
            async with Flow(settings) as flow:
                report = await flow.research(QUESTION, ["tides.md"], budget=Budget(usd=1, joules=50_000, seconds=120))
        found.append(json.loads(report.model_dump_json()))
    assert len(scripted_server.requests()) == len(Cassette(here / "job.jsonl").exchanges) == 2
    with testing.cassette("job.jsonl", "replay"), pytest.raises(CassetteMiss, match=r"'Fundy' there, 'Biscay' here"):
        async with Flow(configured(scripted_server, "small", cascades={"default": {"rungs": ["small"]}})) as flow:
            await flow.research(QUESTION.replace("Fundy", "Biscay"), ["tides.md"], budget=Budget(usd=1))
    first, *replayed = found
    for again in replayed:
        assert first["claims"] == again["claims"]
        assert first["meter"]["total"]["usd"] == again["meter"]["total"]["usd"] != "0"
        assert first["meter"]["total"]["output_tokens"] == again["meter"]["total"]["output_tokens"] > 0


def test_the_tests_of_the_documentation_pass(
    scripted_server: ScriptedServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_server.script({"*": [{"text": "T1 is, I should say."}]})
    (here / "agentflow.toml").write_text(
        f'[models.small]\nbackend = "openai"\nbase_url = "{scripted_server.url}"\ndefault_output = 30\n'
        "price = { input = 1, output = 2 }\n"
    )
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "testing.md").read_text("utf-8"), re.DOTALL)
    for number, block in enumerate(blocks):
        (here / f"test_{number}.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(here)]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, cwd=here)
        assert done.returncode == 0, done.stdout[-3000:]
        assert "3 passed" in done.stdout
        monkeypatch.setenv("AGENTFLOW_CASSETTE__MODE", "replay")
    assert len(scripted_server.requests()) == 1
