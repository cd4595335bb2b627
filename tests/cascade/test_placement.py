from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budget.budget import Budget
from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import Price
from agentflow.cascade.cascade import Cascade
from agentflow.cascade.placement import (
    CheapestHour,
    Placement,
    ShadowPrices,
    SiteFacts,
    WallClock,
    admitted,
    deadline,
    residency,
)
from agentflow.cascade.rung import ModelRung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.services import Services
from agentflow.chain import Chain
from agentflow.config import Settings
from agentflow.energy.grid import HourlyTable
from agentflow.errors import CallFailed, NotServed, UsageError
from agentflow.flow import Flow
from agentflow.messages import Message, Request
from tests.cascade.test_cascade import _backends_are_closed, code, rung
from tests.servers.openai_server import ScriptedServer

__all__ = ["_backends_are_closed"]
NOON = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
ASK = Request((Message("user", "Hi"),))


class Hands:
    """A clock whose hands a test moves."""

    def __init__(self) -> None:
        self.at = NOON
        self.waits: list[datetime] = []
        self.moved = asyncio.Event()

    def now(self) -> datetime:
        return self.at

    async def sleep_until(self, at: datetime) -> None:
        self.waits.append(at)
        while self.at < at:
            self.moved.clear()
            await self.moved.wait()

    def move(self, at: datetime) -> None:
        self.at = at
        self.moved.set()


def hours(figures: dict[int, float], zone: str = "FRA") -> HourlyTable:
    midnight = NOON.replace(hour=0, minute=0)
    return HourlyTable(
        {zone: {midnight + timedelta(hours=h): g for h, g in figures.items()}}, "g/kWh", "direct", "test"
    )


def sited(server: ScriptedServer, **sites: dict[str, Any]) -> ModelRung:
    base = rung(server, "large")
    made = tuple(replace(base, site=name.replace("_", "-"), **facts) for name, facts in sites.items())
    return replace(base, sites=made)


def chain(placement: Placement, *rungs: Any, rules: Any = None, budget: Budget | None = None) -> Chain:
    return Chain(
        Meter("chain", budget), Cascade("test", rungs), MemoryLedger(), services=Services(placement=placement),
        residency=residency(rules),
    )  # fmt: skip


CHEAP = Price.per_million("1", "1", source="test")
DEAR = Price.per_million("9", "9", source="test")
EU, US = frozenset({"eu"}), frozenset({"us"})


async def test_the_cheapest_region_serves_unless_residency_forbids_it(scripted_server: ScriptedServer) -> None:
    large = sited(scripted_server, us_east={"price": CHEAP, "residency": US}, eu_1={"price": DEAR, "residency": EU})
    anywhere = await chain(Placement(), large).call("Hi")
    at_home = await chain(Placement(), large, rules={"eu"}).call("Hi")
    assert (anywhere.rung, anywhere.attempts[0].site) == ("large", "us-east")
    assert (at_home.rung, at_home.attempts[0].site) == ("large", "eu-1")
    assert at_home.spend.nano_usd == 9 * anywhere.spend.nano_usd


async def test_where_no_region_is_admitted_nothing_is_sent(scripted_server: ScriptedServer) -> None:
    large = sited(scripted_server, us_east={"residency": US}, asia={})
    it = chain(Placement(), rung(scripted_server, "small"), large, rules={"eu", "ch"})
    with pytest.raises(NotServed) as refused:
        await it.call("Hi")
    assert "residency in ch or eu admits none of its regions: us-east (us), asia (no tag)" in str(refused.value)
    assert "small: residency in ch or eu admits none of its regions: its server (no tag)" in str(refused.value)
    assert scripted_server.requests() == []


async def test_a_second_attempt_beside_a_late_one_keeps_to_the_rule(scripted_server: ScriptedServer) -> None:
    abroad, at_home = (replace(rung(scripted_server, name), residency=tags) for name, tags in (("a", US), ("h", EU)))
    for other, hedged in ((abroad, None), (at_home, "h")):
        cascade = Cascade("test", (replace(rung(scripted_server, "small"), residency=EU, hedge_with=other),))
        scope = CallScope(Meter("c"), MemoryLedger(), "k", lambda _: None, residency=residency({"eu"}))
        (able,), _ = cascade._able(ASK, scope)
        assert isinstance(able, ModelRung)
        assert (able.hedge_with and able.hedge_with.name) == hedged


async def test_code_is_admitted_everywhere(scripted_server: ScriptedServer) -> None:
    it = chain(Placement(), code("yes", 0.9), rung(scripted_server, "small"), rules={"eu"})
    assert (await it.call("Hi")).output == "yes"


