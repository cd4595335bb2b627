"""The benchmark's own arithmetic, by hand; and the whole of it on synthetic outcomes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.routing_scores import Ends, Point, gap, hull, scores

ENDS = Ends(Point(1.0, 0.5, 10.0, 20.0), Point(100.0, 0.9, 50.0, 90.0))


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 1)), min_size=1, max_size=30))
def test_a_hull_rises_bends_down_and_lies_above_every_point(points: list[tuple[float, float]]) -> None:
    cost, score = hull(points)
    assert (np.diff(cost) > 0).all() and (np.diff(score) > 0).all()
    for c, s in points:
        assert np.interp(c, cost, score) >= s - 1e-9 or c < cost[0]


def test_areas_between_two_single_models_by_hand() -> None:
    found = scores([], ENDS)
    # A straight line from .5 to .9: .7 in the mean; over ln c, .5 + .4 times the mean of (c - 1) / 99 there.
    assert found.nauc == pytest.approx(0.7)
    assert found.nauclog == pytest.approx(0.5 + 0.4 * (99 - np.log(100)) / (99 * np.log(100)), abs=1e-4)
    assert found.c100 == 1.0
    # 98 % of .9 is .882: 95.5 % of the way from .5, and of the cost from 1.
    assert found.c98 == pytest.approx((1 + 99 * (0.882 - 0.5) / 0.4) / 100)
    assert np.isnan(found.latency), "no point of the policy reaches it"


def test_a_point_above_the_line_is_worth_its_area_and_its_latency() -> None:
    found = scores([Point(10.0, 0.9, 25.0, 60.0)], ENDS)
    assert (found.c100, found.latency) == (pytest.approx(0.1), 0.5)
    assert found.p95 == pytest.approx(60 / 90)
    assert gap(0.6, 0.5, 0.9) == pytest.approx(25.0)


def synthetic(path: Path, n: int = 240) -> Path:
    """Three models of two benchmarks, one whose signal is a call of its own."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("sklearn")
    parquet = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    rows: dict[str, list[object]] = {name: [] for name in (
        "dataset", "split", "query_id", "query", "model", "score", "cost_usd", "in_tokens", "out_tokens", "latency_ms",
        "confidence", "answer",
    )}  # fmt: skip
    for number in range(n):
        ease, words = rng.normal(), int(rng.integers(20, 200))
        benchmark = ("choice", "open")[number % 2]
        options = "\nA: one\nB: two" if benchmark == "choice" else ""
        for model, skill, price in (
            ("llama3.2-3b", 0.0, 0.1e-6),
            ("llama3.1-70b", 1.0, 0.9e-6),
            ("gpt-4o", 1.6, 2.5e-6),
        ):
            strength = ease + skill + rng.normal() * 0.7
            output = 1 if benchmark == "choice" else 5
            answer = words * price + output * (10e-6 if model == "gpt-4o" else price)
            check = 0.0 if benchmark == "choice" else 2 * words * price
            values = (
                benchmark, "test", f"{benchmark}-{number:04}", "word " * words + options, model, float(strength > 0),
                answer + check, words, output, 100 * (1 + skill), -np.log1p(np.exp(-2 * strength)),
                "A" if strength > 0 else "B",
            )  # fmt: skip
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    parquet.write_table(pyarrow.table(rows), path)
    return path


def test_the_whole_benchmark_on_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = synthetic(tmp_path / "outcomes.parquet")
    from benchmarks.cascade import main

    monkeypatch.setattr(sys, "argv", ["cascade", "--quick", "--no-live", "--json", "--data", str(data)])
    main()
    found = json.loads(capsys.readouterr().out)
    assert set(found["policies"]) == set(found["leave_one_out"]) == {"recorded", "as_paid"}
    for rows in found["policies"].values():
        assert {"nauc", "nauclog", "gap", "c98", "c100", "latency"} <= set(rows["agentflow"])
        assert rows["zero"]["gap"] == 0
        assert rows["oracle"]["gap"] == pytest.approx(100)
        assert rows["oracle"]["nauclog"] > rows["agentflow"]["nauclog"] > rows["zero"]["nauclog"]
    assert set(found["leave_one_out"]["as_paid"]) == {"choice", "open"}
    assert set(found["ece"]) == {"raw", "calibrated"}


def test_data_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from benchmarks.cascade import main

    monkeypatch.setattr(sys, "argv", ["cascade", "--data", str(tmp_path / "none.parquet")])
    assert main() == 2
    assert "--data" in capsys.readouterr().err
