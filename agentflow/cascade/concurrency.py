"""Concurrency: how many calls a rung takes side by side, found by watching it. Imports quantiles.

``Gradient`` is the law: the limit grows while the first token comes as quickly as it used to, shrinks when it does not,
and by a tenth when the server says stop. ``Slots`` is the gate: whoever finds no slot waits in line.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from agentflow.cascade.quantiles import Trigger


@dataclass(frozen=True, slots=True)
class ConcurrencyLimits:
    """Between what the limit moves; equal bounds make it fixed.

    Args:
        least: never fewer than these side by side.
        most: never more.
        start: where it begins; ``least`` and ``most`` bound it.
    """

    least: int = 1
    most: int = 64
    start: int = 8


class Gradient:
    """The limit of a rung's concurrency: how the first token slows down says whether there is a queue.

    Each first token moves the limit a fifth of the way to ``clamp(1.5 * quick / now, 0.5, 1) * limit + sqrt(limit)``
    (the form of Gradient2 in Netflix's concurrency-limits, 2018), where ``now`` is the median time to first token of
    late and ``quick`` that without a queue. Gradient2 takes a long-term mean for ``quick``; behind a server that is
    always full that mean is the queue, and the limit grows for ever. So here every thousandth token halves the limit
    for fifty more, and what the median is then is ``quick``.

    Feed it the time to first token, never that of a whole reply: this one depends on how much was asked.

    Args:
        limits: its bounds.
    """

    __slots__ = ("_limit", "_limits", "_now", "_quick", "_seen")

    _TOLERANCE: Final = 1.5
    _SMOOTHING: Final = 0.2
    _BACKOFF: Final = 0.9
    _PROBE_EVERY: Final = 1000
    _PROBE_FOR: Final = 50

    def __init__(self, limits: ConcurrencyLimits | None = None) -> None:
        self._limits = limits or ConcurrencyLimits()
        self._limit = self._bounded(float(self._limits.start))
        self._now = Trigger(0.5, step=0.1, least=5)
        self._quick = math.inf
        self._seen = 0

    @property
    def limit(self) -> int:
        """How many may run side by side."""
        return int(self._limit)

    def saw(self, first_token_s: float, in_flight: int) -> None:
        """A first token came after so many seconds, with so many calls running, its own included."""
        self._now.add(first_token_s)
        now = self._now.value
        if now is None:
            return
        self._seen += 1
        phase = self._seen % self._PROBE_EVERY
        if phase == 0:
            self._limit = self._bounded(self._limit * 0.5)
        if phase == self._PROBE_FOR and self._seen > self._PROBE_EVERY:
            self._quick = now
        self._quick = min(self._quick, now)
        if phase < self._PROBE_FOR and self._seen >= self._PROBE_EVERY:
            return
        gradient = min(max(self._TOLERANCE * self._quick / now, 0.5), 1.0)
        if gradient >= 1.0 and in_flight < self._limit / 2.0:
            # Nobody asks for more: that nothing slows down says nothing of a higher limit.
            return
        new = gradient * self._limit + math.sqrt(self._limit)
        self._limit = self._bounded(self._limit + self._SMOOTHING * (new - self._limit))

    def backed_off(self) -> None:
        """A call timed out, or the server refused one as too many: a tenth less."""
        self._limit = self._bounded(self._limit * self._BACKOFF)

    def _bounded(self, limit: float) -> float:
        return min(max(limit, float(self._limits.least)), float(self._limits.most))


class Slots:
    """A gate that lets as many through as the law allows; the others wait, first come, first served.

    A waiter that is cancelled or runs out of time leaves the line, and a slot that was just given to it goes to the
    next: no slot is lost.

    Args:
        law: how many.
    """

    __slots__ = ("_waiting", "in_flight", "law")

    def __init__(self, law: Gradient) -> None:
        self.law = law
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether whoever came now would have to wait."""
        return bool(self._waiting) or self.in_flight >= self.law.limit

    async def take(self, timeout_s: float) -> None:
        """Take a slot, when one is free and it is one's turn.

        Raises:
            TimeoutError: not within ``timeout_s``.
        """
        if not self.full:
            self.in_flight += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(timeout_s):
                await place
        except BaseException:
            if place.done() and not place.cancelled():
                self.give_back()
            with contextlib.suppress(ValueError):
                self._waiting.remove(place)
            raise

    def give_back(self) -> None:
        """End a turn: the slot goes to the first in line."""
        self.in_flight -= 1
        self.let_in()

    def let_in(self) -> None:
        """Let in whom the law allows by now; it may have changed."""
        while self._waiting and self.in_flight < self.law.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)
