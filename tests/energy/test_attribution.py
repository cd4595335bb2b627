from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.energy import Energy
from agentflow.energy.attribution import Step, StepCosts, Work, attribute, step_weights, token_weights

COSTS = StepCosts(static_w=300.0, j_per_byte=50e-12, j_per_flop=1e-12)
WEIGHTS = st.dictionaries(st.text(max_size=3), st.floats(), max_size=12)
MICROJOULES = st.integers(0, 10**18)


@given(MICROJOULES, WEIGHTS, MICROJOULES)
def test_calls_and_idle_add_up_to_the_meter_exactly(measured: int, weights: dict[str, float], idle: int):
    shared = attribute(measured, weights, idle_uj=idle)
    assert sum(shared.calls.values()) + shared.idle == measured == shared.measured
    assert shared.calls.keys() == weights.keys()
    assert all(share >= 0 for share in shared.calls.values())
    assert shared.idle == (min(idle, measured) if weights else measured)


@given(MICROJOULES, st.dictionaries(st.text(max_size=3), st.floats(0, 1e9, exclude_min=True), min_size=1, max_size=12))
def test_every_share_is_within_a_microjoule_of_its_proportion(measured: int, weights: dict[str, float]):
    shared = attribute(measured, weights)
    whole = math.fsum(weights.values())
    for call, weight in weights.items():
        assert shared.calls[call] == pytest.approx(measured * weight / whole, rel=1e-9, abs=1.0)


@given(MICROJOULES, st.dictionaries(st.text(max_size=3), st.floats(0, 1e9), min_size=2, max_size=12))
def test_who_did_more_never_pays_less(measured: int, weights: dict[str, float]):
    shared = attribute(measured, weights).calls
    if any(weights.values()):
        ordered = sorted(weights, key=weights.__getitem__)
        for less, more in itertools.pairwise(ordered):
            assert shared[less] <= shared[more] or weights[less] == weights[more]


def test_energy_without_a_call_is_idle():
    assert attribute(1_000, {}).idle == 1_000


@pytest.mark.parametrize(("measured", "idle"), [(-1, 0), (1, -1)])
def test_negative_microjoules_are_refused(measured: int, idle: int):
    with pytest.raises(ValueError, match="at least 0"):
        attribute(measured, {"a": 1.0}, idle_uj=idle)


def test_a_step_is_shared_by_hand():
    # static 300 W x 10 ms = 3 J, weights 16e9 bytes x 50 pJ = 0.8 J: 1.9 J each of two calls.
    step = Step(0.010, 16e9, (Work("short", kv_bytes=1e9, flop=1e10), Work("long", kv_bytes=9e9, flop=1e12)))
    weights = step_weights([step], COSTS)
    assert weights["short"] == pytest.approx(1.9 + 0.05 + 0.01)
    assert weights["long"] == pytest.approx(1.9 + 0.45 + 1.0)


def test_the_same_reply_costs_more_alone_than_in_company():
    alone = Step(0.010, 16e9, (Work("a", 1e8, 1e10),))
    four = Step(0.010, 16e9, tuple(Work(name, 1e8, 1e10) for name in "abcd"))
    assert step_weights([alone], COSTS)["a"] > 3.9 * step_weights([four], COSTS)["a"]


def test_a_cancelled_call_keeps_what_it_used():
    both = Step(0.010, 16e9, (Work("kept", 1e8, 1e10), Work("cancelled", 1e8, 1e10)))
    after = Step(0.010, 16e9, (Work("kept", 1e8, 1e10),))
    shared = attribute(9_000_000, step_weights([both, after, after], COSTS), idle_uj=1_000_000)
    assert shared.calls["cancelled"] == pytest.approx(8_000_000 / 6, rel=0.02)
    assert shared.calls["kept"] + shared.calls["cancelled"] == 8_000_000
    assert shared.idle == 1_000_000


def test_steps_without_work_give_no_weight():
    assert step_weights([Step(1.0, 16e9, ())], COSTS) == {}


def test_nonsense_in_a_step_counts_nothing():
    step = Step(math.nan, -5.0, (Work("a", math.inf, -1.0), Work("b", 1e9, 0.0)))
    assert step_weights([step], COSTS) == {"a": 0.0, "b": pytest.approx(0.05)}


def test_without_a_log_of_steps_tokens_times_step_time_share():
    weights = token_weights({"long": (300, 0.02), "short": (100, 0.02), "cancelled in its prompt": (0, 0.02)})
    shared = attribute(4_010_000, weights)
    assert shared.calls == {"long": 3_000_000, "short": 1_000_000, "cancelled in its prompt": 10_000}


def test_a_call_alone_is_measured_and_a_share_is_modelled():
    window = Energy(10.0, 9.5, 10.5, "measured", "board", ("nvml/0",))
    alone = attribute(10_000_000, {"a": 1.0}, idle_uj=4_000_000).energy("a", window)
    assert (alone.mean, alone.low, alone.provenance) == (pytest.approx(6.0), pytest.approx(5.7), "measured")
    shared = attribute(10_000_000, {"a": 1.0, "b": 3.0}).energy("a", window)
    assert (shared.mean, shared.provenance, shared.scope) == (pytest.approx(2.5), "modelled", "board")
    assert "share of 2 calls" in shared.assumed[-1]
    assert attribute(0, {"a": 1.0}).energy("a", window).mean == 0.0
