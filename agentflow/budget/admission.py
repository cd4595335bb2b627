"""Admission: how much of a reply is held before a call leaves. Imports nothing of agentflow."""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

# Replies remembered for each kind of call: enough for a steady 99th percentile, little enough to follow a change.
_REMEMBERED = 500


class Admission(Protocol):
    """Says how many tokens of a reply are held."""

    def expected(self, rung: str, call: str) -> int | None:
        """Tokens of a reply to hold for a call of this name on this rung; None for all that it may have."""
        ...

    def saw(self, rung: str, call: str, tokens: int) -> None:
        """A reply of so many tokens came."""
        ...


class Strict:
    """Hold the worst case: every token that the reply may have. Spending never passes a limit."""

    def expected(self, rung: str, call: str) -> int | None:
        """All of them."""
        return None

    def saw(self, rung: str, call: str, tokens: int) -> None:
        """Nothing is learned from it."""


class Statistical:
    """Hold a quantile of the replies seen so far, so that more calls fit under one limit side by side.

    **This admits overshoot.** A call whose reply is longer than its hold is recorded in full. With ``quantile`` q, up
    to a share 1 - q of the calls in flight cost more than they hold; at worst (every reply at its longest) ``n`` calls
    in flight overshoot a limit by n x (the worst case of one - its hold), and in the long run by about (1 - q) of that.
    Once a limit is passed nothing more is held under it. The prompt is counted and held whole, always.

    Args:
        quantile: of past replies, above 0 and below 1.
        least: replies of a kind to have seen before its quantile is trusted; until then the worst case is held.

    Raises:
        ValueError: ``quantile`` is not one.

    Example:
        >>> admission = Statistical(quantile=0.9, least=3)
        >>> for tokens in (10, 20, 30): admission.saw("small", "plan", tokens)
        >>> admission.expected("small", "plan")
        30
    """

    def __init__(self, quantile: float = 0.95, least: int = 20) -> None:
        if not 0.0 < quantile < 1.0:
            raise ValueError(f"A quantile lies above 0 and below 1, got {quantile}.")
        self.quantile = quantile
        self.least = max(least, 1)
        self._seen: dict[tuple[str, str], deque[int]] = {}

    def expected(self, rung: str, call: str) -> int | None:
        """The quantile of what was seen, rounded up to a reply that was; None until enough was seen."""
        seen = self._seen.get((rung, call))
        if seen is None or len(seen) < self.least:
            return None
        return sorted(seen)[min(math.ceil(self.quantile * len(seen)), len(seen)) - 1]

    def saw(self, rung: str, call: str, tokens: int) -> None:
        """Remember it."""
        self._seen.setdefault((rung, call), deque(maxlen=_REMEMBERED)).append(tokens)
