"""What a swept policy is worth: areas under its hull of quality against cost, and the cost of matching the best model.

The protocol's definitions; every method is scored by the same code on the same test half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.routing_data import Floats

_GRID = 4_000


@dataclass(frozen=True)
class Point:
    """One operating point of a policy on the test half: mean cost, mean score, mean and p95 latency."""

    cost: float
    score: float
    latency: float
    p95: float


@dataclass(frozen=True)
class Ends:
    """What every deployment has: the cheapest single model and the best one on the training half."""

    low: Point
    high: Point


@dataclass(frozen=True)
class Scores:
    """A policy's figures; ``gap`` needs the zero router's and the oracle's, so it is put in last."""

    nauc: float
    nauclog: float
    best: float
    c95: float
    c98: float
    c100: float
    latency: float
    p95: float


def hull(points: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    """The non-decreasing upper convex hull, from the cheapest point on."""
    kept: list[tuple[float, float]] = []
    for cost, score in sorted(points):
        if kept and score <= kept[-1][1]:
            continue
        if kept and cost == kept[-1][0]:
            kept.pop()
        while len(kept) >= 2 and _bends_up(kept[-2], kept[-1], (cost, score)):
            kept.pop()
        kept.append((cost, score))
    return np.array([c for c, _ in kept]), np.array([s for _, s in kept])


def _bends_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - b[0]) <= (c[1] - b[1]) * (b[0] - a[0])


def scores(points: list[Point], ends: Ends) -> Scores:
    """The figures of a policy's points on the test half."""
    cost, score = hull([(p.cost, p.score) for p in (*points, ends.low, ends.high)])
    low, high = ends.low.cost, ends.high.cost
    linear = np.linspace(low, high, _GRID)
    even = np.geomspace(low, high, _GRID)
    good = [p for p in points if p.score >= 0.98 * ends.high.score]
    at98 = min(good, key=lambda p: p.cost, default=None)
    return Scores(
        nauc=float(np.trapezoid(np.interp(linear, cost, score), linear) / (high - low)),
        nauclog=float(np.trapezoid(np.interp(even, cost, score), np.log(even)) / np.log(high / low)),
        best=float(score.max()),
        c95=_reaching(0.95 * ends.high.score, cost, score) / high,
        c98=_reaching(0.98 * ends.high.score, cost, score) / high,
        c100=_reaching(ends.high.score, cost, score) / high,
        latency=at98.latency / ends.high.latency if at98 else float("nan"),
        p95=at98.p95 / ends.high.p95 if at98 else float("nan"),
    )


def _reaching(target: float, cost: Floats, score: Floats) -> float:
    """The cheapest cost on the hull that reaches a score; nan when none does."""
    if score[-1] < target:
        return float("nan")
    at = int(np.argmax(score >= target))
    if at == 0:
        return float(cost[0])
    share = (target - score[at - 1]) / (score[at] - score[at - 1])
    return float(cost[at - 1] + share * (cost[at] - cost[at - 1]))


def gap(policy: float, zero: float, oracle: float) -> float:
    """Percent of the distance from no intelligence to the oracle, by nAUClog."""
    return 100.0 * (policy - zero) / (oracle - zero)
