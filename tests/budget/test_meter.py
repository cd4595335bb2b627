from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budget.budget import Budget
from agentflow.budget.events import BudgetEvent
from agentflow.budget.meter import Meter
from agentflow.budget.spend import Quote, Spend
from agentflow.energy.interval import Energy
from agentflow.errors import BudgetExceeded, UsageError
from agentflow.messages import TokenUsage


def spend(tokens: int = 0, nano_usd: int = 0, joules: float = 0.0) -> Spend:
    return Spend(1, TokenUsage(input=tokens), nano_usd, Energy(joules, joules, joules))


def test_hold_is_refused_when_any_ancestor_lacks_room() -> None:
    job = Meter("job", Budget(tokens=100))
    chain = job.child("chain", Budget(tokens=1_000))
    chain.hold(Quote(tokens=80))
    with pytest.raises(BudgetExceeded) as refused:
        chain.hold(Quote(tokens=30))
    assert refused.value.refusal.node == "'job'"
    assert (refused.value.refusal.currency, refused.value.refusal.left) == ("tokens", 20)
    assert (job.statistics().held[0], chain.statistics().held[0]) == (80, 80)


def test_a_refusal_says_what_is_left_and_what_was_asked() -> None:
    job = Meter("job", Budget(usd="0.01"))
    job.hold(Quote(nano_usd=4_000_000)).settle(spend(nano_usd=3_000_000))
    with pytest.raises(BudgetExceeded, match=r"has spent \$0\.003.* of \$0\.01.*needs up to \$0\.008"):
        job.hold(Quote(nano_usd=8_000_000))


def test_settle_replaces_the_hold_at_every_node() -> None:
    job = Meter("job", Budget(tokens=100, usd=1, joules=10))
    chain = job.child("chain")
    chain.hold(Quote(tokens=60, nano_usd=5, microjoules=9_000_000)).settle(spend(20, 3, 1.5))
    for node in (job, chain):
        assert (node.spent.tokens, node.spent.nano_usd, node.spent.energy.mean) == (20, 3, 1.5)
    assert job.room().tokens == 80
    assert job.room().microjoules == 8_500_000


@pytest.mark.parametrize(
    ("limits", "quote"),
    [
        ({"tokens": 10}, Quote(tokens=11)),
        ({"usd": "0.00000001"}, Quote(nano_usd=11)),
        ({"joules": 1e-5}, Quote(microjoules=11)),
        ({"grams_co2e": 1e-5}, Quote(micrograms=11)),
        ({"calls": 10}, Quote(calls=11)),
        ({"seconds": 10}, Quote(seconds=11)),
    ],
)
def test_every_currency_is_held_before_it_is_spent(limits: dict[str, object], quote: Quote) -> None:
    job = Meter("job", Budget(**limits), clock=lambda: 0.0)  # type: ignore[arg-type]
    with pytest.raises(BudgetExceeded) as refused:
        job.hold(quote)
    assert [refused.value.refusal.currency] == list(limits)
    assert job.statistics().held == (0, 0, 0, 0, 0)
    assert job.statistics().refused == 1


def test_leaving_a_hold_releases_it_and_ending_it_twice_changes_nothing() -> None:
    job = Meter("job", Budget(tokens=100))
    with job.hold(Quote(tokens=70)) as hold:
        pass
    hold.settle(spend(50))
    assert job.spent.tokens == 0
    assert job.room().tokens == 100


def test_a_dearer_reply_is_recorded_in_full_counted_and_closes_the_node() -> None:
    job = Meter("job", Budget(tokens=1_000))
    chain = job.child("chain")
    seen: list[str] = []
    job.listen(lambda event: seen.append(event.kind))
    chain.hold(Quote(tokens=50)).settle(spend(120))
    assert job.spent.tokens == 120
    assert (chain.statistics().overruns, job.spent.overruns) == (1, 1)
    with pytest.raises(BudgetExceeded, match=r"120 tokens where 50 tokens was held.*Give it new limits"):
        chain.hold(Quote(tokens=1))
    assert seen == ["overrun", "closed"]
    job.child("other").hold(Quote(tokens=1))
    chain.set_limits(Budget(tokens=10_000))
    chain.hold(Quote(tokens=1))


def test_an_expectation_that_was_too_low_is_an_overrun_but_closes_nothing() -> None:
    job = Meter("job", Budget(tokens=1_000))
    job.hold(Quote(tokens=50, bound=False)).settle(spend(120))
    assert job.statistics().overruns == 1
    job.hold(Quote(tokens=880))


