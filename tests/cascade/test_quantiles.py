from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.cascade.quantiles import RATIO, Quantiles, Trigger


def stream(seed: int, n: int) -> np.ndarray:
    """Latencies with a tail: 3 % take eight times as long."""
    rng = np.random.default_rng(seed)
    return rng.lognormal(0.0, 0.4, n) * np.where(rng.random(n) < 0.03, 8.0, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_with_a_tail_are_exact_to_a_bucket(seed: int) -> None:
    values, it = stream(seed, 20_000), Quantiles()
    for value in values:
        it.add(value)
    for q in (0.5, 0.9, 0.95, 0.99, 0.999):
        got = it.quantile(q)
        assert got is not None
        assert got == pytest.approx(np.quantile(values, q, method="inverted_cdf"), rel=RATIO - 1), q


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60), st.floats(0, 1))
def test_any_quantile_is_in_the_bucket_of_the_ranked_sample(values: list[float], q: float) -> None:
    it = Quantiles()
    for value in values:
        it.add(value)
    got = it.quantile(q)
    ranked = sorted(values)
    place = max(int(np.ceil(q * len(values) - 1e-9)) - 1, 0)
    assert got is not None
    assert min(abs(got / ranked[i] - 1) for i in {place, min(place + 1, len(ranked) - 1)}) <= RATIO - 1


@given(st.lists(st.floats(1e-3, 1e3), min_size=1), st.lists(st.floats(1e-3, 1e3)))
def test_merged_is_the_same_as_counted_together(one: list[float], two: list[float]) -> None:
    first, second, both = Quantiles(), Quantiles(), Quantiles()
    for values, it in ((one, first), (two, second), (one + two, both)):
        for value in values:
            it.add(value)
    first.merge(second)
    assert first.total == both.total
    assert [first.quantile(q) for q in (0, 0.5, 0.95, 1)] == [both.quantile(q) for q in (0, 0.5, 0.95, 1)]


def test_old_samples_fade() -> None:
    it = Quantiles(window=100)
    for _ in range(1_000):
        it.add(0.2)
    for _ in range(300):
        it.add(0.5)
    assert it.quantile(0.5) == pytest.approx(0.5, rel=0.02)
    assert it.total <= 200


def test_nothing_is_known_of_nothing_and_zero_is_next_to_nothing() -> None:
    it = Quantiles()
    assert it.quantile(0.5) is None
    it.add(0.0)
    assert it.quantile(0.5) == pytest.approx(1e-9, rel=0.02)
    it.scale(0.0)
    assert it.quantile(0.5) is None


def test_the_trigger_settles_at_its_quantile_and_follows_a_shift_slowly() -> None:
    rng = np.random.default_rng(0)
    trigger = Trigger(0.95)
    samples = rng.lognormal(np.log(0.1), 0.35, 20_000)
    stood: list[float] = []
    for n, value in enumerate(samples):
        trigger.add(value)
        if n > 5_000:
            assert trigger.value is not None
            stood.append(trigger.value)
    target = float(np.quantile(samples, 0.95))
    assert float(np.mean(stood)) == pytest.approx(target, rel=0.03)
    assert float(np.std(stood)) / target < 0.06
    took, after = 0, random.Random(0)
    while trigger.value is not None and trigger.value < 0.95 * target * 400 / 180:
        trigger.add(after.lognormvariate(math.log(0.1 * 400 / 180), 0.35))
        took += 1
    # A burst of a few calls does not move it far; hundreds do.
    assert 60 < took < 500


def test_the_trigger_says_nothing_until_it_has_seen_enough() -> None:
    trigger = Trigger(0.9, least=20)
    for n in range(19):
        trigger.add(float(n + 1))
        assert trigger.value is None
    trigger.add(20.0)
    assert trigger.value == 18.0
