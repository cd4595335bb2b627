"""Hedging: when a first token is late, a second attempt leaves, and whichever replies first wins. Imports quantiles.

Late is what nine of ten first tokens are not, as one slowly moving number; hedges are a small share of all calls. Both
keep it from feeding on itself: a server that is slow because it is full must not be asked twice for everything.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from agentflow.cascade.quantiles import Trigger
from agentflow.messages import Delta

Result = TypeVar("Result")
Tell = Callable[[Delta], None]
# What was saved up by calls that needed no hedge: enough for a short bad spell, too little for a second load.
_MOST_SAVED: Final = 5.0


@dataclass(frozen=True, slots=True)
class HedgeLimits:
    """When a second attempt may leave.

    Args:
        quantile: of times to first token, after which one is late. 0.85 to 0.9 moves the 95th percentile; a later one
            hardly does.
        share: hedges for each call, 0 to 1.
        longest_prompt: prompts of more tokens are not hedged: a cancelled attempt has paid for reading its own.
    """

    quantile: float = 0.9
    share: float = 0.05
    longest_prompt: int = 8_000


class Hedges:
    """What a rung knows about its hedges: how long to wait, and whether another one is allowed."""

    __slots__ = ("_saved", "_trigger", "limits", "made", "won")

    def __init__(self, limits: HedgeLimits | None = None) -> None:
        self.limits = limits or HedgeLimits()
        self._trigger = Trigger(self.limits.quantile)
        self._saved = 0.0
        self.made = 0
        """Second attempts that left."""
        self.won = 0
        """Those that replied first."""

    @property
    def delay_s(self) -> float | None:
        """Seconds after which a first token is late; None until enough of them were seen."""
        return self._trigger.value

    def called(self) -> None:
        """A call was made: it adds its share of a hedge."""
        self._saved = min(self._saved + self.limits.share, _MOST_SAVED)

    def saw(self, first_token_s: float) -> None:
        """A first token came after so many seconds, or had not come by then."""
        self._trigger.add(first_token_s)

    def take(self) -> bool:
        """Take a hedge, when one is saved up."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        self.made += 1
        return True

    def put_back(self) -> None:
        """The hedge that was taken never left."""
        self._saved += 1.0
        self.made -= 1


class Race(Generic[Result]):
    """Two attempts at one thing. The first whose reply begins has won, and the other is cancelled.

    An attempt that ends with None, or raises, has lost by itself, and the other goes on. Both have ended when ``run``
    returns, however it ends.

    Args:
        tell: told of the winner's pieces, and of nobody else's.

    Example:
        >>> async def quick(tell): tell(Delta("yes")); return "yes"
        >>> async def late(tell): await asyncio.sleep(60)
        >>> asyncio.run(Race().run(late, quick, 0.01, lambda: True))
        'yes'
    """

    def __init__(self, tell: Tell | None = None) -> None:
        self._tell = tell
        self._tasks: list[asyncio.Task[None]] = []
        self._results: dict[int, Result | None] = {}
        self._errors: list[Exception] = []
        self._decided = asyncio.Event()
        self.winner: int | None = None
        """0 for the first attempt, 1 for the second; None when neither has begun."""

    async def run(
        self,
        first: Callable[[Tell], Awaitable[Result | None]],
        second: Callable[[Tell], Awaitable[Result | None]],
        delay_s: float | None,
        allowed: Callable[[], bool],
    ) -> Result | None:
        """Start the first; start the second too, if after ``delay_s`` nothing has begun and it is ``allowed``.

        Without a ``delay_s`` there is no second.

        Returns:
            What the winner returned; None when there is none.

        Raises:
            Exception: what an attempt raised, when no other has replied.
        """
        async with asyncio.TaskGroup() as group:
            self._tasks.append(group.create_task(self._attempt(0, first)))
            try:
                async with asyncio.timeout(delay_s):
                    await self._decided.wait()
            except TimeoutError:
                if allowed():
                    self._tasks.append(group.create_task(self._attempt(1, second)))
        reply = None if self.winner is None else self._results.get(self.winner)
        if reply is None and self._errors:
            raise self._errors[0]
        return reply

    async def _attempt(self, number: int, attempt: Callable[[Tell], Awaitable[Result | None]]) -> None:
        try:
            result = await attempt(functools.partial(self._piece, number))
        except Exception as error:
            # Kept, not raised: the group would cancel the other attempt, which may still reply.
            self._errors.append(error)
            self._decided.set()
            return
        self._results[number] = result
        if result is not None:
            self._won(number)
        self._decided.set()

    def _piece(self, number: int, piece: Delta) -> None:
        self._won(number)
        if self._tell is not None and self.winner == number:
            self._tell(piece)

    def _won(self, number: int) -> None:
        if self.winner is not None:
            return
        self.winner = number
        self._decided.set()
        for other, task in enumerate(self._tasks):
            if other != number:
                task.cancel()