def test_seconds_are_wall_clock_and_refuse_everything_once_gone() -> None:
    now = [0.0]
    job = Meter("job", Budget(seconds=10), clock=lambda: now[0])
    job.hold(Quote(seconds=10)).release()
    now[0] = 7.0
    assert job.room().seconds == 3.0
    with pytest.raises(BudgetExceeded, match="7 s of 10 s"):
        job.hold(Quote(seconds=4))
    now[0] = 10.0
    with pytest.raises(BudgetExceeded):
        job.hold(Quote())


def test_a_clock_that_jumps_back_gives_no_time_back() -> None:
    now = [0.0]
    job = Meter("job", Budget(seconds=10), clock=lambda: now[0])
    now[0] = 9.0
    assert job.room().seconds == 1.0
    now[0] = -1e6
    assert (job.room().seconds, job.elapsed) == (1.0, 9.0)
    now[0] = 1e9
    assert job.room().seconds == 0.0
    with pytest.raises(BudgetExceeded, match="seconds"):
        job.hold(Quote())


def test_a_parents_seconds_are_its_own_not_the_sum_of_parallel_children() -> None:
    now = [0.0]
    job = Meter("job", clock=lambda: now[0])
    children = [job.child(str(n)) for n in range(3)]
    now[0] = 5.0
    for child in children:
        child.close()
    now[0] = 6.0
    assert [child.spent.seconds for child in children] == [5.0, 5.0, 5.0]
    assert job.spent.seconds == 6.0


