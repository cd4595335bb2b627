from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel

from agentflow.backends.openai_http import OpenAIBackend
from agentflow.budget.budget import Budget
from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import Price
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.checks import Candidate, token_confidence
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Verdict
from agentflow.cascade.rung import Answer, CodeRung, ModelRung
from agentflow.chain import Chain
from agentflow.energy.profiles import CpuProfile, RemotePrior
from agentflow.errors import BudgetExceeded, CallFailed, UsageError
from agentflow.messages import Message, Request
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer

PRICE = Price.per_million("1", "4", source="test")


class Sum(BaseModel):
    total: int


OPENED: list[OpenAIBackend] = []


@pytest.fixture(autouse=True)
async def _backends_are_closed() -> AsyncIterator[None]:
    yield
    while OPENED:
        await OPENED.pop().aclose()


def rung(server: ScriptedServer, name: str, **more: object) -> ModelRung:
    counter = TokenCounter.for_model("gpt-4o")
    backend = OpenAIBackend(server.url, counter.usage, retries=0)
    OPENED.append(backend)
    facts: dict[str, object] = {"default_output": 200, "timeout_s": 20.0, **more}
    return ModelRung(name, backend, name, PRICE, RemotePrior(), counter, **facts)  # type: ignore[arg-type]


def code(value: object, confidence: float) -> CodeRung:
    return CodeRung("code", lambda _: Answer(value, confidence), CpuProfile())


def chain(*rungs: ModelRung | CodeRung, budget: Budget | None = None, **policy: float) -> Chain:
    return Chain(Meter("chain", budget), Cascade("test", rungs, Policy(**policy)), MemoryLedger())  # type: ignore[arg-type]


ASK = Request((Message("user", "What is 2 + 2?"),), inputs=None)


async def test_a_confident_code_rung_serves_and_no_model_is_asked(scripted_server: ScriptedServer) -> None:
    it = chain(code(Sum(total=4), 0.9), rung(scripted_server, "small"))
    reply = await it.call(ASK, output=Sum)
    assert (reply.output.total, reply.rung, reply.kind) == (4, "code", "code")
    assert scripted_server.requests() == []
    assert it.spend.nano_usd == 0


async def test_an_unsure_code_rung_escalates_and_the_trail_says_why(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        {"small": [{"json": {"total": 4}, "usage": {"prompt_tokens": 100, "completion_tokens": 10}}]}
    )
    it = chain(code(Sum(total=5), 0.5), rung(scripted_server, "small"))
    reply = await it.call(ASK, output=Sum)
    assert (reply.output.total, reply.rung) == (4, "small")
    assert [a.outcome for a in reply.attempts] == ["kept", "accepted"]
    assert reply.attempts[0].reason == "confidence 0.50 is below 0.70"
    assert reply.spend.nano_usd == 100 * 1_000 + 10 * 4_000
    assert reply.spend.usage.source == "provider"


async def test_a_reply_that_fails_is_repaired_once_with_the_error_told_then_escalated(
    scripted_server: ScriptedServer,
) -> None:
    scripted_server.script(
        {"small": [{"text": "four"}, {"json": {"total": "four"}}], "large": [{"json": {"total": 4}}]}
    )
    it = chain(rung(scripted_server, "small"), rung(scripted_server, "large"))
    reply = await it.call(ASK, output=Sum)
    assert reply.rung == "large"
    assert [(a.rung, a.outcome, a.repair) for a in reply.attempts] == [
        ("small", "rejected", False), ("small", "rejected", True), ("large", "accepted", False),
    ]  # fmt: skip
    asked = scripted_server.requests()
    assert "not accepted" in asked[1]["body"]["messages"][-1]["content"]
    assert asked[1]["body"]["messages"][-2]["content"] == "four"
    assert len(asked[2]["body"]["messages"]) == 1, "the next rung starts from the question, not from the failed reply"
    assert asked[0]["body"]["response_format"]["json_schema"]["name"] == "Sum"


async def test_when_models_fail_the_code_rungs_answer_is_what_there_is(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"text": "no idea"}], "large": [{"status": 500}]})
    it = chain(code(Sum(total=4), 0.5), rung(scripted_server, "small"), rung(scripted_server, "large"))
    reply = await it.call(ASK, output=Sum)
    assert (reply.rung, reply.output.total) == ("code", 4)
    assert [a.outcome for a in reply.attempts] == ["accepted", "rejected", "rejected", "failed"]


