"""Rate limits: how many requests a key may make. In this process; each server process counts for itself."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

# Those that have not called for longest are forgotten, and begin anew with a full allowance.
_REMEMBERED: Final = 10_000


class Pace:
    """A leaky bucket for each key: a minute's requests may come at once, and flow back evenly.

    Args:
        clock: monotonic seconds, for tests.

    Example:
        >>> pace = Pace(clock=lambda: 0.0)
        >>> [pace.wait_s("key", per_minute=2) for _ in range(3)]
        [0.0, 0.0, 30.0]
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When the bucket of each key will be empty again.
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, key: str, per_minute: int) -> float:
        """Count a request: 0 lets it through; else it is refused, and the next fits in so many seconds."""
        now, each = self._clock(), 60.0 / per_minute
        level = max(self._empty_at.get(key, now), now) - now
        if level + each > 60.0 + 1e-9:
            return level + each - 60.0
        self._empty_at[key] = now + level + each
        self._empty_at.move_to_end(key)
        if len(self._empty_at) > _REMEMBERED:
            self._empty_at.popitem(last=False)
        return 0.0
