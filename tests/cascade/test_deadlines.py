"""Deadlines of whole calls, on virtual time: over rungs, repairs, waiting; nothing starts that cannot end in time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.concurrency import ConcurrencyLimits
from agentflow.cascade.lane import LaneLimits
from agentflow.cascade.policy import Policy
from agentflow.chain import Chain
from agentflow.errors import BackendTimeout, BudgetExceeded, CallFailed
from agentflow.messages import Message, Request
from tests.cascade.simulated import Simulated, chain, nothing_is_held, replies, simulated
from tests.virtual_time import now, run


def test_a_deadline_holds_over_all_rungs_and_the_last_gets_what_is_left() -> None:
    async def story() -> None:
        small, large = Simulated(replies(100.0)), Simulated(replies(100.0))
        it = chain(simulated("small", small, timeout_s=4.0), simulated("large", large))
        with pytest.raises(CallFailed, match="gave no whole reply within 6 s"):
            await it.call("Who?", timeout_s=10)
        assert now() == pytest.approx(10)
        assert large.asked == [4.0]
        await nothing_is_held(it)

    run(story())


def test_the_deadline_of_a_request_and_of_a_cascade_hold_alike_and_the_shortest_wins() -> None:
    async def story() -> None:
        small = Simulated(replies(100.0))
        cascade = Cascade("test", (simulated("small", small),), Policy(), timeout_s=5.0)
        it = Chain(Meter("chain"), cascade, MemoryLedger())
        for request_s, call_s, expected in ((None, None, 5.0), (3.0, None, 3.0), (3.0, 2.0, 2.0), (30.0, 20.0, 5.0)):
            began = now()
            with pytest.raises(CallFailed):
                await it.call(Request((Message("user", "Who?"),), timeout_s=request_s), timeout_s=call_s)
            assert now() - began == pytest.approx(expected)

    run(story())


def test_repairs_count_against_it() -> None:
    async def story() -> None:
        small = Simulated(replies(3.0, 100.0), text="no number")
        it = chain(simulated("small", small))
        with pytest.raises(CallFailed):
            await it.call("2 + 2?", output=int, timeout_s=5)
        assert now() == pytest.approx(5)
        assert small.asked == [0.0, 3.0]

    run(story())


def test_a_repair_that_has_no_time_left_is_not_sent() -> None:
    async def story() -> None:
        small = Simulated(replies(3.0), text="no number")
        it = chain(simulated("small", small))
        with pytest.raises(CallFailed, match=r"it takes about 0\.25 s, and 0\.1 s are left"):
            await it.call("2 + 2?", output=int, timeout_s=3.1)
        assert now() == pytest.approx(3)
        assert small.asked == [0.0]

    run(story())


def test_a_rung_that_usually_takes_longer_than_is_left_is_skipped_with_the_reason() -> None:
    async def story() -> None:
        slow, quick = Simulated(replies(5.0)), Simulated(replies(1.0))
        it = chain(simulated("slow", slow), simulated("quick", quick))
        for _ in range(10):
            assert (await it.call("Who?")).rung == "slow"
        reply = await it.call("Who?", timeout_s=3)
        assert [(a.rung, a.outcome) for a in reply.attempts] == [("slow", "skipped"), ("quick", "accepted")]
        assert reply.attempts[0].reason == "it takes about 5 s, and 3 s are left"
        assert (len(slow.asked), reply.escalations) == (10, 0)
        # The seconds of a budget say the same.
        poor = Chain(Meter("poor", Budget(seconds=3), clock=now), it.cascade, MemoryLedger())
        assert (await poor.call("Who?")).rung == "quick"

    run(story())


def test_an_old_experience_bars_nobody() -> None:
    async def story() -> None:
        small = Simulated(replies(*[5.0] * 10, 1.0))
        it = chain(simulated("small", small))
        for _ in range(10):
            await it.call("Who?")
        with pytest.raises(CallFailed):
            await it.call("Who?", timeout_s=3)
        await asyncio.sleep(61)
        assert (await it.call("Who?", timeout_s=3)).rung == "small"

    run(story())


def test_short_replies_of_a_slow_writer_are_not_taken_for_long_ones() -> None:
    async def story() -> None:
        # Ten replies of 5 tokens: 0.5 s to the first, 1 s for each that follows.
        small = Simulated(replies(0.5), decode_s=4.0)
        it = chain(simulated("small", small))
        for _ in range(10):
            await it.call("Who?")
        assert it.cascade.rungs[0].lane.expected_s(1) == pytest.approx(1.5, rel=0.02)  # type: ignore[union-attr]
        assert it.cascade.rungs[0].lane.expected_s(100) == pytest.approx(4.5, rel=0.02)  # type: ignore[union-attr]

    run(story())


def test_waiting_for_a_slot_counts_and_leaves_time_for_the_attempt() -> None:
    async def story() -> None:
        small, large = Simulated(replies(20.0)), Simulated(replies(1.0))
        limits = LaneLimits(concurrency=ConcurrencyLimits(1, 1, 1))
        it = chain(simulated("small", small, limits), simulated("large", large))
        async with asyncio.TaskGroup() as group:
            group.create_task(it.call("Who?", name="first"))
            await asyncio.sleep(1)
            reply = await it.call("Who?", timeout_s=5)
            # Half of its time it waited; then it went on, while the next rung could still answer.
            assert reply.rung == "large"
            assert reply.attempts[0].reason == "no slot came free within 2.4 s: 1 calls run, 0 wait"
            assert now() == pytest.approx(1 + 2.375 + 1)
        await nothing_is_held(it)

    run(story())


def test_a_budgets_own_seconds_are_refused_by_the_budget() -> None:
    async def story() -> None:
        it = Chain(
            Meter("chain", Budget(seconds=0.2), clock=now),
            Cascade("test", (simulated("small", Simulated(replies(1.0))),), Policy()),
            MemoryLedger(),
        )
        with pytest.raises(BudgetExceeded, match="seconds"):
            await it.call("Who?")

    run(story())


@settings(max_examples=40)
@given(
    firsts=st.lists(st.sampled_from([0.1, 0.5, 2.0, 9.0, 100.0]), min_size=1, max_size=12),
    timeout_s=st.floats(0.05, 12.0),
    text=st.sampled_from(["4", "no number"]),
    slots=st.booleans(),
)
def test_no_call_takes_longer_than_its_deadline(firsts: list[float], timeout_s: float, text: str, slots: bool) -> None:
    async def story() -> None:
        limits = LaneLimits(concurrency=ConcurrencyLimits(1, 1, 1)) if slots else None
        rungs = [simulated(name, Simulated(replies(*firsts), text=text), limits, timeout_s=5.0) for name in "abc"]
        it = chain(*rungs)
        for n in range(4):
            began = now()
            try:
                await it.call("2 + 2?", output=int, name=str(n), timeout_s=timeout_s)
            except (CallFailed, BackendTimeout):
                pass
            assert now() - began <= timeout_s + 1e-6
        await nothing_is_held(it)

    run(story())
