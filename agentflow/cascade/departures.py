"""Departures: how an attempt gets to leave: in time for the deadline, in its turn, with room in the budget, in order.

Who stands in line holds no budget meanwhile. May import scope, lane, rung, sending. ``climb`` sends what may leave.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from agentflow.budget.ledger import Labels
from agentflow.cascade.lane import NoTurn
from agentflow.cascade.rung import DELIVERY_S, LEAST_S, ModelRung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.sending import Sending, abandon
from agentflow.errors import AgentflowError
from agentflow.messages import Request


@dataclass(slots=True)
class Departures:
    """What the attempts of one call keep to before they leave.

    Args:
        scope: where the call's costs go.
        least: tokens below which a reply is not worth asking for.
        ends_at: the call's deadline, on the event loop's clock; None without one.
    """

    scope: CallScope
    least: int
    ends_at: float | None = None

    def within(self, timeout_s: float | None) -> None:
        """Set the deadline, from now."""
        if timeout_s is not None:
            self.ends_at = asyncio.get_running_loop().time() + timeout_s

    async def reserve(
        self, rung: ModelRung, request: Request, key: str, labels: Labels, *, others: bool
    ) -> Sending | None:
        """Wait for a turn, then reserve what the attempt may cost. Nobody is asked for more budget here.

        Args:
            rung: the model.
            request: what would be sent with room enough.
            key: the attempt's, in the ledger.
            labels: whose attempt it is.
            others: another rung may be asked instead, and needs time of its own: at most half of it is waited here.

        Returns:
            The attempt, ready to leave; None when it is recorded already.

        Raises:
            NoTurn: it cannot be sent, or could not end, in time.
            BudgetExceeded, LedgerError: as ``CallScope.reserve_reply``.
        """
        left_s = self._left_s()
        least_s = self._least_s(rung, request, left_s)
        wait_s = rung.timeout_s if left_s is None else (left_s - least_s) * (0.5 if others else 1.0)
        # A policy asks for a rung that is down when nothing else is left.
        down = rung.lane.breaker.health == "open"
        turn = await rung.lane.turn(self._tokens(rung, request, labels), wait_s, anyway=down)
        try:
            reserved = await self.scope.reserve_reply(rung, self._timed(request), key, self.least, labels)
        except BaseException:
            turn.end()
            raise
        if reserved is None:
            turn.end()
            return None
        return Sending(rung, *reserved, key, turn)

    async def reserve_hedge(
        self, rung: ModelRung, request: Request, key: str, labels: Labels, first: Sending
    ) -> Sending | None:
        """A second attempt beside ``first``, if it can leave at once, and with as long a reply; else None."""
        try:
            turn = await rung.lane.turn(self._tokens(rung, request, labels), 0.0)
        except NoTurn:
            return None
        most = first.request.max_output_tokens
        timed = self._timed(replace(request, max_output_tokens=most))
        try:
            reserved = await self.scope.reserve_reply(rung, timed, key, self.least, labels)
        except AgentflowError:
            # No room, no ledger: a hedge is never worth failing for.
            reserved = None
        except BaseException:
            turn.end()
            raise
        if reserved is None:
            turn.end()
            return None
        second = Sending(rung, *reserved, key, turn, hedge=True)
        if second.request.max_output_tokens != most:
            await abandon(second, self.scope)
            return None
        return second

    def _timed(self, request: Request) -> Request:
        """The request with the time that is left for it now."""
        left_s = self._until_deadline_s()
        return request if left_s is None else replace(request, timeout_s=left_s)

    def _until_deadline_s(self) -> float | None:
        return None if self.ends_at is None else max(self.ends_at - asyncio.get_running_loop().time(), 0.0)

    def _left_s(self) -> float | None:
        """Seconds until the call's deadline or the end of a budget's seconds, whichever is sooner."""
        room_s, left_s = self.scope.meter.room(final=self.scope.final).seconds, self._until_deadline_s()
        if room_s is None:
            return left_s
        room_s = max(room_s - DELIVERY_S, 0.0)
        return room_s if left_s is None else min(room_s, left_s)

    def _least_s(self, rung: ModelRung, request: Request, left_s: float | None) -> float:
        """Seconds that the attempt needs at least.

        Raises:
            NoTurn: that is more than is left.
        """
        if left_s is None:
            return LEAST_S
        usual_s = rung.lane.expected_s(request.max_output_tokens or rung.default_output) or 0.0
        least_s = max(usual_s, LEAST_S)
        # Too few seconds for any attempt at all are refused by the budget whose seconds they are, which says so better.
        if left_s < least_s and (usual_s > LEAST_S or self.ends_at is not None):
            raise NoTurn(f"it takes about {least_s:.2g} s, and {left_s:.2g} s are left")
        return min(least_s, left_s)

    def _tokens(self, rung: ModelRung, request: Request, labels: Labels) -> int:
        """What the attempt may use, where a rate of tokens is kept."""
        if not rung.lane.weighs_tokens:
            return 0
        most = request.max_output_tokens or rung.default_output
        expected = self.scope.admission.expected(rung.name, labels.call)
        return rung.counter.prompt(request) + (most if expected is None else min(expected, most))
