from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentflow.budget.budget import Budget
from agentflow.budget.meter import Hold, Meter
from agentflow.budget.spend import Quote, Spend, microjoules
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
    assert refused.value.refusal.currency == "tokens"
    assert (job.statistics().held_tokens, chain.statistics().held_tokens) == (80, 80)


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


def test_leaving_a_hold_releases_it_and_ending_it_twice_changes_nothing() -> None:
    job = Meter("job", Budget(tokens=100))
    with job.hold(Quote(tokens=70)) as hold:
        pass
    hold.settle(spend(50))
    assert job.spent.tokens == 0
    assert job.room().tokens == 100


def test_a_dearer_reply_is_recorded_in_full_counted_and_closes_the_node() -> None:
    job = Meter("job", Budget(tokens=100))
    job.hold(Quote(tokens=50)).settle(spend(120))
    assert job.spent.tokens == 120
    assert job.statistics().overruns == 1
    with pytest.raises(BudgetExceeded):
        job.hold(Quote(tokens=1))


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
    job = Meter("job", Budget(tokens=1_000, usd="0.001"))
    chains = [job.child(f"chain-{n}") for n in range(10)]

    async def worker(number: int) -> None:
        for _ in range(2_000 // concurrency + 1):
            try:
                hold = chains[number % 10].hold(Quote(tokens=9, nano_usd=900))
            except BudgetExceeded:
                return
            await asyncio.sleep(0)
            hold.settle(spend(7, 700))

    async with asyncio.TaskGroup() as group:
        for number in range(concurrency):
            group.create_task(worker(number))
    assert job.spent.tokens <= 1_000
    assert job.spent.nano_usd <= 1_000_000
    assert job.statistics().held_tokens == 0
    if concurrency <= 10:
        assert job.spent.tokens >= 950


@pytest.mark.parametrize("limits", [{"usd": 0}, {"usd": -1}, {"tokens": 0}, {"tokens": 1.5}, {"joules": float("nan")},
                                    {"seconds": float("inf")}, {"usd": "much"}])  # fmt: skip
def test_a_budget_that_is_no_limit_is_refused(limits: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Budget(**limits)  # type: ignore[arg-type]


def test_a_share_is_a_part_of_every_limit() -> None:
    part = Budget(usd="0.10", tokens=1_001, joules=8, seconds=20).share(0.25)
    assert (part.nano_usd, part.tokens, part.joules, part.seconds) == (25_000_000, 250, 2.0, 5.0)


@given(st.floats(min_value=1e-9, max_value=1e6))
def test_a_float_of_dollars_is_the_decimal_it_prints_as(dollars: float) -> None:
    assert Budget(usd=dollars).usd is not None
    assert Budget(usd=0.1).nano_usd == 100_000_000


class MeterMachine(RuleBasedStateMachine):
    """Any order of holds, settles and releases over a tree: no node ever promises more than it has."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Meter("root", Budget(tokens=1_000, joules=50))
        self.nodes = [self.root, self.root.child("a", Budget(tokens=400)), self.root.child("b")]
        self.nodes.append(self.nodes[1].child("c", Budget(joules=10)))
        self.open: list[tuple[Hold, Quote]] = []

    @rule(node=st.integers(0, 3), tokens=st.integers(0, 500), joules=st.floats(0, 20))
    def hold(self, node: int, tokens: int, joules: float) -> None:
        quote = Quote(tokens, 0, microjoules(joules))
        try:
            self.open.append((self.nodes[node].hold(quote), quote))
        except BudgetExceeded:
            assert not self.nodes[node].room().fits(quote)

    @rule(part=st.floats(0, 1), data=st.data())
    def settle(self, part: float, data: st.DataObject) -> None:
        if self.open:
            hold, quote = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            hold.settle(spend(int(quote.tokens * part), 0, quote.microjoules * part / 1e6))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.open:
            self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))[0].release()

    @invariant()
    def nothing_is_promised_twice(self) -> None:
        for node in self.nodes:
            facts = node.statistics()
            assert facts.held_tokens >= 0
            assert facts.held_microjoules >= 0
            if node.budget.tokens is not None:
                assert facts.spent.tokens + facts.held_tokens <= node.budget.tokens
            if node.budget.microjoules is not None:
                # Each settle rounds its joules up to a whole microjoule.
                assert facts.spent.microjoules + facts.held_microjoules <= node.budget.microjoules + 50

    @invariant()
    def a_parent_has_at_least_what_its_children_have(self) -> None:
        for node in self.nodes:
            assert node.spent.tokens >= sum(child.spent.tokens for child in node.children)
            assert node.statistics().held_tokens >= sum(c.statistics().held_tokens for c in node.children)


TestMeterMachine = MeterMachine.TestCase