async def test_grams_and_seconds_decide_when_they_are_priced(scripted_server: ScriptedServer) -> None:
    large = sited(
        scripted_server, poland={"region": "POL", "latency_s": 0.1}, france={"region": "FRA", "latency_s": 2.0}
    )
    for policy, site in (
        (ShadowPrices(usd_per_kg_co2e=1.0), "france"),
        (ShadowPrices(usd_per_kg_co2e=0.0), "poland"),
        (ShadowPrices(usd_per_kg_co2e=1.0, usd_per_hour=1e6), "poland"),
    ):
        placed, _ = Placement(policy).place(large, ASK, ())
        assert placed.site == site
    placed, _ = Placement(ShadowPrices(1.0), carbon=hours({12: 1.0}, "POL"), clock=Hands()).place(large, ASK, ())
    assert placed.site == "poland", "in this hour it is the greener one"


@given(st.lists(st.frozensets(st.sampled_from("abc")), min_size=1, max_size=4),
       st.lists(st.frozensets(st.sampled_from("abc")), max_size=3))  # fmt: skip
def test_a_region_is_admitted_only_by_every_rule(tags: list[frozenset[str]], rules: list[frozenset[str]]) -> None:
    from agentflow.backends.openai_http import OpenAIBackend
    from agentflow.energy.profiles import RemotePrior
    from agentflow.tokens import TokenCounter

    counter = TokenCounter("none")
    backend = OpenAIBackend("http://127.0.0.1:9/v1", counter.usage)
    base = ModelRung("m", backend, "m", CHEAP, RemotePrior(), counter)
    base = replace(base, sites=tuple(replace(base, site=str(n), residency=tag) for n, tag in enumerate(tags)))
    chosen = {site.site for site in admitted(base, residency(*rules))}
    assert chosen == {str(n) for n, tag in enumerate(tags) if all(tag & rule for rule in rules if rule)}


async def test_a_call_that_may_wait_is_sent_in_the_greenest_hour(scripted_server: ScriptedServer) -> None:
    clock = Hands()
    placement = Placement(carbon=hours({12: 300, 13: 200, 14: 50, 15: 100, 20: 1}), clock=clock)
    it = chain(placement, replace(rung(scripted_server, "small"), region="FRA"))
    async with asyncio.TaskGroup() as group:
        calling = group.create_task(it.call("Hi", deferrable_until=NOON + timedelta(hours=4)))
        while not clock.waits:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert scripted_server.requests() == []
        assert it.meter.statistics().open_holds == 0
        clock.move(NOON.replace(hour=14, minute=0))
    assert clock.waits == [NOON.replace(hour=14, minute=0)]
    assert calling.result().waited_s == 5_400


async def test_a_repeated_run_does_not_wait_again_for_what_it_was_given(scripted_server: ScriptedServer) -> None:
    ledger, small = MemoryLedger(), replace(rung(scripted_server, "small"), region="FRA")

    def job(figures: dict[int, float]) -> tuple[Chain, Hands]:
        clock = Hands()
        services = Services(placement=Placement(carbon=hours(figures), clock=clock))
        return Chain(Meter("job"), Cascade("test", (small,)), ledger, services=services), clock

    first, _ = job({12: 50, 14: 300})
    reply = await first.call("Hi", deferrable_until=4 * 3600)
    repeated, clock = job({12: 300, 14: 50})
    again = await repeated.call("Hi", deferrable_until=4 * 3600)
    assert (again.text, again.waited_s, clock.waits) == (reply.text, 0.0, [])
    assert len(scripted_server.requests()) == 1


async def test_a_cancelled_wait_holds_nothing(scripted_server: ScriptedServer) -> None:
    clock = Hands()
    placement = Placement(carbon=hours({12: 300, 14: 50}), clock=clock)
    it = chain(placement, replace(rung(scripted_server, "small"), region="FRA"), budget=Budget(calls=1))
    calling = asyncio.create_task(it.call("Hi", deferrable_until=4 * 3600))
    while not clock.waits:  # noqa: ASYNC110
        await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert (await it.call("now")).text
    assert len(scripted_server.requests()) == 1


async def test_a_chain_that_is_closed_meanwhile_sends_nothing(scripted_server: ScriptedServer) -> None:
    clock = Hands()
    placement = Placement(carbon=hours({12: 300, 14: 50}), clock=clock)
    it = chain(placement, replace(rung(scripted_server, "small"), region="FRA"))
    async with asyncio.TaskGroup() as group:
        calling = group.create_task(_refused(it))
        while not clock.waits:  # noqa: ASYNC110
            await asyncio.sleep(0)
        it.close()
        clock.move(NOON + timedelta(hours=2))
    assert "is closed" in calling.result()
    assert scripted_server.requests() == []


async def _refused(it: Chain) -> str:
    with pytest.raises(UsageError) as refused:
        await it.call("Hi", deferrable_until=4 * 3600)
    return str(refused.value)


