"""Calls through lanes, on virtual time: circuits, slots, rates, and what is left of them however calls end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from pydantic import ValidationError

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import EntryFilter
from agentflow.cascade.concurrency import ConcurrencyLimits
from agentflow.cascade.health import BreakerLimits
from agentflow.cascade.hedging import HedgeLimits
from agentflow.cascade.lane import Lane, LaneLimits, NoTurn
from agentflow.cascade.rates import RateLimits
from agentflow.cascade.rung import ModelRung
from agentflow.config import Settings
from agentflow.errors import (
    BackendTimeout,
    BackendUnavailable,
    BudgetExceeded,
    CallFailed,
    RequestRejected,
    UnprofiledModel,
)
from agentflow.runtime import Runtime
from tests.cascade.simulated import Simulated, chain, nothing_is_held, replies, simulated
from tests.virtual_time import now, run

SERVER = {"backend": "openai", "base_url": "http://127.0.0.1:1/v1", "price": {"input": 0, "output": 0}}


def busy(**more: float) -> BackendUnavailable:
    error = BackendUnavailable("429: too many")
    error.retry_after_s = more.get("retry_after_s")
    return error


def test_a_rung_that_is_down_is_passed_over_with_the_reason_told_and_probed_after_its_time() -> None:
    async def story() -> None:
        small = Simulated(replies(*[busy()] * 3, 1.0))
        large = Simulated(replies(1.0))
        limits = LaneLimits(breaker=BreakerLimits(failures=3, open_s=30))
        it = chain(simulated("small", small, limits), simulated("large", large))
        for _ in range(3):
            assert (await it.call("Who?")).rung == "large"
        reply = await it.call("Who?")
        assert [(a.rung, a.outcome) for a in reply.attempts] == [("small", "skipped"), ("large", "accepted")]
        assert "its circuit is open after repeated failures" in reply.attempts[0].reason
        assert len(small.asked) == 3
        await asyncio.sleep(30)
        assert (await it.call("Who?")).rung == "small"
        assert it.cascade.rungs[0].lane.state().health == "closed"  # type: ignore[union-attr]
        await nothing_is_held(it)

    run(story())


def test_a_rung_that_is_down_is_asked_all_the_same_when_nothing_else_is_left() -> None:
    async def story() -> None:
        small = Simulated(replies(*[busy()] * 5, 1.0))
        it = chain(simulated("small", small, LaneLimits(breaker=BreakerLimits(failures=5))))
        for _ in range(5):
            with pytest.raises(CallFailed):
                await it.call("Who?")
        assert it.cascade.rungs[0].lane.state().health == "open"  # type: ignore[union-attr]
        assert (await it.call("Who?")).rung == "small"

    run(story())


def test_a_stronger_rung_that_is_down_lets_a_valid_reply_stand() -> None:
    async def story() -> None:
        small, large = Simulated(replies(1.0), text="4"), Simulated(replies(busy()))
        limits = LaneLimits(breaker=BreakerLimits(failures=1, open_s=1_000))
        it = chain(simulated("large", large, limits), simulated("small", small))
        assert (await it.call("2 + 2?", output=int)).output == 4
        reply = await it.call("2 + 2?", output=int)
        assert [a.outcome for a in reply.attempts] == ["skipped", "accepted"]

    run(story())


def test_a_fault_of_the_request_says_nothing_of_the_models_health() -> None:
    async def story() -> None:
        small = Simulated(replies(RequestRejected("400")))
        it = chain(simulated("small", small))
        for _ in range(20):
            with pytest.raises(CallFailed):
                await it.call("Who?")
        assert len(small.asked) == 20
        assert it.cascade.rungs[0].lane.state().health == "closed"  # type: ignore[union-attr]

    run(story())


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then() -> None:
    async def story() -> None:
        small, large = Simulated(replies(busy(retry_after_s=50), 1.0)), Simulated(replies(1.0))
        it = chain(simulated("small", small), simulated("large", large))
        await it.call("Who?")
        await asyncio.sleep(40)
        assert (await it.call("Who?")).rung == "large"
        await asyncio.sleep(10)
        assert (await it.call("Who?")).rung == "small"

    run(story())


def test_no_more_calls_run_side_by_side_than_there_are_slots_and_who_waits_holds_no_budget() -> None:
    async def story() -> None:
        small = Simulated(replies(1.0))
        it = chain(simulated("small", small, LaneLimits(concurrency=ConcurrencyLimits(3, 3, 3))))
        async with asyncio.TaskGroup() as group:
            for n in range(12):
                group.create_task(it.call("Who?", name=str(n)))
            await asyncio.sleep(0.5)
            assert it.meter.statistics().open_holds == 3
            assert it.cascade.rungs[0].lane.state().waiting == 9  # type: ignore[union-attr]
        assert small.most == 3
        assert now() == pytest.approx(4.0)
        await nothing_is_held(it)

    run(story())


def test_refusals_and_timeouts_lower_the_limit() -> None:
    async def story() -> None:
        small = Simulated(replies(busy(), BackendTimeout("late"), 1.0))
        limits = LaneLimits(concurrency=ConcurrencyLimits(1, 100, 100), breaker=BreakerLimits(failures=9))
        it = chain(simulated("small", small, limits), simulated("large", Simulated(replies(1.0))))
        await it.call("Who?")
        await it.call("Who?")
        assert it.cascade.rungs[0].lane.state().limit == 81  # type: ignore[union-attr]

    run(story())


def test_a_full_minute_sends_calls_on_to_the_next_rung_at_once_when_they_cannot_wait() -> None:
    async def story() -> None:
        small, large = Simulated(replies(1.0)), Simulated(replies(1.0))
        it = chain(simulated("small", small, LaneLimits(rates=RateLimits(requests=2))), simulated("large", large))
        rungs = [(await it.call("Who?", timeout_s=10)).rung for _ in range(3)]
        assert rungs == ["small", "small", "large"]
        assert now() == pytest.approx(3.0)
        reply = await it.call("Who?", timeout_s=10)
        assert "is used up: the next turn would come in 27.0 s" in reply.attempts[0].reason
        assert (await it.call("Who?", timeout_s=60)).rung == "small", "who has time waits"
        assert now() == pytest.approx(31.0)
        await nothing_is_held(it)

    run(story())


def test_tokens_of_a_minute_are_what_was_really_used() -> None:
    async def story() -> None:
        # Held: over 100 tokens a call; used: 15. 30 calls' worth fits the minute only because that is corrected.
        small = Simulated(replies(0.01))
        it = chain(simulated("small", small, LaneLimits(rates=RateLimits(tokens=450))))
        for _ in range(20):
            await it.call("Who?")
        assert now() < 1.0

    run(story())


def test_a_rung_that_goes_down_while_a_call_stands_in_line_keeps_its_key_for_when_it_is_asked_after_all() -> None:
    async def story() -> None:
        limits = LaneLimits(BreakerLimits(failures=1), ConcurrencyLimits(1, 1, 1))
        it = chain(simulated("small", Simulated(replies(500.0, 1.0)), limits, timeout_s=2.0))
        first = asyncio.create_task(it.call("Who?", name="a"))
        await asyncio.sleep(1)
        reply = await it.call("Who?", name="b")
        assert [a.outcome for a in reply.attempts] == ["skipped", "accepted"]
        with pytest.raises(CallFailed):
            await first
        # A repeated run, where the rung is up, finds its reply under the same key.
        assert [entry.key.split("|")[-2:] for entry in await it._ledger.entries(EntryFilter())] == [["1", "small"]] * 2

    run(story())


def test_a_lane_tells_how_it_stands() -> None:
    async def story() -> None:
        small = Simulated(replies(*[n / 100 for n in range(1, 101)]), decode_s=0.4)
        it = chain(simulated("small", small))
        for _ in range(100):
            await it.call("Who?")
        state = it.cascade.rungs[0].lane.state()  # type: ignore[union-attr]
        assert (state.health, state.replies, state.failures, state.in_flight, state.limit) == (
            "closed",
            100,
            0,
            0,
            None,
        )
        assert state.first_token_p95_s == pytest.approx(0.95, rel=0.02)
        assert state.p95_s == pytest.approx(1.35, rel=0.02)
        assert state.between_tokens_p95_s == pytest.approx(0.1, rel=0.02)

    run(story())


def test_a_turn_that_is_not_used_gives_all_back() -> None:
    async def story() -> None:
        limits = LaneLimits(concurrency=ConcurrencyLimits(1, 1, 1), rates=RateLimits(requests=1, tokens=100))
        lane = Lane(limits, now)
        with await lane.turn(100, 1.0):
            with pytest.raises(NoTurn, match="used up"):
                await lane.turn(100, 1.0)
        with await lane.turn(100, 0.0) as turn:
            turn.leaves()
        with pytest.raises(NoTurn, match="used up"):
            await lane.turn(1, 1.0)
        await asyncio.sleep(60)
        with await lane.turn(1, 0.0):
            await asyncio.sleep(60)
            with pytest.raises(NoTurn, match=r"no slot came free within 2\.0 s: 1 calls run, 0 wait"):
                await lane.turn(1, 2.0)
        assert lane.state().in_flight == 0

    run(story())


class Crowd:
    """Users of a chain with every limit on, whose servers fail and hang, and who leave as they like."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.backends = [Simulated(self.fate, decode_s=0.2) for _ in range(3)]
        small, large, backup = self.backends
        self.backup = simulated("backup", backup, self.limits(), timeout_s=5.0)
        self.rungs = (
            simulated("small", small, self.limits(), timeout_s=5.0, hedge_with=self.backup),
            simulated("large", large, self.limits(), timeout_s=5.0),
        )
        self.chain = chain(*self.rungs, budget=Budget(usd="0.05") if seed % 2 else None)
        self.ends: Counter[str] = Counter()

    def limits(self) -> LaneLimits:
        return LaneLimits(
            BreakerLimits(failures=3, window=10, open_s=2.0),
            ConcurrencyLimits(1, 8, 4),
            RateLimits(requests=200, tokens=12_000),
            HedgeLimits(share=0.3),
        )

    def fate(self) -> float | Exception:
        dice = self.rng.random()
        if dice < 0.1:
            return busy(retry_after_s=3.0) if dice < 0.05 else busy()
        if dice < 0.15:
            return BackendTimeout("late")
        if dice < 0.17:
            return RequestRejected("400")
        return self.rng.lognormvariate(-1, 1) if dice < 0.95 else 500.0

    async def user(self, n: int) -> None:
        await asyncio.sleep(self.rng.random() * 60)
        try:
            async with asyncio.timeout(self.rng.choice([0.3, 2.0, 100.0])):
                await (self.read(n) if self.rng.random() < 0.3 else self.ask(n))
            self.ends["served"] += 1
        except (CallFailed, BudgetExceeded, TimeoutError, BackendTimeout) as error:
            self.ends[type(error).__name__] += 1

    async def ask(self, n: int) -> None:
        await self.chain.call("Who?", name=str(n), timeout_s=self.rng.choice([None, 1.0, 20.0]))

    async def read(self, n: int) -> None:
        async with self.chain.stream("Who?", name=str(n)) as stream:
            async for _ in stream:
                if self.rng.random() < 0.3:
                    break


