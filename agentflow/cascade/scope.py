"""Where a call's costs go, and how an attempt gets its room: the budget tree first, then the ledger.

May import budget and everything below, rung. ``cascade`` climbs with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agentflow.budget.admission import Admission, Strict
from agentflow.budget.hold import Hold
from agentflow.budget.ledger import Labels, Ledger, Opening
from agentflow.budget.meter import Meter
from agentflow.budget.spend import Quote
from agentflow.cascade.reply import Attempt
from agentflow.cascade.rung import ModelRung
from agentflow.errors import BudgetExceeded
from agentflow.messages import Request

# How often a request is shortened to what the ledger has left, while other processes spend from it.
_REFITS: Final = 3


@dataclass(frozen=True, slots=True)
class CallScope:
    """Where a call's costs go: the meter node, the ledger, the key and labels under which it is recorded.

    ``final`` marks a last call, which may use what budgets keep for a landing. ``admission`` says how much of a
    reply is held.
    """

    meter: Meter
    ledger: Ledger
    key: str
    observe: Callable[[Attempt], None]
    labels: Labels = field(default_factory=Labels)
    final: bool = False
    admission: Admission = field(default_factory=Strict)

    async def reserve(self, quote: Quote, key: str, labels: Labels) -> Hold:
        """Hold a quote in the budget tree and record it; both, or neither.

        Raises:
            BudgetExceeded: there is no room, here or in what other processes have left.
            LedgerError: it cannot be recorded.
        """
        hold = self.meter.hold(quote, final=self.final)
        try:
            await self.ledger.open(
                Opening(key, self.meter.path, quote, self.meter.recorded_limits, labels, self.meter.clocks)
            )
        except BaseException:
            hold.release()
            raise
        return hold

    async def reserve_reply(
        self, rung: ModelRung, request: Request, key: str, least: int, labels: Labels
    ) -> tuple[Request, Hold]:
        """Reserve an attempt at a model, its reply shortened to what is left; ask for more where the budget says so.

        Args:
            rung: the model.
            request: what would be sent with room enough.
            key: the attempt's.
            least: tokens below which a reply is not worth asking for.
            labels: whose attempt it is.

        Returns:
            The request as it is to be sent, and its hold.

        Raises:
            BudgetExceeded: not even ``least`` tokens fit, and nobody raised the limit.
            LedgerError: it cannot be recorded.
        """
        while True:
            try:
                return await self._fitted(rung, request, key, least, labels)
            except BudgetExceeded as refused:
                if not await self.appeal(refused):
                    raise

    async def appeal(self, refused: BudgetExceeded) -> bool:
        """Ask whether the limit may be raised, and tell the ledger when it was."""
        if not await self.meter.appeal(refused):
            return False
        for id, limits in self.meter.recorded_limits:
            known = await self.ledger.account(id)
            if known is not None and known.account.limits != limits:
                await self.ledger.set_limits(id, limits)
        return True

    async def _fitted(
        self, rung: ModelRung, request: Request, key: str, least: int, labels: Labels
    ) -> tuple[Request, Hold]:
        room = self.meter.room(final=self.final)
        refits = 0
        while True:
            fitted = rung.fit(request, room, least, self._expected(rung, labels))
            try:
                quote = rung.quote(fitted, self._expected(rung, labels))
                return fitted, await self.reserve(quote, key, labels)
            except BudgetExceeded as refused:
                currency, left = refused.refusal.currency, refused.refusal.left
                known = room.of_currency(currency)
                # The tree knew of this room when the request was fitted: another process must have taken it.
                if refits == _REFITS or left <= 0 or (known is not None and left >= known):
                    raise
                refits += 1
                room = self.meter.room(final=self.final).at_most(currency, left)

    def _expected(self, rung: ModelRung, labels: Labels) -> int | None:
        return self.admission.expected(rung.name, labels.call)
