"""What the question alone tells: how likely each rung's reply is to be good, before any reply.

It helps most with the first step, when nothing else is known. It is evidence beside the replies', never a router of
its own, and only where the task has labels: guesses from questions do not carry over to tasks never seen.
Imports regression.
"""

from __future__ import annotations

import numpy as np

from agentflow.cascade.routing.regression import Floats, left_out, ridge

# Many weak numbers, few labels: each counts for little. A task's own level is hardly penalised.
_PENALTY, _LIGHT = 100.0, 1.0


class Prior:
    """How likely good replies are at each task, and a ridge regression on numbers of the question for the rest.

    Args:
        numbers: n x k, of the labelled questions: an embedding, or ``question_features``.
        tasks: n x t, 1 in the column of the question's task.
        good: n x m, 1 where a rung's reply was good.

    ``learned`` holds, n x m, what is said of the labelled questions themselves, each judged by a regression that did
    not see it. The level of its task did: a mean that leaves a question out tells, by what it lacks, how that went.
    """

    def __init__(self, numbers: Floats, tasks: Floats, good: Floats) -> None:
        self._mean = numbers.mean(axis=0)
        self._scale = (numbers.std(axis=0) + 1e-9) * max(numbers.shape[1], 1) ** 0.5
        ones = _with_ones(tasks)
        self._levels = ridge(ones, _LIGHT) @ good
        rest, x = good - ones @ self._levels, self._scaled(numbers)
        solver: Floats = np.linalg.solve(x.T @ x + _PENALTY * np.eye(x.shape[1]), x.T).astype(np.float64, copy=False)
        self._weights: Floats = solver @ rest
        self.learned: Floats = ones @ self._levels + left_out(x, solver, rest)

    def chances(self, numbers: Floats, tasks: Floats) -> Floats:
        """N x m, about 0 to 1, of questions that were not learned from."""
        found: Floats = _with_ones(tasks) @ self._levels + self._scaled(numbers) @ self._weights
        return found

    def _scaled(self, numbers: Floats) -> Floats:
        """Mean 0, and rows of length 1 in the mean, so that one penalty fits however many numbers there are."""
        scaled: Floats = (numbers - self._mean) / self._scale
        return scaled


def _with_ones(tasks: Floats) -> Floats:
    return np.hstack([np.ones((len(tasks), 1)), tasks])