@pytest.mark.parametrize(
    ("figures", "until", "budget"),
    [
        ({12: 100, 13: 99}, 3600 * 4, None),  # not worth it
        ({12: 100, 18: 1}, 3600 * 4, None),  # too late
        ({12: 100, 13: 1}, 1_810, None),  # could not end in time
        ({13: 1}, 3600 * 4, None),  # nobody knows the present hour
        ({12: 100, 13: 1}, 3600 * 4, Budget(seconds=600)),  # the budget's own time ends before
    ],
)
async def test_it_does_not_wait_where_that_does_not_help(
    scripted_server: ScriptedServer, figures: dict[int, float], until: float, budget: Budget | None
) -> None:
    clock = Hands()
    placement = Placement(carbon=hours(figures), clock=clock)
    it = chain(placement, replace(rung(scripted_server, "small"), region="FRA"), budget=budget)
    reply = await it.call("Hi", deferrable_until=until)
    assert (clock.waits, reply.waited_s) == ([], 0.0)


async def test_a_call_that_may_wait_is_over_by_its_deadline_or_is_not_sent(scripted_server: ScriptedServer) -> None:
    scripted_server.script({"small": [{"gate": "never"}]})
    it = chain(Placement(carbon=hours({12: 100}), clock=Hands()), replace(rung(scripted_server, "small"), region="FRA"))
    with pytest.raises(CallFailed, match=r"no whole reply within 0\.4"):
        await it.call("Hi", deferrable_until=0.4)
    with pytest.raises(CallFailed, match="0 s are left"):
        await it.call("Hi", deferrable_until=-5)
    assert len(scripted_server.requests()) == 1


def test_a_deadline_in_a_thousand_years_is_not_looked_through_hour_by_hour() -> None:
    asked: list[datetime] = []
    assert CheapestHour().when(NOON, NOON + timedelta(days=365_000), lambda at: asked.append(at) or 1.0) == NOON
    assert len(asked) < 1_000


@given(st.dictionaries(st.integers(0, 40), st.floats(0.1, 1000)), st.integers(0, 30))
def test_the_hour_that_is_chosen_is_in_time_and_none_in_time_is_cheaper(prices: dict[int, float], span: int) -> None:
    latest = NOON + timedelta(hours=span)

    def price(at: datetime) -> float | None:
        return prices.get(int((at - NOON.replace(minute=0)).total_seconds() // 3600))

    at = CheapestHour(saving=0.0).when(NOON, latest, price)
    assert NOON <= at <= latest
    known = [price(NOON)] + [price(NOON.replace(minute=0) + timedelta(hours=h)) for h in range(1, span + 1)]
    if known[0] is not None:
        assert price(at) == min(p for p in known if p is not None)
    else:
        assert at == NOON


async def test_the_real_clock_waits_and_can_be_cancelled() -> None:
    clock = WallClock()
    await clock.sleep_until(clock.now() + timedelta(milliseconds=5))
    waiting = asyncio.create_task(clock.sleep_until(clock.now() + timedelta(hours=1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_deadlines_and_rules_that_cannot_be_meant_are_refused() -> None:
    assert deadline(60, NOON) == deadline(timedelta(minutes=1), NOON) == NOON + timedelta(minutes=1)
    with pytest.raises(UsageError, match="has no zone"):
        deadline(datetime(2026, 1, 1), NOON)
    for wait in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match="cannot wait"):
            deadline(wait, NOON)
    with pytest.raises(UsageError, match="set of tags"):
        residency("eu")
    assert residency(None, (), {"eu"}) == (EU,)
    assert ShadowPrices(0.1, 36).price(SiteFacts("eu", 0.002, 1.0, 0.5)) == pytest.approx(0.0071)


async def test_regions_and_rules_come_from_the_configuration(scripted_server: ScriptedServer, here: Path) -> None:
    (here / "hours.csv").write_text("hour,region,value\n2026-01-01T00:00Z,FRA,50\n")
    regions = {
        "us": {"base_url": "http://127.0.0.1:9/v1", "residency": ["us"], "region": "USA"},
        "eu": {
            "base_url": scripted_server.url, "model": "large-eu", "residency": ["eu"], "region": "FRA",
            "price": {"input": 5, "output": 5}, "latency_s": 0.5,
        },
    }  # fmt: skip
    model = {"backend": "openai", "price": {"input": 1, "output": 1}, "regions": regions}
    settings = Settings.model_validate(
        {
            "models": {"large": model},
            "tenants": {"acme": {"residency": ["eu"]}},
            "placement": {"carbon": "hours.csv"},
        }
    )
    async with Flow(settings) as flow:
        sites = flow.runtime.rung("large").sites
        assert [(s.site, s.model, s.region) for s in sites] == [("us", "large", "USA"), ("eu", "large-eu", "FRA")]
        async with flow.chain("x", residency={"eu"}) as it:
            assert (await it.call("Hi")).attempts[0].site == "eu"
        async with await flow.tenant_chain("acme", "y") as it:
            assert (await it.call("Hi")).attempts[0].site == "eu"
        async with await flow.tenant_chain("acme", "z", residency={"us"}) as it:
            with pytest.raises(NotServed, match=r"residency in (us and eu|eu and us)"):
                await it.call("Hi")
        job = await flow.runtime.job("job-1", residency={"us"})
        assert flow.runtime.chain("task", parent=job)._residency == (US,)
    asked = {request["body"]["model"] for request in scripted_server.requests()}
    assert asked == {"large-eu"}