@pytest.mark.parametrize("concurrency", [1, 10, 100, 1_000])
async def test_concurrent_tasks_never_spend_more_than_the_budget_and_use_most_of_it(concurrency: int) -> None:
    job = Meter("job", Budget(tokens=9_000, usd="0.0009", joules=0.9, grams_co2e=0.9))
    chains = [job.child(f"chain-{n}") for n in range(10)]

    async def worker(number: int) -> None:
        for _ in range(3_000 // concurrency + 1):
            try:
                hold = chains[number % 10].hold(Quote(9, 900, 900, 0.0, 900))
            except BudgetExceeded:
                if not job.statistics().open_holds:
                    return
                await asyncio.sleep(0)
                continue
            await asyncio.sleep(0)
            hold.settle(spend(7, 700, 7e-4))

    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(worker(number))
    assert job.spent.tokens <= 9_000
    assert job.spent.nano_usd <= 900_000
    assert job.spent.microjoules <= 900_000
    assert job.statistics().held == (0, 0, 0, 0, 0)
    assert job.spent.tokens >= 0.95 * 9_000


def test_threads_do_not_slip_between_the_check_and_the_reservation() -> None:
    job = Meter("job", Budget(calls=500))
    chain = job.child("chain")
    admitted = [0] * 8

    def work(number: int) -> None:
        for _ in range(200):
            try:
                chain.hold(Quote(calls=1)).settle(Spend(calls=1))
            except BudgetExceeded:
                return
            admitted[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == job.spent.calls == 500


def test_a_node_that_has_ended_takes_no_more_calls() -> None:
    job = Meter("job")
    chain = job.child("chain")
    chain.close()
    with pytest.raises(UsageError, match="has ended"):
        chain.hold(Quote())


def test_a_landing_is_kept_for_a_final_hold() -> None:
    job = Meter("job", Budget(tokens=1_000, landing=0.1))
    assert (job.room().tokens, job.room(final=True).tokens) == (900, 1_000)
    job.hold(Quote(tokens=900)).settle(spend(900))
    with pytest.raises(BudgetExceeded, match="900 tokens of 1,000 tokens"):
        job.hold(Quote(tokens=1))
    job.hold(Quote(tokens=100), final=True)
    with pytest.raises(BudgetExceeded):
        job.hold(Quote(tokens=1), final=True)


def test_a_warning_comes_once_for_each_limit_when_its_share_is_spent() -> None:
    job = Meter("job", Budget(tokens=100, usd=1))
    seen: list[BudgetEvent] = []
    job.listen(seen.append)
    chain = job.child("chain", Budget(tokens=1_000))
    for _ in range(9):
        chain.hold(Quote(tokens=10)).settle(spend(10))
    assert [(event.kind, event.node, event.currency) for event in seen] == [("warning", "job", "tokens")]
    assert seen[0].message == "'job' has spent 80% of its tokens"


def test_what_an_earlier_process_spent_counts_on() -> None:
    now = [0.0]
    job = Meter("job", Budget(tokens=100, seconds=60), clock=lambda: now[0])
    job.carry({"job": (70, 0, 0, 0, 3)}, seconds=50.0)
    assert (job.room().tokens, job.room().seconds) == (30, 10.0)
    now[0] = 5.0
    assert job.elapsed == 55.0


def test_a_warning_that_another_process_passed_is_told_here_too() -> None:
    job = Meter("job", Budget(tokens=100))
    seen: list[str] = []
    job.listen(lambda event: seen.append(event.kind))
    job.carry({"job": (85, 0, 0, 0, 3)})
    for _ in range(2):
        job.hold(Quote(tokens=5)).settle(spend(5))
    assert seen == ["warning"]


@pytest.mark.parametrize("limits", [{"usd": 0}, {"usd": -1}, {"tokens": 0}, {"tokens": 1.5}, {"joules": float("nan")},
                                    {"seconds": float("inf")}, {"usd": "much"}, {"usd": 1e30}, {"calls": -1},
                                    {"grams_co2e": 0}, {"on_exceed": "pray"}, {"warn_at": 0}, {"landing": 1},
                                    {"per": "fortnight", "usd": 1}, {"per": "day", "seconds": 5}])  # fmt: skip
def test_a_budget_that_is_no_limit_is_refused(limits: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Budget(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Quote(tokens=-1),
        lambda: Quote(nano_usd=2**60),
        lambda: Quote(seconds=float("nan")),
        lambda: Quote(seconds=float("inf")),
        lambda: spend(-1),
        lambda: spend(nano_usd=-1),
        lambda: Spend(calls=-1),
        lambda: Spend(seconds=float("nan")),
        lambda: Spend(usage=TokenUsage(output=1.5)),  # type: ignore[arg-type]
        lambda: Spend(usage=TokenUsage(output=True)),
        lambda: Spend(usage=TokenUsage(input=2**70)),
    ],
)
def test_amounts_that_cannot_be_are_refused_before_they_reach_a_total(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


@given(st.floats(min_value=1e-9, max_value=1e6))
def test_a_float_of_dollars_is_the_decimal_it_prints_as(dollars: float) -> None:
    assert Budget(usd=dollars).usd is not None
    assert Budget(usd=0.1).nano_usd == 100_000_000


usages = st.builds(TokenUsage, *[st.integers(0, 10**9)] * 5, st.sampled_from(["provider", "estimate"]),
                   st.integers(0, 9), st.integers(0, 10**6))  # fmt: skip
spends = st.builds(
    lambda calls, usage, nano_usd, joules: Spend(
        calls, usage, nano_usd, Energy(sorted(joules)[1], min(joules), max(joules))
    ),
    st.integers(0, 9), usages, st.integers(0, 10**12), st.tuples(*[st.integers(0, 10**9).map(lambda j: j / 1e6)] * 3),
)  # fmt: skip


@given(st.lists(spends, max_size=6), st.randoms())
def test_spends_sum_to_the_same_in_any_order_and_as_a_meter_sums_them(parts: list[Spend], random: object) -> None:
    total = sum(parts, Spend())
    random.shuffle(parts)  # type: ignore[attr-defined]
    assert sum(parts, Spend()).amounts == total.amounts
    job = Meter("job", clock=lambda: 0.0)
    for part in parts:
        job.hold(Quote()).settle(part)
    assert (job.spent.amounts, job.spent.usage.reasoning) == (total.amounts, total.usage.reasoning)


@given(spends)
def test_a_spend_is_read_back_as_it_was_written(one: Spend) -> None:
    assert Spend.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    "change", [{"calls": -1}, {"energy": {}}, {"usage": None}, {"nano_usd": "5"}, {"co2e": {"mean": 1}}]
)
def test_a_spend_that_was_tampered_with_is_not_read(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Spend.from_json({**spend(1).to_json(), **change})


def test_a_spend_prints_for_people() -> None:
    assert str(Spend(2, TokenUsage(1_000, 520), 3_100_000, Energy(1_200, 400, 3_000, "modelled"), 2.4)) == (
        "2 calls, 1,520 tokens, $0.0031, 1.2 kJ (400 J to 3 kJ, modelled), 2.4 s"
    )
