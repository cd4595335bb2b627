"""Where a call's costs go, and how an attempt gets its room: the budget tree first, then the ledger.

May import budget and everything below, rung. ``cascade`` climbs with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from agentflow.budget.admission import Admission, Strict
from agentflow.budget.hold import Hold
from agentflow.budget.ledger import Labels, Ledger, Opening
from agentflow.budget.meter import Meter
from agentflow.budget.spend import Quote
from agentflow.cascade.cache import Reusing
from agentflow.cascade.placement import Residency
from agentflow.cascade.reply import Attempt
from agentflow.cascade.rung import ModelRung
from agentflow.cascade.services import Services
from agentflow.cascade.warmth import Warmth
from agentflow.errors import BudgetExceeded
from agentflow.messages import Request

# How often a request is shortened to what the ledger has left, while other processes spend from it.
_REFITS: Final = 3
Reserved = TypeVar("Reserved")


@dataclass(frozen=True, slots=True)
class CallScope:
    """Where a call's costs go: the meter node, the ledger, the key and labels under which it is recorded.

    ``final`` marks a last call, which may use what budgets keep for a landing. ``admission`` says how much of a
    reply is held, ``warmth`` which prompts the chain's models have read lately. ``repeats`` says that an earlier run
    may have made the same calls. ``reuse`` is set when the call may be given a reply that an earlier one was given,
    ``services`` is what it shares with other chains, ``residency`` where it may be served.
    """

    meter: Meter
    ledger: Ledger
    key: str
    observe: Callable[[Attempt], None]
    labels: Labels = field(default_factory=Labels)
    final: bool = False
    admission: Admission = field(default_factory=Strict)
    warmth: Warmth = field(default_factory=Warmth)
    reuse: Reusing | None = None
    services: Services = field(default_factory=Services)
    residency: Residency = ()
    repeats: bool = True

    async def reserve(self, quote: Quote, key: str, labels: Labels) -> Hold | None:
        """Reserve what an attempt may cost, and record it; ask for more where the budget says so.

        Returns:
            Its hold; None when the attempt is recorded already, and must not be made again.

        Raises:
            BudgetExceeded: there is no room, here or in what other processes have left, and nobody raised the limit.
            LedgerError: it cannot be recorded.
        """
        return await self.asking(lambda: self._reserve(quote, key, labels))

    async def reserve_reply(
        self, rung: ModelRung, request: Request, key: str, least: int, labels: Labels
    ) -> tuple[Request, Hold] | None:
        """Reserve an attempt at a model, its reply shortened to what is left. Nobody is asked for more: see ``asking``.

        Args:
            rung: the model.
            request: what would be sent with room enough.
            key: the attempt's.
            least: tokens below which a reply is not worth asking for.
            labels: whose attempt it is.

        Returns:
            The request as it is to be sent, and its hold; None when the attempt is recorded already.

        Raises:
            BudgetExceeded: not even ``least`` tokens fit.
            LedgerError: it cannot be recorded.
        """
        expected = self.admission.expected(rung.name, labels.call)
        room = self.meter.room(final=self.final)
        refits = 0
        while True:
            fitted, quote = rung.fit(request, room, least, expected, key)
            try:
                hold = await self._reserve(quote, key, labels)
                return None if hold is None else (fitted, hold)
            except BudgetExceeded as refused:
                currency, left = refused.refusal.currency, refused.refusal.left
                known = room.of_currency(currency)
                # The tree knew of this room when the request was fitted: another process must have taken it.
                if refits == _REFITS or left <= 0 or (known is not None and left >= known):
                    raise
                refits += 1
                room = self.meter.room(final=self.final).at_most(currency, left)

    async def asking(self, reserve: Callable[[], Awaitable[Reserved]]) -> Reserved:
        """Try again as long as somebody raises the limit that refused.

        Raises:
            BudgetExceeded: nobody did.
        """
        while True:
            raises = self.meter.raises.count
            try:
                return await reserve()
            except BudgetExceeded as refused:
                # While this was refused, somebody may have answered another call's question.
                if raises == self.meter.raises.count and not await self.meter.appeal(refused):
                    raise

    async def _reserve(self, quote: Quote, key: str, labels: Labels) -> Hold | None:
        await self._tell_raised()
        meter = self.meter
        hold = meter.hold(quote, final=self.final)
        try:
            opening = Opening(key, meter.path, quote, meter.recorded_limits, labels, meter.clocks)
            entry = await self.ledger.open(opening)
        except BaseException:
            hold.release()
            raise
        if entry.state != "held":
            hold.release()
            return None
        return hold

    async def _tell_raised(self) -> None:
        """Tell the ledger of limits that were changed in this process."""
        raised = self.meter.raises.take()
        try:
            for id in tuple(raised):
                await self.ledger.set_limits(id, raised[id])
                del raised[id]
        finally:
            if raised:
                self.meter.raises.put_back(raised)
