"""Confidence that costs nothing, because it rides on the reply: token probabilities, and answers that are the same.

Imports nothing of agentflow.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_jsonable_python

_WORDS = re.compile(r"\w+")


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


def answer_key(answer: Any) -> str | None:
    """A short digest that equal answers share: case, spaces and punctuation of a text make no difference.

    It holds nothing that can be read back, though a short answer can be guessed and compared. None for an empty answer,
    and for one that cannot be written down.

    Example:
        >>> answer_key("Paris.") == answer_key(" paris")
        True
    """
    if isinstance(answer, str):
        written = " ".join(_WORDS.findall(answer.casefold()))
    else:
        try:
            written = json.dumps(to_jsonable_python(answer), sort_keys=True, ensure_ascii=False)
        except (TypeError, ValueError):
            return None
    if not written:
        return None
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()[:16]
