"""Our own decisions on recorded outcomes: posteriors and plans of ``agentflow.cascade.routing``, walked in bulk.

Priors, posteriors and plans are learned on the training half alone, one of each for each kind of signal (riding on the
reply, or a call of its own). A question whose task (benchmark) has labels is planned with what is known of both; one
of an unknown task with the plan that looks at replies alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agentflow.cascade.routing.evidence import Evidence, Node, one_of, rungs_worth_asking
from agentflow.cascade.routing.plan import Designs, Graph, Plan, choose_steps
from agentflow.cascade.routing.posterior import Posterior
from agentflow.cascade.routing.prior import Prior
from agentflow.cascade.routing.regression import Floats
from agentflow.cascade.routing.router import question_features
from benchmarks.routing_baselines import best_model, point, trades
from benchmarks.routing_data import Outcomes
from benchmarks.routing_scores import Point

# What a wait as long as the best model's mean latency is worth, in good replies.
PATIENCE = 0.02


@dataclass(frozen=True)
class Walked:
    """Per question: cost, score and latency of a policy."""

    cost: Floats
    score: Floats
    latency: Floats


def agentflow(train: Outcomes, test: Outcomes, *, patience: float = PATIENCE, depth: int = 2) -> list[Point]:
    """Operating points on the test half, one for each trade-off."""
    found = [walk for _, walk in walks(train, test, patience=patience, depth=depth)]
    return [point(walk.cost, walk.score, walk.latency) for walk in found]


def three_rungs(train: Outcomes, test: Outcomes) -> list[Point]:
    """The same with up to three rungs in a climb."""
    return agentflow(train, test, depth=3)


def five_features(train: Outcomes, test: Outcomes) -> list[Point]:
    """The same with ``question_features`` in place of embeddings: what a live call is decided by."""
    return agentflow(_with_features(train), _with_features(test))


def _with_features(outcomes: Outcomes) -> Outcomes:
    numbers = [question_features(text) for text in outcomes.query.tolist()]
    return replace(outcomes, embedding=np.array(numbers, np.float64))


def task_hidden(train: Outcomes, test: Outcomes) -> list[Point]:
    """The same when the name of the call is not told: no question is known to be of a labelled task."""
    return [point(w.cost, w.score, w.latency) for _, w in walks(train, test, hidden=True)]


def walks(
    train: Outcomes, test: Outcomes, *, patience: float = PATIENCE, depth: int = 2, hidden: bool = False
) -> list[tuple[float, Walked]]:
    """Every trade-off with what came of it, question by question."""
    swept = trades(train)
    wait = patience / train.latency[:, best_model(train)].mean()
    known = () if hidden else tuple(sorted(set(train.benchmark)))
    n = len(test.ids)
    empty = [Walked(np.zeros(n), np.zeros(n), np.zeros(n)) for _ in swept]
    kinds = [(own, named) for own in (False, True) for named in (False, True)]
    for own, named in kinds:
        of = (test.own_signal == own) & (np.isin(test.benchmark, known) == named)
        fit = train.own_signal == own
        if of.any():
            learned = Learned(train.of(fit if fit.any() else slice(None)), known if named else (), depth)
            for trade, whole in zip(swept, empty, strict=True):
                walked = learned.walk(test.of(of), trade, wait)
                whole.cost[of], whole.score[of], whole.latency[of] = walked.cost, walked.score, walked.latency
    return list(zip(swept.tolist(), empty, strict=True))


class Learned:
    """Posterior and plans of one kind of signal."""

    def __init__(self, train: Outcomes, tasks: tuple[str, ...], depth: int = 2) -> None:
        self.train = train
        self.tasks = tasks
        rungs = rungs_worth_asking(train.score, train.answer_cost)
        self.graph = Graph(rungs, free=not train.check_cost.any(), depth=depth)
        self.prior = Prior(train.embedding, one_of(train.benchmark.tolist(), tasks), train.score[:, list(rungs)])
        self._prices = _Prices(train)
        self.evidence = self._evidence(train)
        self.posterior = Posterior(self.graph.nodes(), self.evidence, train.score)
        self._designs = Designs(self.graph, self.posterior, self.evidence)

    def plan(self, trade: float, wait: float) -> Plan:
        """The plan at one price of money and waiting, in good replies."""
        return Plan(self.graph, self.posterior, self.priced(self.train, trade, wait), self._designs)

    def priced(self, outcomes: Outcomes, trade: float, wait: float) -> Evidence:
        """Evidence with the prices that are expected before asking."""
        evidence = self.evidence if outcomes is self.train else self._evidence(outcomes)
        answer, signal, seconds = self._prices.of(outcomes)
        return evidence.priced(trade * answer + wait * seconds, trade * signal)

    def walk(self, test: Outcomes, trade: float, wait: float) -> Walked:
        """Take every question from the start to its end."""
        plan, evidence = self.plan(trade, wait), self.priced(test, trade, wait)
        n = len(test.ids)
        whole = Walked(np.zeros(n), np.zeros(n), np.zeros(n))
        at: dict[Node, np.ndarray] = {Node(): np.arange(n)}
        for node in reversed(self.graph.nodes()):
            rows = at.get(node)
            if rows is None or len(rows) == 0:
                continue
            here = evidence.of(rows)
            served = plan.posterior.served(node, here)
            steps = self.graph.steps(node)
            chosen = np.full(len(rows), -1)
            if steps:
                prices = np.stack([step.price(here) for step in steps], axis=1)
                chosen = np.array(choose_steps(plan.gains(node, served, here) - prices, node))
            whole.score[rows[chosen < 0]] = test.score[rows[chosen < 0], served.rung[chosen < 0]]
            for number, step in enumerate(steps):
                going = rows[chosen == number]
                if step.kind == "ask":
                    whole.cost[going] += test.answer_cost[going, step.rung]
                    whole.latency[going] += test.latency[going, step.rung]
                else:
                    whole.cost[going] += test.check_cost[going, step.rung]
                at[step.to] = np.concatenate([at.get(step.to, np.empty(0, np.int64)), going])
        return whole

    def _evidence(self, outcomes: Outcomes) -> Evidence:
        nothing = np.zeros_like(outcomes.score)
        about = np.empty((len(outcomes.ids), 0))
        if self.tasks:
            length, tasks = np.log1p(outcomes.prompt)[:, None], one_of(outcomes.benchmark.tolist(), self.tasks)
            learned_from = outcomes is self.train
            prior = self.prior.learned if learned_from else self.prior.chances(outcomes.embedding, tasks)
            about = np.hstack([length, length**2, tasks, prior])
        return Evidence(np.exp(np.minimum(outcomes.confidence, 0.0)), outcomes.answers, about, nothing, nothing)


class _Prices:
    """What answer, signal and waiting are expected to take: a power of the prompt's tokens, right in the mean."""

    def __init__(self, train: Outcomes) -> None:
        self._fits = [self._fit(train, y) for y in (train.answer_cost, train.check_cost, train.latency)]

    def of(self, outcomes: Outcomes) -> tuple[Floats, Floats, Floats]:
        """Answer, signal, milliseconds: questions by models."""
        answer, signal, latency = (np.exp(_length(outcomes) @ weights) * scale for weights, scale in self._fits)
        return answer, signal, latency

    def _fit(self, train: Outcomes, y: Floats) -> tuple[Floats, Floats]:
        x = _length(train)
        weights = np.linalg.lstsq(x, np.log(np.maximum(y, 1e-12)), rcond=None)[0]
        return weights.astype(np.float64), y.mean(axis=0) / np.exp(x @ weights).mean(axis=0)


def _length(outcomes: Outcomes) -> Floats:
    return np.stack([np.ones(len(outcomes.ids)), np.log1p(outcomes.prompt)], axis=1)
