"""What each policy chooses, step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.cascade.policy import Policy
from agentflow.cascade.routing.fixed import FixedOrder, Pinned
from agentflow.cascade.routing.latency import LatencyFirst
from agentflow.cascade.routing.state import Abstain, Expected, Probe, Routing, Seen, State, Stop, Try, Worth
from agentflow.cascade.routing.utility import ExpectedUtility, switch_cost
from tests.cascade.routing.states import seen, state, unlearned


@dataclass(frozen=True)
class Table:
    """An estimator by rote: the chance of the best reply, and what each further rung brings it to."""

    now: float
    brings: tuple[float, float, float] = (0.5, 0.7, 0.9)
    probe: float = 0.0

    @property
    def reads_questions(self) -> bool:
        return False

    def served(self, state: State) -> tuple[int | None, float] | None:
        return (0, self.now) if state.seen else (None, 0.0)

    def after(self, state: State, step: Try | Probe) -> float:
        return self.brings[step.rung] if isinstance(step, Try) else self.probe


def test_fixed_order_climbs_until_a_reply_is_confident_enough() -> None:
    policy = FixedOrder(accept=0.7)
    assert policy.choose(state()) == Try(0, "cheapest first")
    assert policy.choose(state(seen(0, 0.6))) == Try(1, "confidence 0.60 is below 0.70")
    assert policy.choose(state(seen(0, 0.8))) == Stop(0, "good enough")
    assert policy.choose(state(seen(0, None))) == Stop(0, "good enough")
    assert policy.choose(state(seen(0, 0.6), seen(1, valid=False))) == Try(2, "the last reply is not valid")


def test_the_last_valid_reply_is_served_whatever_its_confidence() -> None:
    assert isinstance(FixedOrder().choose(state(seen(0, 0.6), seen(1, 0.5), seen(2, 0.1))), Stop)


def test_with_nothing_valid_and_nothing_left_it_abstains() -> None:
    tried = [seen(place, valid=False) for place in range(3)]
    assert isinstance(FixedOrder().choose(state(*tried)), Abstain)
    kept = FixedOrder().choose(state(seen(0, 0.2), seen(1, valid=False), seen(2, valid=False)))
    assert isinstance(kept, Stop) and kept.seen == 0


def test_a_scarce_budget_takes_cheaper_replies() -> None:
    assert isinstance(FixedOrder(0.7).choose(state(seen(0, 0.5))), Try)
    assert isinstance(FixedOrder(0.7).choose(state(seen(0, 0.5), dearness=0.5)), Stop)


def test_a_sick_rung_is_passed_over_unless_no_other_is_left() -> None:
    well = state()
    sick = replace(well, rungs=(replace(well.rungs[0], healthy=False), *well.rungs[1:]))
    assert sick.untried() == (1, 2)
    assert state(healthy=False).untried() == (0, 1, 2)


def test_a_rung_that_cannot_end_in_time_is_not_started() -> None:
    assert replace(state(), seconds_left=0.06).untried() == (0, 1)


def test_pinned_asks_one_rung_and_serves_it() -> None:
    assert Pinned("large").choose(state()) == Try(2, "pinned to large")
    assert Pinned("large").choose(state(seen(2, 0.1))) == Stop(0, "pinned to large")
    assert isinstance(Pinned("gone").choose(state()), Abstain)


def test_latency_first_starts_the_quickest_side_by_side() -> None:
    first = state()
    slow = replace(first, rungs=(replace(first.rungs[0], p95_s=9.0), *first.rungs[1:]))
    chosen = LatencyFirst(abreast=2).choose(slow)
    assert isinstance(chosen, Try)
    assert (chosen.rung, chosen.beside) == (1, (2,))
    assert LatencyFirst().choose(state(seen(0, 0.3), seen(1, 0.9))) == Stop(1, "good enough")


def test_latency_first_leaves_out_rungs_known_to_be_too_weak() -> None:
    assert LatencyFirst(abreast=1, least=0.5).choose(state(quality=0.2)) == Abstain(
        "no valid reply, and no rung is left to try"
    )


def test_utility_asks_what_gains_most_above_its_price() -> None:
    # A good reply is worth $0.002: +.2 is $0.0004 for $0.00005, +.4 is $0.0008 for $0.0003.
    chosen = ExpectedUtility(Table(0.5)).choose(state(seen(0, 0.5)))
    assert isinstance(chosen, Try)
    assert (chosen.rung, chosen.reason) == (2, "+40.0 % good for $0.0003")


@pytest.mark.parametrize(("worth", "rung"), [(2e-3, 2), (5e-4, 1), (1e-4, None)])
def test_what_is_worth_less_is_answered_more_cheaply(worth: float, rung: int | None) -> None:
    chosen = ExpectedUtility(Table(0.5)).choose(state(seen(0, 0.5), worth=Worth(good=worth)))
    assert (chosen.rung if isinstance(chosen, Try) else None) == rung


def test_joules_and_seconds_have_prices_too() -> None:
    joules = ExpectedUtility(Table(0.5)).choose(state(seen(0, 0.5), worth=Worth(good=2e-3, joule=2e-6)))
    seconds = ExpectedUtility(Table(0.5)).choose(state(seen(0, 0.5), worth=Worth(good=2e-3, second=2e-3)))
    assert isinstance(joules, Try) and joules.rung == 1
    assert isinstance(seconds, Try) and seconds.rung == 1


def test_a_signal_is_bought_only_when_it_is_worth_its_price() -> None:
    asked = state(seen(0, None), signal=Expected(usd=1e-5))
    assert isinstance(ExpectedUtility(Table(0.5, (0, 0, 0), probe=0.52)).choose(asked), Probe)
    assert isinstance(ExpectedUtility(Table(0.5, (0, 0, 0), probe=0.504)).choose(asked), Stop)


def test_leaving_a_warm_prompt_cache_is_priced() -> None:
    warm = state(seen(0, 0.5), return_cost=Expected(usd=1e-3))
    assert isinstance(ExpectedUtility(Table(0.5)).choose(warm), Stop)


def test_coming_back_to_a_cold_prefix_of_45_000_tokens_costs_ten_calls() -> None:
    # $3.00 a million tokens, $0.30 from the cache: $0.1215 more than staying, by hand; spread over ten calls.
    lost = switch_cost(Expected(usd=45_000 * 0.30e-6), Expected(usd=45_000 * 3.00e-6), calls=10)
    assert lost.usd == pytest.approx(0.01215)


def test_below_the_floor_it_abstains_and_says_so() -> None:
    chosen = ExpectedUtility(Table(0.2, (0, 0, 0)), floor=0.3).choose(state(seen(0, 0.2)))
    assert chosen == Abstain("a good reply is too unlikely: 20 %, below 30 %")


def test_with_nothing_learned_the_fixed_order_decides() -> None:
    policy = ExpectedUtility(None, fallback=FixedOrder(0.9))
    assert policy.choose(state(seen(0, 0.8))) == unlearned(FixedOrder(0.9).choose(state(seen(0, 0.8))))


attempts = st.lists(
    st.tuples(st.integers(0, 2), st.none() | st.floats(0, 1), st.booleans()), max_size=3, unique_by=lambda a: a[0]
)


@given(
    attempts,
    st.sampled_from(
        [FixedOrder(), Pinned("medium"), LatencyFirst(), ExpectedUtility(), ExpectedUtility(Table(0.4)), Policy()]
    ),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_every_policy_ends_and_asks_only_what_may_be_tried(
    tried: list[tuple[int, float | None, bool]], policy: Routing, open: list[bool]
) -> None:
    shown = state(*(seen(rung, confidence, valid=valid) for rung, confidence, valid in tried))
    shown = replace(shown, rungs=tuple(replace(r, open=o) for r, o in zip(shown.rungs, open, strict=True)))
    for _ in range(4):
        chosen = policy.choose(shown)
        if not isinstance(chosen, Try):
            assert isinstance(chosen, Abstain) or 0 <= chosen.seen < len(shown.seen)
            return
        assert {chosen.rung, *chosen.beside} <= set(shown.untried())
        more: tuple[Seen, ...] = tuple(seen(rung, 0.1) for rung in (chosen.rung, *chosen.beside))
        shown = replace(shown, seen=shown.seen + more)
    pytest.fail("it never ends")
