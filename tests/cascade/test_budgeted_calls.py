"""Calls at the edge of their budget: asked, degraded, landed, paced, replayed, forged; against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentflow.backends.openai_http import OpenAIBackend
from agentflow.budget.admission import Statistical
from agentflow.budget.budget import Budget
from agentflow.budget.events import BudgetEvent, Question
from agentflow.budget.ledger import EntryFilter, Ledger, MemoryLedger
from agentflow.budget.ledger.sqlite import sqlite_ledger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import Price
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.policy import Policy
from agentflow.cascade.rung import Answer, CodeRung, ModelRung
from agentflow.chain import Chain
from agentflow.energy.profiles import CpuProfile, RemotePrior
from agentflow.errors import BudgetExceeded, CallFailed
from agentflow.messages import Message, Request, ToolSpec
from agentflow.tokens import TokenCounter
from tests.servers.openai_server import ScriptedServer

ASK = Request((Message("user", "What is 2 + 2?"),))
COUNTER = TokenCounter.for_model("gpt-4o")
PROMPT = COUNTER.prompt(ASK)


@pytest.fixture
async def backend(scripted_server: ScriptedServer) -> AsyncIterator[OpenAIBackend]:
    it = OpenAIBackend(scripted_server.url, COUNTER.usage, retries=0)
    yield it
    await it.aclose()


def rung(backend: OpenAIBackend, name: str = "small", usd: str = "1", **more: object) -> ModelRung:
    price = Price.per_million(usd, usd, source="test")
    facts: dict[str, object] = {"default_output": 100, "timeout_s": 30.0, **more}
    return ModelRung(name, backend, name, price, RemotePrior(), COUNTER, **facts)  # type: ignore[arg-type]


def usage(output: int, prompt: int = PROMPT) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output}


def chain(budget: Budget, *rungs: ModelRung | CodeRung, ledger: Ledger | None = None, **policy: float) -> Chain:
    cascade = Cascade("test", rungs, Policy(**policy))  # type: ignore[arg-type]
    return Chain(Meter("chain", budget), cascade, ledger or MemoryLedger())


@pytest.mark.parametrize("concurrency", [1, 10, 100, 1_000])
async def test_no_crowd_spends_more_than_the_budget_in_any_currency(
    scripted_server: ScriptedServer, backend: OpenAIBackend, ledger: Ledger, concurrency: int
) -> None:
    scripted_server.script({"*": [{"text": "4", "usage": usage(100)}]})
    small = rung(backend, timeout_s=300.0)
    one = small.quote(replace(ASK, max_output_tokens=100))
    joules, grams = 20 * one.microjoules / 1e6, 20 * one.micrograms / 1e6
    job = Meter("job", Budget(tokens=20 * one.tokens, usd=f"{20 * one.nano_usd / 1e9:.9f}", joules=joules,
                              grams_co2e=grams, calls=20))  # fmt: skip
    chains = [Chain(job.child(str(n)), Cascade("test", (small,), Policy(min_output=100)), ledger) for n in range(10)]

    async def ask(number: int) -> None:
        for _ in range(max(100 // concurrency, 1)):
            try:
                await chains[number % 10].call(ASK, name=str(number))
            except BudgetExceeded:
                return

    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(ask(number))
    ratios = [spent / limit for spent, limit in zip(job.spent.amounts, job.limits, strict=True) if limit]
    print(f"{concurrency} at once: spent over limit {', '.join(f'{ratio:.3f}' for ratio in ratios)}")
    assert max(ratios) <= 1.0
    assert max(ratios) >= 0.95
    assert len(scripted_server.requests()) == job.spent.calls == 20
    state = await ledger.account("job")
    assert state is not None
    assert tuple(state.account.spent) == job.spent.amounts
    assert state.account.held == [0] * 5


async def test_a_person_who_raises_the_limit_lets_the_call_go_on(
    scripted_server: ScriptedServer, backend: OpenAIBackend, ledger: Ledger
) -> None:
    asked: list[Question] = []

    async def person(question: Question) -> Budget:
        asked.append(question)
        return Budget(tokens=1_000)

    it = chain(Budget(tokens=50, on_exceed="ask"), rung(backend), ledger=ledger)
    it.meter.ask = person
    assert (await it.call(ASK)).rung == "small"
    assert [(q.refusal.currency, q.limits.tokens) for q in asked] == [("tokens", 50)]
    assert it.meter.limits[0] == 1_000
    state = await ledger.account("chain")
    assert state is not None and state.account.limits[0] == 1_000


async def test_a_person_who_declines_ends_it(backend: OpenAIBackend) -> None:
    async def person(question: Question) -> None:
        return None

    it = chain(Budget(tokens=50, on_exceed="ask"), rung(backend))
    it.meter.ask = person
    with pytest.raises(BudgetExceeded):
        await it.call(ASK)


async def test_calls_that_wait_for_one_answer_are_all_served_by_it(
    scripted_server: ScriptedServer, backend: OpenAIBackend
) -> None:
    it = chain(Budget(tokens=50, on_exceed="ask"), rung(backend))
    events: list[BudgetEvent] = []
    asked = asyncio.Event()
    it.meter.listen(events.append)
    it.meter.listen(lambda _: asked.set())
    calls = [asyncio.ensure_future(it.call(ASK)) for _ in range(3)]
    await asyncio.wait_for(asked.wait(), 20)
    question = events[0].question
    assert events[0].kind == "asked" and question is not None
    await asyncio.to_thread(question.answer, Budget(tokens=5_000))
    assert len(await asyncio.gather(*calls)) == 3
    assert [event.kind for event in events] == ["asked", "raised"]


async def test_nobody_to_ask_is_a_refusal_and_so_is_a_person_who_never_answers(backend: OpenAIBackend) -> None:
    it = chain(Budget(tokens=50, on_exceed="ask"), rung(backend))
    with pytest.raises(BudgetExceeded):
        await it.call(ASK)
    slow = chain(Budget(tokens=50, seconds=0.2, on_exceed="ask"), rung(backend))
    slow.meter.listen(lambda event: None)
    with pytest.raises(BudgetExceeded):
        await slow.call(ASK)


async def test_stop_ends_at_the_refusal_and_degrade_takes_what_still_fits(
    scripted_server: ScriptedServer, backend: OpenAIBackend
) -> None:
    rungs = rung(backend, "dear", "1000"), rung(backend, "cheap", "1")
    stopping = chain(Budget(usd="0.001"), *rungs)
    with pytest.raises(BudgetExceeded):
        await stopping.call(ASK)
    degrading = chain(Budget(usd="0.001", on_exceed="degrade"), *rungs)
    reply = await degrading.call(ASK)
    assert (reply.rung, [a.outcome for a in reply.attempts]) == ("cheap", ["refused", "accepted"])


async def test_a_soft_landing_has_room_kept_for_it_and_goes_without_tools(
    scripted_server: ScriptedServer, backend: OpenAIBackend
) -> None:
    tools = (ToolSpec("search", "Searches.", {"type": "object"}),)
    request = replace(ASK, tools=tools)
    scripted_server.script({"*": [{"text": "so far", "usage": usage(100, COUNTER.prompt(request))}]})
    one = rung(backend).quote(replace(request, max_output_tokens=100)).tokens
    it = chain(Budget(tokens=2 * one, landing=0.5), rung(backend), min_output=100)
    await it.call(request)
    with pytest.raises(BudgetExceeded):
        await it.call(request)
    assert (await it.call(request, last=True)).text == "so far"
    assert "tools" in scripted_server.requests()[0]["body"]
    assert "tools" not in scripted_server.requests()[1]["body"]
    assert it.spend.tokens <= 2 * one


async def test_a_chain_that_spends_too_fast_takes_cheaper_replies_before_the_wall(
    scripted_server: ScriptedServer, backend: OpenAIBackend
) -> None:
    scripted_server.script({"*": [{"text": "4", "usage": usage(100)}]})

    def unsure(_: object) -> Answer:
        return Answer("4", confidence=0.5)

    def made(paced: bool) -> Chain:
        code = CodeRung("code", unsure, CpuProfile())
        it = chain(Budget(usd="0.0008"), code, rung(backend), accept=0.9, min_output=100)
        if paced:
            it.expect(calls=20)
        return it

    unpaced, paced = made(False), made(True)
    served: dict[bool, list[str]] = {True: [], False: []}
    for _ in range(20):
        for is_paced, it in ((True, paced), (False, unpaced)):
            served[is_paced].append((await it.call(ASK)).rung)
    first_refusal = served[False].index("code")
    assert served[False][first_refusal:] == ["code"] * (20 - first_refusal), "unpaced, it runs into the wall"
    assert "small" in served[True][first_refusal:], "paced, there is money left for later calls"
    assert "code" in served[True][: first_refusal + 1]


async def test_statistical_admission_holds_what_replies_have_been_like(
    scripted_server: ScriptedServer, backend: OpenAIBackend
) -> None:
    scripted_server.script({"*": [{"text": "4", "usage": usage(10)}]})
    small = rung(backend)
    cascade = Cascade("test", (small,))
    ledger = MemoryLedger()
    it = Chain(Meter("chain"), cascade, ledger, admission=Statistical(0.9, least=3))
    for _ in range(4):
        await it.call(ASK)
    held = [(entry.held.tokens, entry.held.bound) for entry in await ledger.entries()]
    bound = COUNTER.prompt_bound(ASK)
    assert held == [(bound + 100, True)] * 3 + [(bound + 10, False)]
    assert [r["body"]["max_tokens"] for r in scripted_server.requests()] == [100] * 4, "the reply itself is not cut"


async def test_a_reply_above_a_statistical_hold_is_recorded_in_full_and_closes_nothing(
    scripted_server: ScriptedServer, backend: OpenAIBackend
) -> None:
    scripted_server.script({"*": [{"text": "4", "usage": usage(10)}, {"text": "4", "usage": usage(90)}]})
    it = Chain(Meter("c", Budget(tokens=10_000)), Cascade("t", (rung(backend),)), MemoryLedger(),
               admission=Statistical(0.9, least=1))  # fmt: skip
    for _ in range(3):
        await it.call(ASK)
    assert it.spend.overruns == 1
    assert it.spend.usage.output == 190


@pytest.mark.parametrize(
    "forged",
    [
        {"prompt_tokens": 2**60, "completion_tokens": 2**60},
        {"prompt_tokens": 10**9, "completion_tokens": 5},
        {"prompt_tokens": -5, "completion_tokens": 3},
        {"prompt_tokens": "many", "completion_tokens": 3},
        {"prompt_tokens": float("nan"), "completion_tokens": 1},
        {"prompt_tokens": 5, "completion_tokens": 1e300},
    ],
)
async def test_forged_usage_is_an_overrun_or_is_counted_by_us_and_never_frees_anything(
    scripted_server: ScriptedServer, backend: OpenAIBackend, forged: dict[str, object]
) -> None:
    scripted_server.script({"*": [{"text": "four", "usage": forged}]})
    it = chain(Budget(tokens=1_000), rung(backend))
    try:
        await it.call(ASK)
    except CallFailed as failed:
        assert "cannot be" in str(failed)
        assert it.spend.in_doubt == 1
    spent = it.spend
    assert spent.tokens >= PROMPT
    assert spent.nano_usd > 0
    if spent.tokens > 1_000:
        assert spent.overruns == 1
        with pytest.raises(BudgetExceeded):
            await it.call(ASK)


async def test_usage_missing_from_a_stream_is_counted_and_marked(
    scripted_server: ScriptedServer, backend: OpenAIBackend, ledger: Ledger
) -> None:
    scripted_server.script({"*": [{"text": "four and nothing else", "omit_usage": True}]})
    it = chain(Budget(tokens=1_000), rung(backend), ledger=ledger)
    await it.call(ASK)
    assert it.spend.estimated == 1
    assert it.spend.tokens > PROMPT
    (entry,) = await ledger.entries()
    assert entry.spend is not None and (entry.spend.estimated, entry.spend.usage.source) != (0, "provider")


async def test_a_second_run_replays_what_is_known_and_repeats_what_was_cut_off(
    scripted_server: ScriptedServer, backend: OpenAIBackend, ledger: Ledger
) -> None:
    scripted_server.script(
        {"small": [{"text": "x" * 200, "drop_after": 2}], "large": [{"text": "4", "usage": usage(5)}]}
    )
    cascade = Cascade("test", (rung(backend, "small"), rung(backend, "large")))
    first = Chain(Meter("job"), cascade, ledger)
    reply = await first.call(ASK)
    assert [(a.rung, a.outcome) for a in reply.attempts] == [("small", "failed"), ("large", "accepted")]
    second = Chain(Meter("job"), cascade, ledger)
    again = await second.call(ASK)
    assert [(a.rung, a.outcome, a.replayed) for a in again.attempts] == [
        ("small", "failed", True), ("large", "accepted", True),
    ]  # fmt: skip
    assert second.spend.amounts == (0, 0, 0, 0, 0)
    assert len(scripted_server.requests()) == 2


async def test_an_attempt_that_was_cut_off_stays_charged_and_is_made_again_under_a_new_number(
    scripted_server: ScriptedServer, backend: OpenAIBackend, ledger: Ledger
) -> None:
    scripted_server.script({"*": [{"text": "4", "gate": "held"}, {"text": "4", "usage": usage(5)}]})
    cascade = Cascade("test", (rung(backend),))
    cut = asyncio.ensure_future(Chain(Meter("job"), cascade, ledger).call(ASK))
    while not await asyncio.to_thread(scripted_server.requests):
        pass
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    it = Chain(Meter("job"), cascade, ledger)
    reply = await it.call(ASK)
    assert [(a.number, a.outcome, a.replayed) for a in reply.attempts] == [(1, "failed", True), (2, "accepted", False)]
    (doubted,) = await ledger.entries(EntryFilter(state="in_doubt"))
    assert doubted.spend is not None and doubted.spend.tokens == doubted.held.tokens
    state = await ledger.account("job")
    assert state is not None and state.account.spent[0] == doubted.held.tokens + PROMPT + 5


async def test_what_other_processes_have_spent_shortens_the_reply_and_then_refuses(
    scripted_server: ScriptedServer, backend: OpenAIBackend, tmp_path: Path
) -> None:
    scripted_server.script({"*": [{"text": "4", "usage": usage(100)}]})
    ledgers = [sqlite_ledger(tmp_path / "ledger.db") for _ in range(2)]
    bound = COUNTER.prompt_bound(ASK)
    limit = Budget(tokens=bound + 100 + bound + 70)
    # Two trees, as in two processes: neither sees in memory what the other spends.
    one, two = (Chain(Meter("tenant", limit), Cascade("t", (rung(backend),)), it, key=str(n))
                for n, it in enumerate(ledgers))  # fmt: skip
    await one.call(ASK)
    scripted_server.script({"*": [{"text": "4", "usage": usage(70)}]})
    await two.call(ASK)
    assert scripted_server.requests()[-1]["body"]["max_tokens"] == 70 + bound - PROMPT
    with pytest.raises(BudgetExceeded, match="'tenant'"):
        await two.call("And again?")
    for it in ledgers:
        await it.aclose()


async def test_a_ledger_that_cannot_record_lets_nothing_be_sent(
    scripted_server: ScriptedServer, backend: OpenAIBackend, tmp_path: Path
) -> None:
    from agentflow.errors import LedgerError

    (tmp_path / "ledger.db").write_text("this is not a database, whatever its name says" * 100)
    ledger = sqlite_ledger(tmp_path / "ledger.db")
    it = chain(Budget(tokens=1_000), rung(backend), ledger=ledger)
    with pytest.raises(LedgerError, match=r"ledger\.db cannot be .*not a database"):
        await it.call(ASK)
    assert scripted_server.requests() == []
    assert it.meter.statistics().held == (0, 0, 0, 0, 0)
    await ledger.aclose()
