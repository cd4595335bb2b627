"""What the question alone tells: how likely each rung's reply is to be good, before any reply.

It helps most with the first step, when nothing else is known. It is evidence beside the replies', never a router of
its own, and only where the task has labels: guesses from questions do not carry over to tasks never seen.
Imports regression.
"""

from __future__ import annotations

import numpy as np

from agentflow.cascade.routing.regression import Floats, left_out, ridge

# Many weak numbers, few labels: each counts for little. A task's own level is penalised a hundred times less.
_PENALTY, _TASK = 100.0, 10.0


class Prior:
    """A ridge regression of good replies on numbers of the question, within the level of each task.

    Args:
        numbers: n x k, of the labelled questions: an embedding, or ``question_features``.
        tasks: n x t, 1 in the column of the question's task.
        good: n x m, 1 where a rung's reply was good.

    ``learned`` holds, n x m, what is said of the labelled questions, each judged by a fit that did not see it.
    """

    def __init__(self, numbers: Floats, tasks: Floats, good: Floats) -> None:
        self._mean = numbers.mean(axis=0)
        self._scale = (numbers.std(axis=0) + 1e-9) * max(numbers.shape[1], 1) ** 0.5
        x = self._columns(numbers, tasks)
        solver = ridge(x, _PENALTY)
        self._weights = solver @ good
        self.learned: Floats = left_out(x, solver, good)

    def chances(self, numbers: Floats, tasks: Floats) -> Floats:
        """N x m, about 0 to 1, of questions that were not learned from."""
        found: Floats = self._columns(numbers, tasks) @ self._weights
        return found

    def _columns(self, numbers: Floats, tasks: Floats) -> Floats:
        return np.hstack([np.ones((len(numbers), 1)), _TASK * tasks, (numbers - self._mean) / self._scale])
