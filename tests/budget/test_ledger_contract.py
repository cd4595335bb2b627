"""What every ledger promises, tried on all three."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import EntryFilter, Labels, Ledger, Opening
from agentflow.budget.ledger.durable import DurableLedger
from agentflow.budget.spend import Emissions, Quote, Spend
from agentflow.energy.interval import Energy
from agentflow.errors import BudgetExceeded, UsageError
from agentflow.messages import Completion, MeasuredJoules, Timings, TokenUsage, ToolCall

ACCOUNTS = (("job/chain", Budget().limits), ("job", Budget(tokens=1_000, usd=10).limits))
REPLY = Completion(
    "four \x00 ß \ud800", "m", TokenUsage(10, 5, 4, 2, 1, "provider", 1, 20), Timings(1.5, 0.25), "tool_calls", "id-1",
    (ToolCall("c1", "add", '{"a": 2}'),), (-0.5, -0.25), 1.25, 4.0,
    MeasuredJoules(2.0, 1.0, 3.0, True, "board", ("a counter",)), {"seen": True}, ("logprobs",),
)  # fmt: skip
JOULES = Energy(1.25, 1.0, 2.5, "modelled", "server", ("a guess",), 1.125, 0.8, (("batch", 4.0),))
SPENT = Spend(1, REPLY.usage, 3_000_000, JOULES, 1.5, co2e=Emissions(120, 80, 300), estimated=1)


def opening(key: str = "a", tokens: int = 600, **more: object) -> Opening:
    facts: dict[str, object] = {"accounts": ACCOUNTS, **more}
    return Opening(key, "job/chain", Quote(tokens, 5_000_000, 3_000_000, 0.25, 300), **facts)  # type: ignore[arg-type]


async def amounts(ledger: Ledger, id: str = "job") -> tuple[list[int], list[int]]:
    state = await ledger.account(id)
    assert state is not None
    return state.account.held, state.account.spent


async def test_a_hold_is_recorded_at_every_account_and_settled_in_full(ledger: Ledger) -> None:
    entry = await ledger.open(
        opening(labels=Labels("acme", "job", "chain", "planner", "plan", "default", "s", "model"))
    )
    assert (entry.state, entry.run) == ("held", ledger.run)
    assert await amounts(ledger) == ([600, 5_000_000, 3_000_000, 300, 1], [0] * 5)
    ended = await ledger.close("a", "settled", spend=SPENT, completion=REPLY, first_token_s=0.25)
    assert (ended.state, ended.spend) == ("settled", SPENT)
    for id in ("job", "job/chain"):
        assert await amounts(ledger, id) == ([0] * 5, [15, 3_000_000, 1_250_000, 120, 1])


async def test_what_was_recorded_is_read_back_exactly(ledger: Ledger) -> None:
    labels = Labels("acme", "job", "chain", "planner", "plan", "default", "small", "model", "m-1")
    opened = await ledger.open(opening(labels=labels))
    ended = await ledger.close("a", "settled", spend=SPENT, completion=REPLY, first_token_s=0.25)
    ledger.judge("a", "accepted", 0.75)
    found = await ledger.find("a")
    assert found is not None
    assert (found.completion, found.spend, found.labels, found.held) == (REPLY, SPENT, labels, opened.held)
    assert (found.outcome, found.score, found.first_token_s) == ("accepted", 0.75, 0.25)
    assert (found.opened_ms, found.closed_ms) == (opened.opened_ms, ended.closed_ms)
    listed = await ledger.entries()
    assert [entry.completion for entry in listed] == [None]
    assert listed[0].spend == SPENT


async def test_a_second_run_gets_the_reply_and_is_charged_nothing(ledger: Ledger) -> None:
    await ledger.open(opening())
    await ledger.close("a", "settled", spend=SPENT, completion=REPLY)
    again = await ledger.open(opening())
    assert (again.state, again.completion, again.replays) == ("settled", REPLY, 1)
    assert await amounts(ledger) == ([0] * 5, [15, 3_000_000, 1_250_000, 120, 1])


async def test_what_does_not_fit_is_refused_with_figures_and_leaves_no_trace(ledger: Ledger) -> None:
    await ledger.open(opening("a", 600))
    with pytest.raises(BudgetExceeded, match=r"'job' has spent 0 tokens of 1,000 tokens.*holds 600") as refused:
        await ledger.open(opening("b", 401))
    assert (refused.value.refusal.currency, refused.value.refusal.left) == ("tokens", 400)
    assert await ledger.find("b") is None
    assert (await amounts(ledger))[0][0] == 600
    await ledger.open(opening("b", 400))


async def test_a_released_hold_gives_everything_back_and_its_key_may_be_used_again(ledger: Ledger) -> None:
    await ledger.open(opening())
    assert (await ledger.close("a", "released")).state == "released"
    assert await amounts(ledger) == ([0] * 5, [0] * 5)
    assert (await ledger.open(opening(tokens=700))).state == "held"
    assert (await amounts(ledger))[0][0] == 700


async def test_ending_twice_changes_nothing(ledger: Ledger) -> None:
    await ledger.open(opening())
    await ledger.close("a", "settled", spend=SPENT)
    assert (await ledger.close("a", "in_doubt")).state == "settled"
    assert (await amounts(ledger))[1][0] == 15


async def test_two_calls_with_one_key_are_told(ledger: Ledger) -> None:
    await ledger.open(opening())
    with pytest.raises(UsageError, match="Two calls"):
        await ledger.open(opening())
    with pytest.raises(UsageError, match="no entry"):
        await ledger.close("ghost", "released")


async def test_doubt_is_charged_at_the_hold_and_reconciled_by_hand(ledger: Ledger) -> None:
    await ledger.open(opening())
    doubted = await ledger.close("a", "in_doubt")
    assert doubted.spend is not None
    assert (doubted.spend.tokens, doubted.spend.nano_usd, doubted.spend.in_doubt) == (600, 5_000_000, 1)
    assert await amounts(ledger) == ([0] * 5, [600, 5_000_000, 3_000_000, 300, 1])
    for _ in range(2):
        ended = await ledger.reconcile("a", SPENT, "by the provider's bill")
        assert (ended.state, ended.spend, ended.note) == ("reconciled", SPENT, "by the provider's bill")
    assert await amounts(ledger) == ([0] * 5, [15, 3_000_000, 1_250_000, 120, 1])
    with pytest.raises(UsageError, match="not in doubt"):
        await ledger.reconcile("a", None, "")
    with pytest.raises(UsageError, match="no entry"):
        await ledger.reconcile("ghost", None, "")


async def test_a_judgement_changes_nothing_else_and_makes_no_entry(ledger: Ledger) -> None:
    await ledger.open(opening())
    await ledger.close("a", "in_doubt")
    reconciled = await ledger.reconcile("a", SPENT, "by the provider's bill")
    ledger.judge("a", "accepted", 0.5)
    ledger.judge("nobody's", "accepted", 1.0)
    assert await ledger.find("a") == replace(reconciled, outcome="accepted", score=0.5)
    assert await ledger.find("nobody's") is None


async def test_a_call_that_never_reached_the_provider_is_reconciled_to_nothing(ledger: Ledger) -> None:
    await ledger.open(opening())
    await ledger.close("a", "in_doubt")
    await ledger.reconcile("a", None, "not on the bill")
    assert await amounts(ledger) == ([0] * 5, [0, 0, 0, 0, 1])


async def test_a_dearer_reply_is_recorded_in_full_and_closes_the_nearest_account(ledger: Ledger) -> None:
    await ledger.open(opening(tokens=10))
    ended = await ledger.close("a", "settled", spend=SPENT)
    assert ended.spend is not None and ended.spend.overruns == 1
    assert (await amounts(ledger))[1][0] == 15
    with pytest.raises(BudgetExceeded, match="cost more than was held"):
        await ledger.open(opening("b", 1))
    await ledger.set_limits("job/chain", Budget(tokens=500).limits)
    await ledger.open(opening("b", 1))


async def test_limits_can_be_changed_and_hold_at_once(ledger: Ledger) -> None:
    await ledger.open(opening("a", 600))
    await ledger.set_limits("job", Budget(tokens=700).limits)
    with pytest.raises(BudgetExceeded, match="of 700 tokens"):
        await ledger.open(opening("b", 101))
    await ledger.set_limits("new", Budget(calls=3).limits)
    state = await ledger.account("new")
    assert state is not None and state.account.limits == (None, None, None, None, 3)


async def test_entries_are_found_by_whose_they_are_and_when(ledger: Ledger) -> None:
    for number in range(4):
        labels = Labels(f"tenant-{number % 2}", f"job-{number}", model="m" if number else "n")
        await ledger.open(opening(str(number), 10, labels=labels))
    await ledger.close("3", "settled", spend=SPENT)
    everything = await ledger.entries()
    assert [entry.key for entry in everything] == ["0", "1", "2", "3"]

    async def keys(**which: object) -> list[str]:
        return [entry.key for entry in await ledger.entries(EntryFilter(**which))]  # type: ignore[arg-type]

    assert await keys(tenant="tenant-1") == ["1", "3"]
    assert await keys(job="job-2") == ["2"]
    assert await keys(model="m", tenant="tenant-0") == ["2"]
    assert await keys(state="held") == ["0", "1", "2"]
    assert await keys(since_ms=everything[0].opened_ms, until_ms=everything[-1].opened_ms + 1) == ["0", "1", "2", "3"]
    assert await keys(until_ms=everything[0].opened_ms) == []


@pytest.mark.parametrize("concurrency", [1, 10, 100, 1_000])
async def test_many_at_once_never_hold_more_than_the_limit(ledger: Ledger, concurrency: int) -> None:
    limit = Budget(tokens=10_000).limits

    async def one(number: int) -> int:
        try:
            await ledger.open(Opening(str(number), "n", Quote(100), (("n", limit), ("t", limit))))
        except BudgetExceeded:
            return 0
        await ledger.close(str(number), "settled", spend=Spend(1, TokenUsage(99)))
        return 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(concurrency)]
    admitted = sum(task.result() for task in tasks)
    held, spent = await amounts(ledger, "t")
    assert (held[0], spent[0]) == (0, 99 * admitted)
    assert spent[0] <= 10_000
    assert admitted >= min(concurrency, 100)


async def test_giving_up_while_a_hold_is_recorded_leaves_nothing_held(ledger: Ledger) -> None:
    tasks = [asyncio.ensure_future(ledger.open(opening(str(number), 5))) for number in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [number for number, result in enumerate(done) if not isinstance(result, asyncio.CancelledError)]
    for number in kept:
        await ledger.close(str(number), "released")
    held = await ledger.entries(EntryFilter(state="held"))
    assert held == []
    assert (await amounts(ledger))[0] == [0] * 5


async def test_seconds_are_kept_with_the_account(ledger: Ledger) -> None:
    await ledger.open(opening("a", 1, clocks=(("job", 2.5),)))
    await ledger.open(opening("b", 1, clocks=(("job", 1.5),)))
    state = await ledger.account("job")
    assert state is not None and state.elapsed_s == 2.5


async def test_the_accounts_equal_a_recount_of_the_entries(ledger: Ledger) -> None:
    for number in range(6):
        await ledger.open(opening(str(number), 50))
    await ledger.close("0", "settled", spend=SPENT)
    await ledger.close("1", "released")
    await ledger.close("2", "in_doubt")
    await ledger.close("3", "in_doubt")
    await ledger.reconcile("3", SPENT, "bill")
    if isinstance(ledger, DurableLedger):
        assert await ledger.audit() == []
        assert sorted(state.account.id for state in await ledger.accounts()) == ["job", "job/chain"]


async def test_closing_twice_changes_nothing(ledger: Ledger) -> None:
    await ledger.open(opening())
    await ledger.aclose()
    await ledger.aclose()
