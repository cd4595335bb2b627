"""What a meter tells those who listen: warnings, overruns, and questions that a person can answer. Imports budget."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from agentflow.budget.budget import Budget
from agentflow.errors import Refusal, UsageError

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
    """Calls that do not fit wait here for a person: raise the limit, or decline. When nobody waits, it is declined.

    Args:
        refusal: which limit lacks what, in words and figures.
        limits: the budget that refused, as it is now.
        give: gives the node other limits.
        ask: who is asked; None when whoever hears of it may answer.
    """

    def __init__(
        self, refusal: Refusal, limits: Budget, give: Callable[[Budget], None], ask: Ask | None = None
    ) -> None:
        self.refusal = refusal
        self.limits = limits
        self._give = give
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None
        self._waiting = 0
        self._taken = threading.Lock()
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
        if limits.per not in (None, self.limits.per):
            raise UsageError(f"The budget that refused is for each {self.limits.per}, not for each {limits.per}.")
        if not self.answered and self._taken.acquire(blocking=False):
            self._give(self.limits.with_limits(limits))
            self.resolve(raised=True)

    def decline(self) -> None:
        """Leave the limit as it is: the calls are refused."""
        self.resolve(raised=False)

    def resolve(self, *, raised: bool) -> None:
        """Let those who wait go on."""
        try:
            self._future.set_result(raised)
        except concurrent.futures.InvalidStateError:
            return

    async def wait(self) -> bool:
        """Whether the limit was raised, once someone has answered. The first who waits asks on behalf of all."""
        self._waiting += 1
        if self._asking is None and self._ask is not None:
            # Of the question, not of the call that came first: that may be cancelled while others wait on.
            self._asking = asyncio.create_task(self._consult(self._ask))
        try:
            return await asyncio.shield(asyncio.wrap_future(self._future))
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.decline()
                if self._asking is not None:
                    self._asking.cancel()

    async def _consult(self, ask: Ask) -> None:
        try:
            raised = await ask(self)
            if raised is not None:
                self.answer(raised)
        finally:
            self.decline()


Listener = Callable[[BudgetEvent], None]
Ask = Callable[[Question], Awaitable[Budget | None]]