@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_times_out_or_is_cancelled_everything_is_given_back(seed: int) -> None:
    async def story() -> None:
        crowd = Crowd(seed)
        tasks = [asyncio.create_task(crowd.user(n)) for n in range(300)]
        for task in crowd.rng.sample(tasks, 30):
            asyncio.get_running_loop().call_later(crowd.rng.random() * 60, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        defects = [task.exception() for task in tasks if not task.cancelled() and task.exception()]
        assert defects == []
        states = [rung.lane.state() for rung in (*crowd.rungs, crowd.backup)]
        assert sum(state.hedges for state in states) > 3
        assert all(state.failures for state in states[:2])
        assert crowd.ends["served"] > 30
        assert all(backend.running == 0 for backend in crowd.backends)
        assert crowd.chain.meter.limits[1] is None or crowd.chain.spend.nano_usd <= crowd.chain.meter.limits[1]
        await nothing_is_held(crowd.chain)

    run(story())


def test_a_models_table_says_what_its_lane_keeps_to() -> None:
    settings = Settings.model_validate(
        {
            "models": {
                "eu": {**SERVER, "hedge": True, "hedge_with": "us", "hedge_share": 0.02, "requests_per_minute": 60},
                "us": {**SERVER, "concurrency": {"least": 2, "most": 4, "start": 9}},
            },
            "cascades": {"quick": {"rungs": ["eu"], "timeout_s": 3.0}},
        }
    )
    runtime = Runtime(settings)
    cascade = runtime.cascade("quick")
    eu = cascade.rungs[0]
    assert isinstance(eu, ModelRung) and eu.hedge_with is not None
    assert eu.lane.hedges is not None and eu.lane.hedges.limits.share == 0.02
    assert eu.hedge_with.lane is runtime.rung("us").lane, "one lane for each model, whoever asks it"
    assert runtime.rung("us").lane.hedges is None
    assert {name: (lane.limit, lane.health) for name, lane in runtime.lanes.items()} == {
        "eu": (None, "closed"),
        "us": (4, "closed"),
    }
    assert cascade.timeout_s == 3.0


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({**SERVER, "hedge": True, "hedge_with": "other"}, "models.m.hedge_with: 'other' is not another model: none"),
        ({**SERVER, "hedge": True, "hedge_with": "m"}, "models.m.hedge_with: 'm' is not another model: none"),
        ({"backend": "llamacpp", "path": "x.gguf", "hedge": True}, "hedge needs hedge_with here"),
        ({**SERVER, "concurrency": {"least": 9, "most": 3}}, "least, 9, is more than most, 3"),
    ],
)
def test_a_lane_that_cannot_be_is_refused(model: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({"models": {"m": model}})


def test_joules_cannot_be_limited_where_hedges_go_to_unknown_hardware() -> None:
    models = {"known": {**SERVER, "hedge": True, "hedge_with": "unknown", "energy": {}}, "unknown": SERVER}
    runtime = Runtime(Settings.model_validate({"models": models, "cascades": {"default": {"rungs": ["known"]}}}))
    with pytest.raises(UnprofiledModel, match="behind 'unknown'"):
        runtime.chain("it", budget=Budget(joules=10))
