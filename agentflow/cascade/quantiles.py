"""Quantiles of a stream of latencies: how long things take, and when one takes too long. Imports nothing of agentflow.

``Quantiles`` reports: counts in buckets whose edges grow by 2 %, exact to a bucket. ``Trigger`` controls: one number
that creeps towards a quantile, so slowly that a burst cannot drag it along. ``lane`` keeps both for every rung.
"""

from __future__ import annotations

import bisect
import math
from typing import Final

# Two edges of a bucket are this factor apart, so a quantile is known to 1 %.
RATIO: Final = 1.02
_LOG_RATIO: Final = math.log(RATIO)
# Nothing is quicker than this; zero has no logarithm.
_LEAST: Final = 1e-9


class Quantiles:
    """Counts of a stream in logarithmic buckets.

    Whenever ``window`` samples have come, all counts are halved: what is reported is mostly the last one or two
    windows, and an old habit fades instead of staying for ever.

    Args:
        window: the samples after which counts are halved; None keeps all at full weight.

    Example:
        >>> seconds = Quantiles()
        >>> for n in range(1, 101): seconds.add(n / 100)
        >>> round(seconds.quantile(0.95), 2)
        0.95
    """

    __slots__ = ("_counts", "_places", "_window", "total")

    def __init__(self, window: int | None = None) -> None:
        self.total = 0.0
        """Samples counted, with what they weigh by now."""
        self._window = window
        self._counts: dict[int, float] = {}
        self._places: list[int] = []

    def add(self, value: float, weight: float = 1.0) -> None:
        """Count a value above zero; what is not above it is counted as next to nothing."""
        place = math.floor(math.log(max(value, _LEAST)) / _LOG_RATIO)
        if place in self._counts:
            self._counts[place] += weight
        else:
            self._counts[place] = weight
            bisect.insort(self._places, place)
        self.total += weight
        if self._window is not None and self.total >= 2 * self._window:
            self.scale(0.5)

    def quantile(self, q: float) -> float | None:
        """The value below which a share ``q`` (0 to 1) of the samples lie; None when there are none."""
        if not self._places:
            return None
        rank, below = q * self.total, 0.0
        for place in self._places:
            below += self._counts[place]
            if below >= rank:
                return _middle(place)
        return _middle(self._places[-1])

    def scale(self, factor: float) -> None:
        """Weigh everything so far by ``factor``; what weighs next to nothing is forgotten."""
        self._counts = {place: count * factor for place, count in self._counts.items() if count * factor > 1e-3}
        self._places = sorted(self._counts)
        self.total = math.fsum(self._counts.values())

    def merge(self, other: Quantiles) -> None:
        """Add what another has counted."""
        for place, count in other._counts.items():
            self._counts[place] = self._counts.get(place, 0.0) + count
        self._places = sorted(self._counts)
        self.total += other.total


def _middle(place: int) -> float:
    """The geometric middle of a bucket."""
    return math.exp((place + 0.5) * _LOG_RATIO)


class Trigger:
    """A quantile as one slowly moving number, for control.

    Each sample above it moves it up by ``step * q``, each below moves it down by ``step * (1 - q)``, both as factors.
    At the quantile the two balance. From 180 to 400 ms it takes some hundred samples: a trigger that followed the
    latency of the moment would fire ever later while the server drowns, or ever more.

    Args:
        q: the quantile, above 0 and below 1.
        step: how far one sample moves it, as a share of itself.
        least: samples seen before it says anything; it starts at their quantile.
    """

    __slots__ = ("_first", "_least", "_q", "_step", "_value")

    def __init__(self, q: float, step: float = 0.02, least: int = 20) -> None:
        self._q, self._step, self._least = q, step, least
        self._first: list[float] = []
        self._value: float | None = None

    @property
    def value(self) -> float | None:
        """Where it stands; None until enough was seen."""
        return self._value

    def add(self, value: float) -> None:
        """Move towards a sample."""
        if self._value is None:
            self._first.append(max(value, _LEAST))
            if len(self._first) >= self._least:
                self._value = sorted(self._first)[min(math.ceil(self._q * self._least), self._least) - 1]
                self._first.clear()
            return
        self._value *= math.exp(self._step * (self._q if value > self._value else self._q - 1.0))
