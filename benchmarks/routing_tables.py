"""The tables of ``benchmarks.cascade``: every policy on every test half, a benchmark left out, calibration."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np

from agentflow.cascade.calibration import Calibration, expected_calibration_error
from agentflow.cascade.outcomes import Labelled
from benchmarks import routing_baselines as baselines
from benchmarks import routing_bounds as bounds
from benchmarks import routing_ours as ours
from benchmarks.routing_data import Accounting, Floats, Outcomes
from benchmarks.routing_scores import Point, Scores, gap, scores

Policy = Callable[[Outcomes, Outcomes], list[Point]]
Row = Mapping[str, float]

POLICIES: Mapping[str, Policy] = {
    "zero": baselines.zero,
    "query_length": baselines.by_length,
    "knn40": baselines.knn40,
    "logistic": baselines.logistic,
    "cascade_2": baselines.cascade2,
    "cascade_3": baselines.cascade3,
    "agentflow": ours.agentflow,
    "agentflow_five_features": ours.five_features,
    "agentflow_task_hidden": ours.task_hidden,
    "agentflow_three_rungs": ours.three_rungs,
    "bound_same_half": bounds.same_half,
    "bound_free_evidence": bounds.free_evidence,
    "oracle": baselines.oracle,
}
SEEDS = 3
# What the table in joules leaves out, to be quick.
NO_BOUNDS = tuple(name for name in POLICIES if not name.startswith(("bound", "agentflow_")))


def halves(outcomes: Outcomes, seed: int) -> tuple[Outcomes, Outcomes]:
    """The training half and the test half of a seed."""
    shuffled = np.random.RandomState(seed).permutation(len(outcomes.ids))
    middle = len(shuffled) // 2
    return outcomes.of(shuffled[:middle]), outcomes.of(shuffled[middle:])


def policies(
    outcomes: Outcomes, accounting: Accounting, seeds: int = SEEDS, chosen: Sequence[str] = tuple(POLICIES)
) -> dict[str, dict[str, float]]:
    """Every policy's figures, means over seeds, with the deviation of the gap and each seed's gap."""
    found: dict[str, list[Scores]] = {name: [] for name in chosen}
    whole = outcomes.accounted(accounting)
    for seed in range(seeds):
        train, test = halves(whole, seed)
        ends = baselines.ends(train, test)
        for name in chosen:
            found[name].append(scores(POLICIES[name](train, test), ends))
    gaps = {
        name: [
            gap(of.nauclog, zero.nauclog, oracle.nauclog)
            for of, zero, oracle in zip(rows, found["zero"], found["oracle"], strict=True)
        ]
        for name, rows in found.items()
    }
    return {name: _row(rows, gaps[name]) for name, rows in found.items()}


def _row(rows: list[Scores], gaps: list[float]) -> dict[str, float]:
    figures = [asdict(row) for row in rows]
    with warnings.catch_warnings():
        # A policy may never reach a target: the mean of nothing is nan, and printed as such.
        warnings.simplefilter("ignore", RuntimeWarning)
        means = {name: float(np.nanmean([row[name] for row in figures])) for name in figures[0]}
    return {**means, "gap": float(np.mean(gaps)), "gap_sd": float(np.std(gaps))}


def leave_one_out(outcomes: Outcomes, accounting: Accounting) -> dict[str, dict[str, float]]:
    """The gap on a benchmark of which the policy has seen no question, for ours and the best baseline."""
    whole = outcomes.accounted(accounting)
    found: dict[str, dict[str, float]] = {}
    for benchmark in sorted(set(whole.benchmark.tolist())):
        train, test = whole.of(whole.benchmark != benchmark), whole.of(whole.benchmark == benchmark)
        ends = baselines.ends(train, test)
        zero = scores(baselines.zero(train, test), ends).nauclog
        oracle = scores(baselines.oracle(train, test), ends).nauclog
        found[benchmark] = {
            name: gap(scores(POLICIES[name](train, test), ends).nauclog, zero, oracle)
            for name in ("knn40", "logistic", "cascade_2", "agentflow")
        }
    return found


def calibration_errors(outcomes: Outcomes) -> tuple[dict[str, float], list[tuple[str, str, int, float, float]]]:
    """Raw and calibrated error, model by model and benchmark by benchmark: half learned from, the other half scored.

    Returns:
        The means, and a row for each: benchmark, model, labels, raw error, calibrated error.
    """
    train, test = halves(outcomes, 0)
    signals = np.exp(np.minimum(train.confidence, 0.0))
    labels = (
        Labelled(model, str(task), float(signals[row, column]), bool(train.score[row, column]))
        for column, model in enumerate(train.models)
        for row, task in enumerate(train.benchmark)
    )
    learned = Calibration.learn(labels, datetime.now(UTC))
    rows: list[tuple[str, str, int, float, float]] = []
    for of in learned.maps:
        these, column = test.benchmark == of.task, test.models.index(of.rung)
        raw = np.exp(np.minimum(test.confidence[these, column], 0.0))
        mapped: Floats = np.array([of.probability(signal) for signal in raw.tolist()])
        good = test.score[these, column]
        errors = expected_calibration_error(raw, good), expected_calibration_error(mapped, good)
        rows.append((of.task, of.rung, of.n, *errors))
    means = {"raw": float(np.mean([r[3] for r in rows])), "calibrated": float(np.mean([r[4] for r in rows]))}
    return means, rows
