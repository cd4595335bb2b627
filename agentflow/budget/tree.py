"""Tree: what all nodes of one budget tree share: lock, clock, calendar, periods, raises. Imports windows, raises."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import datetime

from agentflow.budget.raises import Raises
from agentflow.budget.windows import Calendar, Window

Clock = Callable[[], float]


class Tree:
    """What all nodes of one tree share."""

    def __init__(self, clock: Clock, calendar: Calendar) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.calendar = calendar
        # Changes whenever a line of accounts may have changed, so that nodes can keep theirs until then.
        self.epoch = 0
        self.raises = Raises()
        self.windows: list[Window] = []
        self.period_ends: datetime | None = None
        self._latest = -math.inf

    def now(self) -> float:
        """The clock, which never runs backwards even if what it reads does."""
        self._latest = max(self._latest, self.clock())
        return self._latest

    def turn_periods(self) -> None:
        """Open accounts for the periods that have begun. A period that is over never comes back."""
        if self.windows and (self.period_ends is None or self.calendar() >= self.period_ends):
            now = self.calendar()
            self.period_ends = min(window.turn(now) for window in self.windows)
            self.epoch += 1
