"""What questions alone tell: more where their numbers matter, and nothing that leaks from a question's own label."""

from __future__ import annotations

import numpy as np
import pytest

from agentflow.cascade.routing.prior import Prior
from agentflow.cascade.routing.regression import Floats, left_out, ridge

N = 400


def questions(seed: int, weight: float) -> tuple[Floats, Floats, Floats]:
    """Numbers, tasks and labels of one rung; the first number counts for ``weight``."""
    rng = np.random.default_rng(seed)
    numbers, task = rng.normal(size=(N, 5)), rng.integers(0, 2, size=N)
    good = (rng.normal(size=N) + weight * numbers[:, 0] + task > 0.5).astype(np.float64)
    return numbers, np.eye(2)[task], good[:, None]


def test_left_out_is_what_a_fit_without_the_row_says() -> None:
    rng = np.random.default_rng(0)
    x, y = np.hstack([np.ones((12, 1)), rng.normal(size=(12, 3))]), rng.normal(size=(12, 2))
    found = left_out(x, ridge(x, 2.0), y)
    for row in range(12):
        others = np.arange(12) != row
        assert found[row] == pytest.approx(x[row] @ (ridge(x[others], 2.0) @ y[others]))


def test_numbers_that_matter_raise_what_is_known_of_new_questions() -> None:
    numbers, tasks, good = questions(0, weight=1.0)
    asked, of, came = questions(1, weight=1.0)
    prior = Prior(numbers, tasks, good)
    levels = Prior(numbers[:, :0], tasks, good)
    told, untold = (prior.chances(asked, of) - came) ** 2, (levels.chances(asked[:, :0], of) - came) ** 2
    assert told.mean() < 0.95 * untold.mean()


def test_without_numbers_each_task_has_its_level_and_no_label_leaks() -> None:
    numbers, tasks, good = questions(2, weight=0.0)
    learned = Prior(numbers[:, :0], tasks, good).learned
    for column in tasks.T:
        own = learned[column == 1]
        assert own.std() == pytest.approx(0.0, abs=1e-12)
        assert own.mean() == pytest.approx(good[column == 1].mean(), abs=0.01)