async def test_a_check_of_ones_own_decides(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"json": {"total": 5}}], "large": [{"json": {"total": 4}}]})

    def adds_up(candidate: Candidate) -> Verdict:
        return Verdict(candidate.output.total == 4, reason="2 + 2 is not that")

    it = chain(rung(scripted_server, "small"), rung(scripted_server, "large"))
    reply = await it.call(ASK, output=Sum, checks=(adds_up,))
    assert reply.rung == "large"
    assert "2 + 2 is not that" in scripted_server.requests()[1]["body"]["messages"][-1]["content"]


async def test_token_probabilities_decide_when_they_are_the_check(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        {"small": [{"text": "4", "logprobs": [-2.0, -1.0]}], "large": [{"text": "4", "logprobs": [-0.01]}]}
    )
    it = chain(rung(scripted_server, "small", logprobs=True), rung(scripted_server, "large", logprobs=True))
    reply = await it.call(ASK, checks=(token_confidence,))
    assert reply.rung == "large"
    assert reply.attempts[0].confidence == pytest.approx(0.0498, abs=1e-3)


async def test_all_rungs_failing_is_told_with_every_reason(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        {"small": [{"text": "no"}], "large": [{"status": 400, "error": {"error": {"message": "bad schema"}}}]}
    )
    it = chain(rung(scripted_server, "small"), rung(scripted_server, "large"))
    with pytest.raises(CallFailed, match=r"small: .*large: .*bad schema"):
        await it.call(ASK, output=Sum)


async def test_a_call_that_does_not_fit_is_refused_before_anything_is_sent(scripted_server: ScriptedServer) -> None:
    it = chain(rung(scripted_server, "small"), budget=Budget(tokens=40))
    with pytest.raises(BudgetExceeded, match="40 tokens"):
        await it.call(ASK)
    assert scripted_server.requests() == []
    assert it.spend.tokens == 0


async def test_a_reply_is_shortened_to_what_fits(scripted_server: ScriptedServer) -> None:
    it = chain(rung(scripted_server, "small"), budget=Budget(tokens=120))
    await it.call(ASK)
    asked = scripted_server.requests()[0]["body"]["max_tokens"]
    assert 64 <= asked < 120
    assert it.spend.tokens <= 120


@pytest.mark.parametrize("budget", [Budget(usd="0.0005"), Budget(joules=1_400)])
async def test_dollars_and_joules_shorten_the_reply_too(scripted_server: ScriptedServer, budget: Budget) -> None:
    it = chain(rung(scripted_server, "small"), budget=budget)
    await it.call(ASK)
    assert scripted_server.requests()[0]["body"]["max_tokens"] < 200


async def test_a_refused_rung_is_passed_over_for_one_that_fits(scripted_server: ScriptedServer) -> None:
    it = chain(rung(scripted_server, "dear"), code("4", 0.5), budget=Budget(usd="0.00001", on_exceed="degrade"))
    reply = await it.call(ASK)
    assert reply.rung == "code"
    assert reply.refusal is not None
    assert reply.refusal.refusal.currency == "usd"
    assert scripted_server.requests() == []


async def test_a_slow_reply_ends_at_the_budgets_seconds_and_is_charged_in_doubt(
    scripted_server: ScriptedServer,
) -> None:
    scripted_server.script({"small": [{"text": "4", "gate": "never"}]})
    it = chain(rung(scripted_server, "small"), budget=Budget(seconds=0.5))
    started = time.monotonic()
    with pytest.raises(CallFailed, match="within 0"):
        await it.call(ASK)
    assert time.monotonic() - started < 5
    assert it.spend.in_doubt == 1
    assert it.spend.tokens > 200, "charged at everything that was held"
    with pytest.raises(BudgetExceeded, match="spent 0"):
        await it.call("again")


