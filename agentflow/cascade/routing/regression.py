"""The two fits that everything learned here is made of: logistic regression and ridge, both penalised, in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Probabilities nearer to 0 and 1 than this are taken as this: log-odds of at most 13.8.
_NEAREST = 1e-6
# The intercept is not penalised, only kept from being singular.
_FREE = 1e-6
_STEPS, _SETTLED = 12, 1e-5


def log_odds(probability: Floats) -> Floats:
    """ln(p / (1 - p)), with p kept away from 0 and 1."""
    p = np.clip(probability, _NEAREST, 1.0 - _NEAREST)
    return np.log(p) - np.log1p(-p)


def chance(log_odds: Floats) -> Floats:
    """1 / (1 + exp(-x)), the inverse of ``log_odds``."""
    return 1.0 / (1.0 + np.exp(-np.clip(log_odds, -30.0, 30.0)))


def logistic(x: Floats, y: Floats, penalty: float) -> Floats:
    """Weights of a logistic regression by Newton's method.

    Args:
        x: rows by columns; the first column is all ones.
        y: 0 or 1, or a chance in between.
        penalty: on half the square of every weight but the first.

    Returns:
        One weight a column: ``chance(x @ weights)`` is the prediction.
    """
    weights = np.zeros(x.shape[1])
    ridge = _penalties(x.shape[1], penalty)
    for _ in range(_STEPS):
        p = chance(x @ weights)
        curvature = (x.T * (p * (1.0 - p) + 1e-6)) @ x + np.diag(ridge)
        step = np.linalg.solve(curvature, x.T @ (p - y) + ridge * weights)
        weights = weights - step
        if np.abs(step).max() < _SETTLED:
            break
    return weights


def ridge(x: Floats, penalty: float) -> Floats:
    """The matrix that turns targets into weights: ``ridge(x, c) @ y`` are those of least penalised squares."""
    solved = np.linalg.solve(x.T @ x + np.diag(_penalties(x.shape[1], penalty)), x.T)
    return solved.astype(np.float64, copy=False)


def left_out(x: Floats, solver: Floats, y: Floats) -> Floats:
    """What a ridge regression says of each row when that very row is left out of the fit.

    No fit is repeated: (guess - h y) / (1 - h), h being the row's leverage (Allen's PRESS, Technometrics 16, 1974).

    Args:
        x: rows by columns.
        solver: ``ridge(x, penalty)``.
        y: rows by targets.
    """
    leverage = np.einsum("ij,ji->i", x, solver)[:, None]
    found: Floats = (x @ (solver @ y) - leverage * y) / (1.0 - leverage)
    return found


def folds(n: int, parts: int) -> Ints:
    """Which of equal parts each of n rows is in, by a fixed shuffle: whatever order they came in means nothing."""
    return np.random.default_rng(0).permutation(n) % parts


def _penalties(columns: int, penalty: float) -> Floats:
    penalties = np.full(columns, penalty)
    penalties[0] = _FREE
    return penalties
