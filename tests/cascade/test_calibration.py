"""Calibration: a signal becomes a chance only once there are labels, and the map can be read, kept and merged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.cascade.calibration import (
    ISOTONIC_FROM,
    LEAST,
    Calibration,
    expected_calibration_error,
    fitted,
    isotonic,
)
from agentflow.cascade.outcomes import Labelled
from agentflow.errors import UsageError


def labels(n: int, *, seed: int = 0, rung: str = "small") -> list[Labelled]:
    """A rung that is far too sure of itself: it says s, and is right with chance s squared."""
    rng = np.random.default_rng(seed)
    signals = rng.uniform(0.3, 1.0, n)
    good = rng.uniform(size=n) < signals**2
    return [Labelled(rung, "ask", float(s), bool(g)) for s, g in zip(signals, good, strict=True)]


def test_until_there_are_labels_it_says_nothing() -> None:
    assert Calibration().probability("small", "ask", 0.9) is None
    assert Calibration.learn(labels(LEAST - 1)).probability("small", "ask", 0.9) is None
    learned = Calibration.learn(labels(LEAST))
    assert learned.probability("small", "ask", 0.9) is not None
    assert learned.probability("large", "ask", 0.9) is None
    assert learned.probability("small", "other", 0.9) is None


def test_labels_that_are_all_the_same_teach_nothing() -> None:
    assert Calibration.learn([Labelled("small", "ask", 0.5, True)] * 100).maps == ()


@pytest.mark.parametrize(("n", "kind"), [(LEAST, "platt"), (ISOTONIC_FROM - 1, "platt"), (ISOTONIC_FROM, "isotonic")])
def test_few_labels_are_fitted_with_platt_and_many_with_isotonic(n: int, kind: str) -> None:
    (of,) = Calibration.learn(labels(n)).maps
    assert (of.kind, of.n, of.rung, of.task) == (kind, n, "small", "ask")


@pytest.mark.parametrize("n", [200, 2_000])
def test_an_overconfident_rung_is_brought_down(n: int) -> None:
    learned = Calibration.learn(labels(n))
    (of,) = learned.maps
    assert of.ece_after < of.ece_before / 2
    for signal in (0.5, 0.7, 0.9):
        assert learned.probability("small", "ask", signal) == pytest.approx(signal**2, abs=0.1)


def test_a_signal_that_falls_as_replies_get_better_is_worth_no_more_than_the_mean() -> None:
    backwards = [Labelled("small", "ask", 1 - label.signal, label.good) for label in labels(200)]
    learned = Calibration.learn(backwards)
    mean = np.mean([label.good for label in backwards])
    assert learned.probability("small", "ask", 0.1) == learned.probability("small", "ask", 0.6) == pytest.approx(mean)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 2**32 - 1),
)
def test_isotonic_chances_never_fall_and_never_leave_0_to_1(pairs: list[tuple[float, bool]], seed: int) -> None:
    # Every drawn label many times over, so that there are enough for isotonic regression.
    times = ISOTONIC_FROM // len(pairs) + 1
    of = fitted(np.array([s for s, _ in pairs] * times), np.array([g for _, g in pairs] * times, float))
    asked = np.sort(np.random.default_rng(seed).uniform(size=20)).tolist()
    chances = [of.probability(signal) for signal in asked]
    assert of.kind == "isotonic"
    assert chances == sorted(chances)
    assert 0 <= chances[0] <= chances[-1] <= 1


def test_isotonic_pools_adjacent_violators() -> None:
    # The violating pair 1, 0 is pooled to their mean; by hand.
    assert isotonic(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 1.0, 0.0, 1.0])) == [
        (0.1, 0.0), (0.2, 0.5), (0.3, 0.5), (0.4, 1.0),
    ]  # fmt: skip


def test_isotonic_is_what_scikit_learn_finds() -> None:
    sklearn = pytest.importorskip("sklearn.isotonic")
    found = labels(500)
    signals, good = np.array([of.signal for of in found]), np.array([of.good for of in found], float)
    theirs = sklearn.IsotonicRegression(out_of_bounds="clip").fit(signals, good).predict(signals)
    of = fitted(signals, good)
    assert [of.probability(s) for s in signals.tolist()] == pytest.approx(theirs.tolist())


def test_the_error_is_the_mean_distance_over_bins() -> None:
    # Two bins of two: stated .1 and .9, true .5 and .5.
    stated, good = np.array([0.1, 0.1, 0.9, 0.9]), np.array([1.0, 0.0, 1.0, 0.0])
    assert expected_calibration_error(stated, good) == pytest.approx(0.4)


def test_what_is_kept_is_read_again_the_same(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "calibration.json"
    learned = Calibration.learn([*labels(60), *labels(500, rung="large")])
    learned.save(path)
    assert Calibration.load(path).maps == learned.maps
    assert Calibration.load(tmp_path / "nothing.json").maps == ()


def test_newer_maps_take_the_place_of_older_ones_and_leave_the_rest(tmp_path: Path) -> None:
    old = Calibration.learn([*labels(60), *labels(60, rung="large")])
    merged = old.merged(Calibration.learn(labels(500)))
    assert {(of.rung, of.n) for of in merged.maps} == {("small", 500), ("large", 60)}


@pytest.mark.parametrize("text", ["", "{}x", '{"version": 2, "maps": []}', '{"maps": [{"rung": "a"}]}', "\udcff"])
def test_a_file_that_is_no_calibration_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=r"calibration\.json"):
        Calibration.load(path)