async def test_a_dropped_connection_is_charged_in_doubt_and_a_refused_one_is_not(
    scripted_server: ScriptedServer,
) -> None:
    scripted_server.script({"small": [{"text": "x" * 200, "drop_after": 2}]})
    it = chain(rung(scripted_server, "small"))
    with pytest.raises(CallFailed, match=r"ended the stream|closed the connection"):
        await it.call(ASK)
    assert it.spend.in_doubt == 1
    dead = ModelRung(
        "dead", OpenAIBackend("http://127.0.0.1:9/v1", TokenCounter.for_model("x").usage, retries=0), "m", PRICE,
        RemotePrior(), TokenCounter.for_model("x"),
    )  # fmt: skip
    OPENED.append(dead.backend)  # type: ignore[arg-type]
    other = chain(dead)
    with pytest.raises(CallFailed, match="does not answer"):
        await other.call(ASK)
    assert (other.spend.in_doubt, other.spend.tokens, other.meter.statistics().held[0]) == (0, 0, 0)


async def test_cancelling_a_call_ends_its_hold_and_stops_the_server(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"text": "x" * 400, "gate": "held"}]})
    it = chain(rung(scripted_server, "small"))
    task = asyncio.create_task(it.call(ASK))
    while not await asyncio.to_thread(scripted_server.requests):
        pass
    assert it.meter.statistics().open_holds == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert it.meter.statistics().open_holds == 0
    assert it.spend.in_doubt == 1
    while not await asyncio.to_thread(scripted_server.disconnects):
        pass


async def test_a_repeated_job_is_answered_from_the_ledger_and_never_charged_twice(
    scripted_server: ScriptedServer,
) -> None:
    scripted_server.script({"small": [{"text": "4"}]})
    ledger = MemoryLedger()
    cascade = Cascade("test", (rung(scripted_server, "small"),))
    first = Chain(Meter("job"), cascade, ledger)
    second = Chain(Meter("job"), cascade, ledger)
    a, b = await first.call(ASK), await second.call(ASK)
    assert a.output == b.output
    assert b.attempts[0].replayed
    assert (first.spend.calls, second.spend.calls) == (1, 0)
    assert len(scripted_server.requests()) == 1


async def test_equal_calls_of_one_chain_are_two_calls(scripted_server: ScriptedServer) -> None:
    it = chain(rung(scripted_server, "small"))
    await it.call(ASK)
    await it.call(ASK)
    assert len(scripted_server.requests()) == 2


@pytest.mark.parametrize("concurrency", [1, 10, 100])
async def test_real_concurrent_calls_never_spend_more_than_the_budget(
    scripted_server: ScriptedServer, concurrency: int
) -> None:
    small = rung(scripted_server, "small", default_output=100)
    prompt = small.counter.prompt(ASK)
    scripted_server.script({"small": [{"text": "y", "usage": {"prompt_tokens": prompt, "completion_tokens": 100}}]})
    job = Meter("job", Budget(tokens=10 * (prompt + 100) + 50, usd="0.0045"))
    cascade = Cascade("test", (small,), Policy(min_output=100))
    chains = [Chain(job.child(str(n)), cascade, MemoryLedger()) for n in range(concurrency)]

    async def ask(it: Chain) -> int:
        try:
            await it.call(ASK)
        except BudgetExceeded:
            return 0
        return 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(it)) for it in chains]
    done = sum(task.result() for task in tasks)
    assert done <= 10
    assert job.spent.tokens <= 10 * (prompt + 100) + 50
    assert job.spent.nano_usd <= 4_500_000
    assert done == min(concurrency, 10)


async def test_a_closed_chain_and_an_empty_question_are_refused(scripted_server: ScriptedServer) -> None:
    it = chain(rung(scripted_server, "small"))
    with pytest.raises(UsageError, match="empty"):
        await it.call("  ")
    it.close()
    with pytest.raises(UsageError, match="closed"):
        await it.call("hello")


async def test_statistics_show_the_state(scripted_server: ScriptedServer) -> None:
    it = chain(code("x", 0.1), rung(scripted_server, "small"))
    await it.call(ASK)
    facts = it.statistics()
    assert (facts.calls, facts.attempts) == (1, 2)
    assert facts.spent.tokens > 0


async def test_the_tools_a_model_asks_for_come_with_its_reply(scripted_server: ScriptedServer) -> None:
    asked = {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"bay":"Fundy"}'}}
    scripted_server.script({"small": [{"text": "", "tool_calls": [asked], "finish_reason": "tool_calls"}]})
    reply = await chain(rung(scripted_server, "small")).call("How high is the tide?")
    (call,) = reply.tool_calls
    assert (call.id, call.name, call.arguments) == ("call_1", "tide", '{"bay":"Fundy"}')
    assert reply.completion is not None and reply.completion.finish_reason == "tool_calls"
