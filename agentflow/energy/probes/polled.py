"""Polled watts, added up: for a device that shows its power and counts no energy, and to check one that does.

May import counter and window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentflow.energy.probes.counter import CounterFacts, Reading
from agentflow.energy.probes.window import Window

# Polled power and a sound counter agree within about 1 % over long windows; beyond this one of them is wrong.
_TOLERANCE = 0.05
SUFFIX = "/polled"


class PolledPower:
    """A counter made of polled power: between two looks the mean of their watts (trapezoids).

    What happens between two looks is not seen, so a load of short bursts is poorly measured.

    Args:
        facts: of the counter that it makes.
        watts: reads the device's power; NaN when it gave none, CounterLost when it is gone.
        clock: monotonic seconds.
    """

    def __init__(
        self, facts: CounterFacts, watts: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.facts = facts
        self._watts = watts
        self._clock = clock
        self._joules = 0.0
        self._last: tuple[float, float] | None = None

    def read(self) -> Reading:
        """Microjoules since the first look.

        Raises:
            CounterLost: the device can no longer be read.
        """
        watts, now = self._watts(), self._clock()
        if not math.isfinite(watts) or watts < 0:
            self._last = None
            return Reading(math.nan, now)
        if self._last is not None:
            before, at_s = self._last
            self._joules += (before + watts) / 2 * (now - at_s)
        self._last = (watts, now)
        return Reading(round(self._joules * 1e6), now)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """A counter against its polled power over the same window.

    Args:
        counter: its name.
        difference: how much more the polled power says, as a part of the counter's figure.
        agrees: whether they are within 5 % of each other.
    """

    counter: str
    difference: float
    agrees: bool


def cross_checks(windows: Sequence[Window]) -> tuple[CrossCheck, ...]:
    """Every counter among these windows that has polled power beside it, where both have a figure."""
    by_name = {window.facts.name: window for window in windows}
    checks: list[CrossCheck] = []
    for window in windows:
        polled = by_name.get(window.facts.name + SUFFIX)
        if polled is None or not window.microjoules or polled.microjoules is None:
            continue
        difference = polled.microjoules / window.microjoules - 1.0
        checks.append(CrossCheck(window.facts.name, difference, abs(difference) <= _TOLERANCE))
    return tuple(checks)
