"""Drift: when live figures leave the band in which they were calibrated, what was learned is not used.

A band is conformal: the newest window's mean lies outside the spread of the means of equal windows of the calibration
data only as often as ``alpha`` says, as long as nothing has changed. Imports numpy.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from agentflow.cascade.routing.fixed import FixedOrder
from agentflow.cascade.routing.regression import Floats
from agentflow.cascade.routing.state import Decision, Routing, State

WINDOW = 50
_DRAWS = 400


@dataclass(frozen=True, slots=True)
class Band:
    """Where the mean of ``WINDOW`` confidences (or escalations, 0 or 1) lies while nothing has changed."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Floats, alpha: float = 0.01, window: int = WINDOW) -> Band:
        """The band of window means, by drawing windows from calibration values.

        Args:
            values: of the calibration data, in any order.
            alpha: how often an unchanged window may lie outside.
            window: how many values a live window has.
        """
        means = np.random.default_rng(0).choice(values, (_DRAWS, window)).mean(axis=1)
        low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
        return cls(float(low), float(high))


@dataclass(slots=True)
class DriftMonitor:
    """Says whether the latest values still lie in their band; with less than a window it does not object.

    Example:
        >>> monitor = DriftMonitor(Band(0.6, 0.8), window=3)
        >>> [monitor.saw(value) for value in (0.7, 0.2, 0.1)]
        [False, False, True]
    """

    band: Band
    window: int = WINDOW
    _seen: deque[float] = field(default_factory=deque[float], repr=False)

    def saw(self, value: float) -> bool:
        """Count one more value; True when the window's mean has left the band."""
        self._seen.append(value)
        if len(self._seen) > self.window:
            self._seen.popleft()
        return self.drifted

    @property
    def drifted(self) -> bool:
        """Whether the mean of a full window lies outside the band."""
        if len(self._seen) < self.window:
            return False
        return not self.band.low <= sum(self._seen) / len(self._seen) <= self.band.high


@dataclass(frozen=True, slots=True)
class Guarded:
    """A learned policy while its figures hold, a plain one while they have drifted.

    Whoever settles calls tells each confidence with ``saw``; deciding itself changes nothing.

    Args:
        learned: the policy that rests on calibration.
        monitors: by task and rung name.
        fallback: decides for a task of which any rung has drifted.
    """

    learned: Routing
    monitors: dict[tuple[str, str], DriftMonitor]
    fallback: Routing = field(default_factory=FixedOrder)

    def choose(self, state: State) -> Decision:
        """The learned decision, or the fallback's with the reason why."""
        drifted = self.drifted(state.task)
        if not drifted:
            return self.learned.choose(state)
        decision = self.fallback.choose(state)
        return replace(decision, reason=f"{decision.reason} (confidence of {drifted[0]} has drifted: fixed order)")

    def saw(self, task: str, rung: str, confidence: float) -> None:
        """Count one reply's confidence."""
        monitor = self.monitors.get((task, rung))
        if monitor is not None:
            monitor.saw(confidence)

    def drifted(self, task: str) -> tuple[str, ...]:
        """Rungs whose confidences at this task have left their band."""
        return tuple(rung for (of, rung), monitor in self.monitors.items() if of == task and monitor.drifted)
