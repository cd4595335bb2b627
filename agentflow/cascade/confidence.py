"""Confidence from token probabilities: free, because they ride on the reply. Imports nothing of agentflow."""

from __future__ import annotations

import math
from collections.abc import Sequence


def joint_probability(logprobs: Sequence[float]) -> float:
    """The probability that the model gives to its whole reply, end token included.

    Args:
        logprobs: natural logarithms of the chosen tokens' probabilities, in order.

    Returns:
        ``exp(sum(logprobs))``, 0 to 1. Right for short answers; a long one is improbable however good it is.
    """
    return min(1.0, math.exp(min(0.0, math.fsum(logprobs))))


def mean_probability(logprobs: Sequence[float]) -> float:
    """The geometric mean of the tokens' probabilities, 0 to 1: comparable across replies of any length.

    An empty sequence says nothing and gives 0.
    """
    return min(1.0, math.exp(min(0.0, math.fsum(logprobs) / len(logprobs)))) if logprobs else 0.0
