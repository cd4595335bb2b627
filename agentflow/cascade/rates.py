"""Rates: requests and tokens a minute, as providers count them. Imports nothing of agentflow.

A bucket holds a minute's worth and drains all the time. Whoever does not fit waits in line, first come, first served;
whoever cannot be in time is told at once. What was booked is corrected by what was used.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What may be sent in a minute; None is unlimited."""

    requests: float | None = None
    tokens: float | None = None

    @property
    def limited(self) -> bool:
        """Whether there is anything to keep."""
        return self.requests is not None or self.tokens is not None


class RateFull(Exception):
    """What was asked for does not fit in time. ``wait_s`` is how long it would take."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"the next turn would come in {wait_s:.1f} s")
        self.wait_s = wait_s


class _Bucket:
    """A leaky bucket: filled by what is sent, drained by a sixtieth of its size a second."""

    __slots__ = ("level", "size")

    def __init__(self, size: float) -> None:
        self.size = size
        self.level = 0.0

    def drain(self, seconds: float) -> None:
        self.level = max(self.level - seconds * self.size / 60.0, 0.0)

    def wait_s(self, amount: float) -> float:
        """Seconds until ``amount`` fits; more than a whole bucket fits when it is empty."""
        return max(self.level + min(amount, self.size) - self.size, 0.0) * 60.0 / self.size


@dataclass(eq=False, slots=True)
class _Waiter:
    tokens: float
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Rates:
    """The limits of one rung.

    Args:
        limits: what may be sent in a minute.
        clock: seconds, monotonic; it must run like the event loop's.
    """

    __slots__ = ("_at", "_clock", "_requests", "_timer", "_tokens", "_waiting")

    def __init__(self, limits: RateLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests = None if limits.requests is None else _Bucket(limits.requests)
        self._tokens = None if limits.tokens is None else _Bucket(limits.tokens)
        self._waiting: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._at = clock()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    def wait_s(self, tokens: float) -> float:
        """Seconds that a request of so many tokens would wait, behind all who stand in line."""
        self._drain()
        ahead = sum(waiter.tokens for waiter in self._waiting)
        waits = [0.0]
        if self._requests is not None:
            waits.append(self._requests.wait_s(1.0) + len(self._waiting) * 60.0 / self._requests.size)
        if self._tokens is not None:
            waits.append(self._tokens.wait_s(tokens) + ahead * 60.0 / self._tokens.size)
        return max(waits)

    async def take(self, tokens: float, timeout_s: float) -> None:
        """Book a request of so many tokens, when its turn comes.

        Raises:
            RateFull: it cannot come within ``timeout_s``. Nothing is booked.
        """
        wait_s = self.wait_s(tokens)
        if wait_s <= 0.0 and not self._waiting:
            self._book(tokens)
            return
        if wait_s > timeout_s:
            raise RateFull(wait_s)
        waiter = _Waiter(tokens)
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._let_in()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.turn
        except BaseException as error:
            if waiter.turn.done() and not waiter.turn.cancelled():
                self.give_back(tokens)
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
            self._let_in()
            if isinstance(error, TimeoutError):
                raise RateFull(self.wait_s(tokens)) from None
            raise

    def give_back(self, tokens: float) -> None:
        """What was booked was never sent."""
        self._correct(requests=-1.0, tokens=-tokens)

    def used(self, booked: float, tokens: float) -> None:
        """A request booked with ``booked`` tokens really used ``tokens``."""
        self._correct(requests=0.0, tokens=tokens - booked)

    def _book(self, tokens: float) -> None:
        if self._requests is not None:
            self._requests.level += 1.0
        if self._tokens is not None:
            self._tokens.level += tokens

    def _correct(self, *, requests: float, tokens: float) -> None:
        self._drain()
        if self._requests is not None:
            self._requests.level = max(self._requests.level + requests, 0.0)
        if self._tokens is not None:
            self._tokens.level = max(self._tokens.level + tokens, 0.0)
        if self._waiting:
            self._let_in()

    def _drain(self) -> None:
        now = self._clock()
        passed, self._at = now - self._at, now
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                bucket.drain(passed)

    def _let_in(self) -> None:
        """Let in whoever stands first and fits, and be woken when the next one does."""
        self._drain()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            first = self._waiting[0]
            wait_s = max(
                0.0 if self._requests is None else self._requests.wait_s(1.0),
                0.0 if self._tokens is None else self._tokens.wait_s(first.tokens),
            )
            if wait_s > 1e-9 and not first.turn.done():
                # A moment more: the loop's timers may be early by their own resolution.
                self._timer = asyncio.get_running_loop().call_later(wait_s + 1e-6, self._let_in)
                return
            self._waiting.popleft()
            if not first.turn.done():
                self._book(first.tokens)
                first.turn.set_result(None)
