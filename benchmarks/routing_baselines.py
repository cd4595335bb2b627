"""What a policy is compared with: no intelligence, question-only routers, threshold cascades, the oracle.

Each takes a training half and a test half, and gives its operating points on the test half.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from benchmarks.routing_data import Floats, Outcomes
from benchmarks.routing_scores import Ends, Point, hull

# Trade-offs, in scores per cost of the best model.
TRADES = np.concatenate([[0.0], np.geomspace(1e-3, 30, 45)])


def best_model(train: Outcomes) -> int:
    """The most accurate on the training half."""
    return int(train.score.mean(axis=0).argmax())


def trades(train: Outcomes) -> Floats:
    """The swept lambdas: scores per unit of cost."""
    return TRADES / train.answer_cost[:, best_model(train)].mean()


def ends(train: Outcomes, test: Outcomes) -> Ends:
    """The cheapest single model and the best-on-train one, on the test half."""
    cheapest = int(train.answer_cost.mean(axis=0).argmin())
    return Ends(
        of_choice(test, np.full(len(test.ids), cheapest)), of_choice(test, np.full(len(test.ids), best_model(train)))
    )


def of_choice(test: Outcomes, chosen: np.ndarray) -> Point:
    """One model a question, no signal read."""
    rows = np.arange(len(chosen))
    return point(test.answer_cost[rows, chosen], test.score[rows, chosen], test.latency[rows, chosen])


def point(cost: Floats, score: Floats, latency: Floats) -> Point:
    """Means over questions."""
    return Point(float(cost.mean()), float(score.mean()), float(latency.mean()), float(np.quantile(latency, 0.95)))


def zero(train: Outcomes, test: Outcomes) -> list[Point]:
    """Single models on the upper hull of the training half, and mixes of two neighbours."""
    costs, means = train.answer_cost.mean(axis=0), train.score.mean(axis=0)
    kept, _ = hull(list(zip(costs, means, strict=True)))
    return [of_choice(test, np.full(len(test.ids), m)) for m in range(len(costs)) if costs[m] in kept]


def oracle(train: Outcomes, test: Outcomes) -> list[Point]:
    """Knows every score: a ceiling, luck included."""
    return [of_choice(test, (test.score - trade * test.answer_cost).argmax(axis=1)) for trade in trades(train)]


def routed(train: Outcomes, test: Outcomes, predicted: Floats) -> list[Point]:
    """The argmax of predicted quality less lambda times predicted cost."""
    cost = predicted_cost(train, test)
    return [of_choice(test, (predicted - trade * cost).argmax(axis=1)) for trade in trades(train)]


def predicted_cost(train: Outcomes, test: Outcomes) -> Floats:
    """exp of a ridge of log cost on log(1 + characters), model by model."""
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=1.0).fit(_length(train), np.log(train.answer_cost))
    return np.exp(fitted.predict(_length(test)))


def _length(outcomes: Outcomes) -> Floats:
    return np.log1p(np.char.str_len(outcomes.query))[:, None].astype(float)


def by_length(train: Outcomes, test: Outcomes) -> list[Point]:
    """A logistic regression on the length of the question alone."""
    return routed(train, test, _logistic(_length(train), train.score, _length(test)))


def knn40(train: Outcomes, test: Outcomes) -> list[Point]:
    """Mean scores of the 40 nearest questions by the cosine of their embeddings."""
    near = np.argsort(-(test.embedding @ train.embedding.T), axis=1, kind="stable")[:, :40]
    return routed(train, test, train.score[near].mean(axis=1))


def logistic(train: Outcomes, test: Outcomes) -> list[Point]:
    """A logistic regression on embeddings, one a model."""
    return routed(train, test, _logistic(train.embedding, train.score, test.embedding))


def _logistic(x: Floats, y: Floats, asked: Floats) -> Floats:
    from sklearn.linear_model import LogisticRegression

    found = np.empty((len(asked), y.shape[1]))
    for m in range(y.shape[1]):
        found[:, m] = (
            LogisticRegression(C=1.0, max_iter=1000).fit(x, y[:, m]).predict_proba(asked)[:, 1]
            if 0 < y[:, m].mean() < 1
            else y[:, m].mean()
        )
    return found


def cascade2(train: Outcomes, test: Outcomes) -> list[Point]:
    """Every pair with 33 thresholds, and single models; the training half's best for each lambda."""
    return _cascades(train, test, thirds=False)


def cascade3(train: Outcomes, test: Outcomes) -> list[Point]:
    """Also every triple, with 9 x 9 thresholds."""
    return _cascades(train, test, thirds=True)


Plan = tuple[tuple[int, ...], tuple[float, ...]]


def _cascades(train: Outcomes, test: Outcomes, *, thirds: bool) -> list[Point]:
    models = range(len(train.models))
    cuts = np.quantile(train.confidence, np.linspace(0.02, 0.98, 33), axis=0)
    plans: list[Plan] = [((m,), ()) for m in models]
    plans += [((i, j), (cut,)) for i, j in combinations(models, 2) for cut in cuts[:, i]]
    if thirds:
        few = np.quantile(train.confidence, np.linspace(0.1, 0.95, 9), axis=0)
        plans += [((i, j, k), (a, b)) for i, j, k in combinations(models, 3) for a in few[:, i] for b in few[:, j]]
    means = np.array([[p.cost, p.score] for p in (run_plan(train, plan) for plan in plans)])
    chosen = [int((means[:, 1] - trade * means[:, 0]).argmax()) for trade in trades(train)]
    ran = {at: run_plan(test, plans[at]) for at in set(chosen)}
    return [ran[at] for at in chosen]


def run_plan(outcomes: Outcomes, plan: Plan) -> Point:
    """A fixed chain of models with a threshold before each but the last."""
    chain, cuts = plan
    cost, latency = outcomes.answer_cost[:, chain[0]].copy(), outcomes.latency[:, chain[0]].copy()
    score = outcomes.score[:, chain[0]].copy()
    climbing = np.arange(len(score))
    for before, after, cut in zip(chain, chain[1:], cuts, strict=False):
        cost[climbing] += outcomes.check_cost[climbing, before]
        climbing = climbing[outcomes.confidence[climbing, before] < cut]
        cost[climbing] += outcomes.answer_cost[climbing, after]
        latency[climbing] += outcomes.latency[climbing, after]
        score[climbing] = outcomes.score[climbing, after]
    return point(cost, score, latency)
