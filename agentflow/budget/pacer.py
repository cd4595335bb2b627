"""Pacer: how dear the rest of a budget is, from what was spent on the work done and what is left for the rest.

A chain that knows how much work lies ahead slows its spending before it meets the wall, not after. Imports currency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from agentflow.budget.currency import COUNTED, NOTHING, Amounts

# Weight of the newest unit of work in the rate of spending: about the last eight units count.
_NEWEST: Final = 0.125


class Pacer:
    """Shadow prices of one node, per counted currency.

    With ``rate`` what a unit of work uses at present, ``left`` what the budget has left, and ``work`` the units still
    to be done, the even allowance of a unit is ``left / work``; the pressure is ``rate / allowance``, above 1 when the
    budget will not last; and the shadow price of one unit of currency is ``max(0, pressure - 1) / allowance``: zero
    while the budget lasts, and a call's share of the allowance times the shortfall when it does not.

    Args:
        work: units of work that lie ahead, in any unit: calls, tasks, weights.
        seen: what the node had spent before this work began.

    Example:
        >>> pacer = Pacer(work=10)
        >>> pacer.did(1, (200, 0, 0, 0, 0))
        >>> round(pacer.pressure((900, math.inf, math.inf, math.inf, math.inf)), 2)
        2.0
    """

    def __init__(self, work: float, seen: Amounts = NOTHING) -> None:
        self.work = work
        self._rate: list[float] | None = None
        self._seen: Amounts = seen

    def did(self, units: float, spent: Amounts) -> None:
        """Count finished work.

        Args:
            units: how much of the expected work it was.
            spent: what the node has spent in all, after it.
        """
        if units <= 0:
            return
        self.work = max(self.work - units, 0.0)
        used = [(now - before) / units for now, before in zip(spent, self._seen, strict=True)]
        self._seen = spent
        if self._rate is None:
            self._rate = used
        else:
            weight = 1 - (1 - _NEWEST) ** units
            self._rate = [rate + weight * (new - rate) for rate, new in zip(self._rate, used, strict=True)]

    def pressure(self, left: Sequence[float]) -> float:
        """The greatest pressure over the currencies; 0 while nothing is known."""
        return max((self._pressure(index, left[index]) for index in range(len(COUNTED))), default=0.0)

    def dearness(self, asked: Amounts, left: Sequence[float]) -> float:
        """``asked`` at the shadow prices, over all currencies: 0 while the budget lasts.

        Args:
            asked: what a call would use.
            left: what the node has left, ``math.inf`` without a limit.
        """
        dear = 0.0
        for index, amount in enumerate(asked):
            shortfall = self._pressure(index, left[index]) - 1.0
            if shortfall > 0 and amount:
                dear += math.inf if left[index] <= 0 else shortfall * amount * self.work / left[index]
        return dear

    def _pressure(self, index: int, left: float) -> float:
        if self._rate is None or self.work <= 0 or left == math.inf or self._rate[index] <= 0:
            return 0.0
        return math.inf if left <= 0 else self._rate[index] * self.work / left
