"""What a chain's models have read lately makes staying cheaper than it looks, and leaving dearer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentflow.backends.openai_http import OpenAIBackend
from agentflow.budget.ledger import MemoryLedger
from agentflow.budget.meter import Meter
from agentflow.budget.prices import Price
from agentflow.cascade.outlook import outlook, with_return_costs
from agentflow.cascade.routing.state import Expected
from agentflow.cascade.rung import ModelRung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.warmth import KEPT_S, Warmth
from agentflow.energy.profiles import RemotePrior
from agentflow.messages import Message, Request, TokenUsage
from agentflow.tokens import TokenCounter

SYSTEM = Message("system", "You answer questions about ships. " * 200)
FIRST = Request((SYSTEM, Message("user", "Which is the fastest?")))
SECOND = Request((*FIRST.messages, Message("assistant", "The first."), Message("user", "And the slowest?")))
COUNTER = TokenCounter.for_model("gpt-4o")


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def rung(name: str, cache_read: str | None, input: str = "3") -> ModelRung:
    price = Price.per_million(input, "15", cache_read, source="test")
    return ModelRung(name, OpenAIBackend("http://127.0.0.1:1/v1", COUNTER.usage), name, price, RemotePrior(), COUNTER)


def scope(warmth: Warmth) -> CallScope:
    return CallScope(Meter("chain"), MemoryLedger(), "key", lambda _: None, warmth=warmth)


def test_nothing_was_read_so_nothing_is_warm() -> None:
    assert Warmth().cached(rung("a", "0.3"), FIRST) == 0


def test_a_prompt_that_goes_on_from_the_last_one_is_warm_so_far() -> None:
    warmth, it = Warmth(Clock()), rung("a", "0.3")
    warmth.saw(it, FIRST, TokenUsage(COUNTER.prompt(FIRST), 5))
    assert warmth.cached(it, SECOND) == COUNTER.prompt(FIRST)
    assert warmth.cached(rung("b", "0.3"), SECOND) == 0
    assert warmth.cached(it, Request((Message("system", "Other."), *SECOND.messages[1:]))) == 0


def test_it_cools_down() -> None:
    clock = Clock()
    warmth, it = Warmth(clock), rung("a", "0.3")
    warmth.saw(it, FIRST, TokenUsage(1_000, 5))
    assert warmth.cools_in(it) == KEPT_S
    clock.now += KEPT_S + 1
    assert warmth.cached(it, SECOND) == 0
    assert warmth.cools_in(it) is None


def test_a_server_that_never_reports_cached_tokens_is_soon_expected_to_keep_none() -> None:
    warmth, it = Warmth(Clock()), rung("a", "0.3")
    for _ in range(12):
        warmth.saw(it, SECOND, TokenUsage(COUNTER.prompt(SECOND), 5, cached_input=0))
    assert warmth.cached(it, SECOND) <= 1


def test_a_server_without_a_price_for_it_is_believed_once_it_reports_them() -> None:
    warmth, it = Warmth(Clock()), rung("a", None)
    warmth.saw(it, FIRST, TokenUsage(COUNTER.prompt(FIRST), 5))
    assert warmth.cached(it, SECOND) == 0
    warmth.saw(it, SECOND, TokenUsage(COUNTER.prompt(SECOND), 5, cached_input=COUNTER.prompt(FIRST)))
    assert warmth.cached(it, SECOND) > 0


def test_a_policy_sees_the_warm_prefix_in_the_price() -> None:
    warmth, it = Warmth(Clock()), rung("a", "0.3")
    cold = outlook(it, SECOND, scope(warmth), open=True, priced=True)
    warmth.saw(it, FIRST, TokenUsage(1_000, 5))
    warm = outlook(it, SECOND, scope(warmth), open=True, priced=True)
    prefix = COUNTER.prompt(FIRST)
    assert warm.cached_tokens == prefix
    assert cold.cost.usd - warm.cost.usd == pytest.approx(prefix * 2.7e-6, rel=1e-6)
    assert warm.cost.joules <= cold.cost.joules


def test_coming_back_cold_is_part_of_the_price_of_leaving_for_long() -> None:
    warmth, strong, slow = Warmth(Clock()), rung("strong", "0.3"), rung("slow", None, input="0.25")
    warmth.saw(strong, FIRST, TokenUsage(1_000, 5))
    facts = [outlook(it, SECOND, scope(warmth), open=True, priced=True) for it in (slow, strong)]
    quick = with_return_costs(facts, (slow, strong), SECOND, scope(warmth))
    assert quick[0].return_cost == Expected()
    long = [replace(facts[0], cost=replace(facts[0].cost, seconds=KEPT_S * 2)), facts[1]]
    late = with_return_costs(long, (slow, strong), SECOND, scope(warmth))
    assert late[0].return_cost.usd == pytest.approx(COUNTER.prompt(FIRST) * 2.7e-6, rel=1e-6)
    assert late[1].return_cost == Expected()
