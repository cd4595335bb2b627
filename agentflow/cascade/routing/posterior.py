"""The chance that a reply is good, given all that was seen: one small logistic regression a node and rung.

What it looks at: how sure each rung was, who agrees with whom, and what is known of the question. Agreement counts
the more the surer those are who agree. Imports evidence and regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from agentflow.cascade.routing.evidence import Evidence, Node
from agentflow.cascade.routing.regression import Floats, Ints, chance, folds, log_odds, logistic

_PENALTY = 10.0
# Platt's two weights, and the two of the correction, are hardly penalised.
_LIGHT = 1.0
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class _Scale:
    """Raw signals to calibrated log-odds; what is known of the question to mean 0 and deviation 1."""

    signal: Floats
    mean: Floats
    deviation: Floats

    def signals(self, evidence: Evidence) -> Floats:
        scaled: Floats = self.signal[0] + self.signal[1] * log_odds(evidence.confidence)
        return scaled

    def about(self, evidence: Evidence) -> Floats:
        scaled: Floats = (evidence.about - self.mean) / self.deviation
        return scaled


@dataclass(frozen=True, slots=True)
class Served:
    """The best reply at a node: whose it is and its chance of being good, per question."""

    rung: Ints
    chance: Floats


@dataclass(frozen=True, slots=True)
class _NodeFit:
    weights: tuple[Floats, ...]
    correction: Floats


class Posterior:
    """What is known at each node, learned from questions that every rung has answered.

    Args:
        nodes: where climbs can be.
        evidence: of the labelled questions.
        good: n x m, 1 where a rung's reply was good.

    ``learned`` holds what the same nodes said of the labelled questions themselves, each judged by fits that did not
    see it, so that nothing later mistakes memory for knowledge.
    """

    def __init__(self, nodes: Sequence[Node], evidence: Evidence, good: Floats) -> None:
        self._scale = _fit_scale(evidence, good)
        self._fits: dict[Node, _NodeFit] = {}
        self.learned: dict[Node, Served] = {Node(): _nothing(len(evidence))}
        signals, about = self._scale.signals(evidence), self._scale.about(evidence)
        for node in nodes:
            if node.asked:
                columns = [_columns(node, rung, signals, evidence.answers, about) for rung in node.asked]
                self._learn(node, columns, good)

    def served(self, node: Node, evidence: Evidence) -> Served:
        """The reply to serve if the climb ended at this node, for every question."""
        if not node.asked:
            return _nothing(len(evidence))
        fit = self._fits[node]
        signals, about = self._scale.signals(evidence), self._scale.about(evidence)
        chances = [
            chance(_columns(node, rung, signals, evidence.answers, about) @ weights)
            for rung, weights in zip(node.asked, fit.weights, strict=True)
        ]
        return _best(node, np.stack(chances), fit.correction)

    def about(self, node: Node, served: Served, evidence: Evidence) -> Floats:
        """What the gain of a further step is guessed from: the chance, the signals, agreement, the question."""
        about = self._scale.about(evidence)
        ones = np.ones((len(evidence), 1))
        if not node.asked:
            return np.hstack([ones, about])
        signals, p = self._scale.signals(evidence)[:, list(node.read)], served.chance[:, None]
        agree = [_agree(evidence.answers, a, b) for a, b in combinations(node.asked, 2)]
        # 4 and 1/2 bring the columns to like sizes, so that one penalty fits all.
        return np.hstack([ones, 4.0 * p, 4.0 * p * p, signals / 2.0, *(a[:, None] for a in agree), about, about * p])

    def _learn(self, node: Node, columns: list[Floats], good: Floats) -> None:
        weights: list[Floats] = []
        apart = np.empty((len(columns), len(good)))
        fold = folds(len(good), _FOLDS)
        for at, (rung, x) in enumerate(zip(node.asked, columns, strict=True)):
            y = good[:, rung]
            weights.append(logistic(x, y, _PENALTY))
            for k in range(_FOLDS):
                apart[at, fold == k] = chance(x[fold == k] @ logistic(x[fold != k], y[fold != k], _PENALTY))
        best = _best(node, apart, np.array([0.0, 1.0]))
        x = np.stack([np.ones(len(good)), log_odds(best.chance)], axis=1)
        correction = logistic(x, good[np.arange(len(good)), best.rung], _LIGHT)
        self._fits[node] = _NodeFit(tuple(weights), correction)
        self.learned[node] = _best(node, apart, correction)


def _fit_scale(evidence: Evidence, good: Floats) -> _Scale:
    raw = log_odds(evidence.confidence)
    platt = [logistic(np.stack([np.ones(len(raw)), s], axis=1), y, _LIGHT) for s, y in zip(raw.T, good.T, strict=True)]
    return _Scale(np.stack(platt, axis=1), evidence.about.mean(axis=0), evidence.about.std(axis=0) + 1e-9)


def _columns(node: Node, rung: int, signals: Floats, answers: Ints, about: Floats) -> Floats:
    """Columns of the regression that says whether this rung's reply is good."""
    columns = [np.ones(len(signals)), *(signals[:, other] for other in node.read)]
    own = rung in node.read
    if own:
        # Beside the log-odds and their square the chance itself: signals near certainty differ less than they look.
        columns += [signals[:, rung] ** 2, 4.0 * chance(signals[:, rung])]
    others = [other for other in node.asked if other != rung]
    for other in others:
        agree = _agree(answers, rung, other)
        columns.append(agree)
        if other in node.read:
            columns.append(agree * signals[:, other])
        if own:
            columns.append(agree * signals[:, rung])
    for a, b in combinations(others, 2):
        among = _agree(answers, a, b)
        columns += [among, among * _agree(answers, a, rung)]
    return np.hstack([np.stack(columns, axis=1), about])


def _agree(answers: Ints, a: int, b: int) -> Floats:
    return (answers[:, a] == answers[:, b]).astype(np.float64)


def _best(node: Node, chances: Floats, correction: Floats) -> Served:
    """The likeliest of the replies. The best of several guesses is a little too high; the correction mends that."""
    at = chances.argmax(axis=0)
    likeliest = chances[at, np.arange(chances.shape[1])]
    return Served(np.array(node.asked)[at], chance(correction[0] + correction[1] * log_odds(likeliest)))


def _nothing(n: int) -> Served:
    return Served(np.full(n, -1), np.zeros(n))
