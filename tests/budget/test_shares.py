"""Shares: what is set aside for a child is its own, and what it does not spend flows back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budget.budget import Budget
from agentflow.budget.meter import Meter
from agentflow.budget.pacer import Pacer
from agentflow.budget.spend import Quote, Spend
from agentflow.errors import BudgetExceeded, UsageError
from agentflow.messages import TokenUsage
from agentflow.orchestration.agent import Agent
from agentflow.orchestration.plan import Plan, Task
from agentflow.orchestration.shares import Shares


def use(node: Meter, tokens: int) -> None:
    node.hold(Quote(tokens=tokens)).settle(Spend(1, TokenUsage(tokens)))


def test_a_share_is_set_aside_and_nobody_else_may_touch_it() -> None:
    job = Meter("job", Budget(tokens=1_000))
    one = job.child("one", share=0.6)
    two = job.child("two")
    assert (one.room().tokens, two.room().tokens, job.room().tokens) == (600, 400, 400)
    with pytest.raises(BudgetExceeded, match="'job'"):
        use(two, 401)
    use(one, 600)
    with pytest.raises(BudgetExceeded, match="'job/one'"):
        use(one, 1)
    assert job.statistics().granted[0] == 0


def test_what_a_child_does_not_spend_flows_back_when_it_ends() -> None:
    job = Meter("job", Budget(tokens=1_000))
    one = job.child("one", share=0.6)
    use(one, 100)
    assert job.room().tokens == 400
    one.close()
    assert job.room().tokens == 900
    assert job.spent.tokens == 100


def test_a_call_in_flight_when_its_node_ends_gives_back_what_it_did_not_use() -> None:
    job = Meter("job", Budget(tokens=1_000))
    one = job.child("one", share=0.5)
    hold = one.hold(Quote(tokens=300))
    one.close()
    assert job.room().tokens == 700
    hold.settle(Spend(1, TokenUsage(50)))
    assert job.room().tokens == 950


def test_shares_of_shares_divide_what_is_left() -> None:
    job = Meter("job", Budget(tokens=1_000, usd=1))
    team = job.child("team", share=0.5)
    worker = team.child("worker", share=0.5)
    assert (worker.room().tokens, team.room().tokens, job.room().tokens) == (250, 250, 500)
    assert worker.room().nano_usd == 250_000_000
    use(worker, 250)
    worker.close()
    team.close()
    assert job.room().tokens == 750


def test_only_what_is_limited_can_be_shared() -> None:
    job = Meter("job", Budget(tokens=1_000))
    assert job.child("one", share=0.5).room().nano_usd is None


def test_a_dearer_reply_than_the_whole_share_comes_out_of_what_is_above() -> None:
    job = Meter("job", Budget(tokens=1_000))
    one = job.child("one", share=0.1)
    one.hold(Quote(tokens=100)).settle(Spend(1, TokenUsage(160)))
    assert job.room().tokens == 840
    one.close()
    assert job.room().tokens == 840


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="share"):
        Meter("job", Budget(tokens=10)).child("x", share=share)


def plan(*shares: float) -> Plan:
    async def nothing(chain: object, inputs: object) -> None:
        return None

    agents = [Agent(f"a{number}", "", "", budget_share=share) for number, share in enumerate(shares)]
    return Plan(tuple(Task(agent.name, agent, nothing) for agent in agents))


@given(st.lists(st.floats(0.05, 0.99), min_size=1, max_size=6), st.randoms())
def test_tasks_that_start_together_have_their_shares_in_any_order(shares: list[float], random: object) -> None:
    made = plan(*shares)
    tasks = list(made.tasks)
    random.shuffle(tasks)  # type: ignore[attr-defined]
    job = Meter("job", Budget(tokens=10**9))
    divided = Shares(made)
    got = {task.name: job.child(task.name, share=divided.take(task)).room().tokens or 0 for task in tasks}
    scale = max(sum(shares), 1.0)
    for number, share in enumerate(shares):
        assert got[f"a{number}"] == pytest.approx(10**9 * share / scale, abs=10)
    assert sum(got.values()) <= 10**9


def test_an_agent_whose_share_is_everything_has_no_slice() -> None:
    made = plan(1.0, 0.5)
    divided = Shares(made)
    assert [divided.take(task) for task in made.tasks] == [None, pytest.approx(0.5 / 1.5)]


def test_a_pacer_says_how_dear_the_rest_has_become() -> None:
    pacer = Pacer(work=10)
    left = [100.0, *[float("inf")] * 4]
    assert pacer.dearness((10, 0, 0, 0, 0), left) == 0.0, "nothing is known yet"
    pacer.did(1, (10, 0, 0, 0, 0))
    assert pacer.pressure([90.0, *left[1:]]) == pytest.approx(1.0)
    assert pacer.dearness((10, 0, 0, 0, 0), [90.0, *left[1:]]) == pytest.approx(0.0)
    # 10 a unit, 9 units to go, 45 left: the money lasts for half of it, so a call of 10 costs twice its allowance.
    assert pacer.dearness((10, 0, 0, 0, 0), [45.0, *left[1:]]) == pytest.approx((2 - 1) * 10 * 9 / 45)
    assert pacer.dearness((10, 0, 0, 0, 0), [0.0, *left[1:]]) == float("inf")


@given(st.floats(1, 100), st.integers(1, 50), st.floats(0.1, 1e6))
def test_the_less_is_left_the_dearer_it_is(work: float, used: int, left: float) -> None:
    pacer = Pacer(work)
    pacer.did(0.5, (used, 0, 0, 0, 0))
    rest = [float("inf")] * 4
    asked = (used, 0, 0, 0, 0)
    assert pacer.dearness(asked, [left / 2, *rest]) >= pacer.dearness(asked, [left, *rest]) >= 0.0
