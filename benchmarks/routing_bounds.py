"""What bounds any policy on these signals: no policies to be used, but ends of what could be reached."""

from __future__ import annotations

import numpy as np

from agentflow.cascade.routing.evidence import one_of
from agentflow.cascade.routing.regression import Floats, log_odds
from benchmarks.routing_baselines import of_choice, trades
from benchmarks.routing_data import Outcomes
from benchmarks.routing_ours import agentflow
from benchmarks.routing_scores import Point


def same_half(train: Outcomes, test: Outcomes) -> list[Point]:
    """Our own policy fitted on the very half that it is scored on: as if there were no end of labels."""
    return agentflow(test, test)


def free_evidence(train: Outcomes, test: Outcomes) -> list[Point]:
    """Every model's reply and signal is seen for nothing, and one model's answer is then chosen and paid for.

    The chances are logistic regressions on all signals, all agreements and the task, fitted on the training half.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(_evidence(train, train))
    seen, asked = scaler.transform(_evidence(train, train)), scaler.transform(_evidence(train, test))
    chances = np.stack(
        [LogisticRegression(C=0.01, max_iter=500).fit(seen, good).predict_proba(asked)[:, 1] for good in train.score.T],
        axis=1,
    )
    return [of_choice(test, (chances - trade * test.answer_cost).argmax(axis=1)) for trade in trades(train)]


def _evidence(train: Outcomes, outcomes: Outcomes) -> Floats:
    signals = log_odds(np.exp(np.minimum(outcomes.confidence, 0.0)))
    first, second = np.triu_indices(len(outcomes.models), 1)
    agree = (outcomes.answers[:, first] == outcomes.answers[:, second]).astype(float)
    tasks = one_of(outcomes.benchmark.tolist(), tuple(sorted(set(train.benchmark.tolist()))))
    kinds = np.hstack([tasks, np.log1p(outcomes.prompt)[:, None]])
    return np.hstack([signals, agree, agree * signals[:, first], agree * signals[:, second], kinds])
