"""Drift: what was learned is put aside when figures leave their band, the query router when it guesses badly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentflow.cascade.routing.drift import WINDOW, Band, DriftMonitor, Guarded
from agentflow.cascade.routing.fixed import FixedOrder, Pinned
from agentflow.cascade.routing.learned import LearnedEstimator
from agentflow.cascade.routing.router import QueryRouter, RouterWatch, Skipping, question_features
from agentflow.cascade.routing.state import Stop, Try
from tests.cascade.routing.states import PRICES, WORTH, examples, seen, state


def test_an_unchanged_signal_seldom_leaves_its_band_and_a_fallen_one_does() -> None:
    rng = np.random.default_rng(0)
    band = Band.around(rng.beta(8, 2, 500), alpha=0.01)
    outside = sum(not band.low <= float(rng.beta(8, 2, WINDOW).mean()) <= band.high for _ in range(400))
    assert outside <= 20
    assert not band.low <= float(rng.beta(5, 4, WINDOW).mean()) <= band.high


def test_a_drifted_rung_brings_the_fixed_order_back_for_its_task_alone() -> None:
    monitors = LearnedEstimator(examples(), PRICES, WORTH).monitors()
    guarded = Guarded(Pinned("large"), monitors, FixedOrder())
    for _ in range(WINDOW):
        guarded.saw("easy", "small", 0.01)
        guarded.saw("easy", "nobody", 0.01)
    chosen = guarded.choose(state(task="easy"))
    assert isinstance(chosen, Try) and chosen.rung == 0
    assert chosen.reason == "cheapest first (confidence of small has drifted: fixed order)"
    assert guarded.choose(state(task="hard")) == Try(2, "pinned to large")
    for confidence in examples(400, seed=5).confidence[:, 0]:
        guarded.saw("easy", "small", float(confidence) ** 0.75)
    assert len(monitors["easy", "small"]._seen) == WINDOW


def test_less_than_a_window_says_nothing() -> None:
    monitor = DriftMonitor(Band(0.4, 0.6), window=3)
    assert [monitor.saw(v) for v in (0.9, 0.9, 0.9, 0.5, 0.5, 0.5)] == [False, False, True, True, True, False]


@pytest.fixture
def router() -> QueryRouter:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 2))
    passed = (features[:, 0] + 0.3 * rng.normal(size=400) > 0).astype(float)
    return QueryRouter(features, {"small": passed, "medium": np.ones(400)})


def test_a_router_learns_which_questions_a_rung_can_answer(router: QueryRouter) -> None:
    easy, hard = router.chance("small", (1.5, 0.0)), router.chance("small", (-1.5, 0.0))
    assert easy is not None and hard is not None
    assert easy > 0.9 and hard < 0.1
    assert router.chance("large", (0.0, 0.0)) is None
    assert router.chance("small", (0.0,)) is None


def test_nearest_neighbours_agree_with_the_logistic_router(router: QueryRouter) -> None:
    near = QueryRouter(router._known, router._passed, "knn")
    easy, hard = near.chance("small", (1.5, 0.0)), near.chance("small", (-1.5, 0.0))
    assert easy is not None and hard is not None
    assert easy > 0.9 and hard < 0.1


def test_a_router_skips_only_while_its_guesses_are_better_than_the_mean(router: QueryRouter) -> None:
    policy = Skipping(FixedOrder(), router, RouterWatch(window=10))
    hard = replace(state(), features=(-2.0, 0.0))
    assert policy.choose(hard) == Try(0, "cheapest first"), "not trusted yet"
    for guess in (0.9, 0.1) * 5:
        policy.watch.saw(guess, guess > 0.5)
    skipped = policy.choose(hard)
    assert isinstance(skipped, Try) and skipped.rung == 1
    assert policy.choose(replace(state(), features=(2.0, 0.0))) == Try(0, "cheapest first")
    assert policy.choose(replace(hard, seen=(seen(1, 0.9),))) == Stop(0, "good enough")
    for guess in (0.9, 0.1) * 5:
        policy.watch.saw(guess, guess < 0.5)
    assert policy.choose(hard) == Try(0, "cheapest first"), "it has guessed badly since"


def test_features_of_a_question_are_finite() -> None:
    for text in ("", "1+1=?", "What\nis this?", "x" * 10_000):
        assert np.isfinite(question_features(text)).all()
