"""What a meter tells those who listen: warnings, overruns, and questions that a person can answer. Imports budget."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from agentflow.budget.budget import Budget
from agentflow.errors import Refusal

EventKind = Literal["warning", "overrun", "closed", "asked", "raised"]


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """Something that happened to a node's budget.

    ``warning``: the warning share of a limit is spent. ``overrun``: a reply cost more than was held for it, and was
    recorded in full. ``closed``: the node grants no further holds because of it. ``asked``: a call waits for
    ``question`` to be answered. ``raised``: the node has other limits.
    """

    kind: EventKind
    node: str
    message: str
    currency: str = ""
    question: Question | None = None


class Question:
    """A call that does not fit, and waits for a person: raise the limit, or decline.

    Args:
        refusal: which limit lacks what, in words and figures.
        limits: the budget that refused, as it is now.
        give: gives the node other limits, and resolves its questions.
    """

    __slots__ = ("_future", "_give", "limits", "refusal")

    def __init__(self, refusal: Refusal, limits: Budget, give: Callable[[Budget], None]) -> None:
        self.refusal = refusal
        self.limits = limits
        self._give = give
        self._future: concurrent.futures.Future[bool] = concurrent.futures.Future()

    @property
    def answered(self) -> bool:
        """Whether someone has answered."""
        return self._future.done()

    def answer(self, limits: Budget) -> None:
        """Raise: every limit that ``limits`` gives replaces the budget's own. From any thread; the first answer counts.

        Raises:
            UsageError: ``limits`` is for another period than the budget that refused.
        """
        if not self.answered:
            self._give(self.limits.with_limits(limits))
            self.resolve(raised=True)

    def decline(self) -> None:
        """Leave the limit as it is: the call is refused."""
        self.resolve(raised=False)

    def resolve(self, *, raised: bool) -> None:
        """Let those who wait go on."""
        if not self._future.done():
            self._future.set_result(raised)

    async def wait(self) -> bool:
        """Whether the limit was raised, once someone has answered."""
        return await asyncio.shield(asyncio.wrap_future(self._future))


Listener = Callable[[BudgetEvent], None]
Ask = Callable[[Question], Awaitable[Budget | None]]
