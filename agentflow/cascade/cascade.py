"""Cascade: ordered rungs, cheapest first, climbed only when the evidence says that a reply is not good enough.

May import everything on the floors below. Next: ``climb`` (one call on its way), ``policy``; ``chain`` calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from agentflow.budget.spend import Spend
from agentflow.cascade.capabilities import lack, not_served
from agentflow.cascade.checks import Check, output_schema
from agentflow.cascade.climb import Climb
from agentflow.cascade.escalations import Lesson
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Attempt, Reply
from agentflow.cascade.reusing import reused_or_climbed
from agentflow.cascade.rung import CodeRung, ModelRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.errors import CallFailed
from agentflow.messages import Delta, Request

Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class Cascade:
    """An ordered set of rungs and the policy that climbs them.

    Args:
        name: as the configuration calls it.
        rungs: cheapest first.
        policy: when to stop, how often to repair.
        timeout_s: seconds that a call may take altogether, over all rungs and repairs; None is unlimited.
    """

    name: str
    rungs: tuple[Rung, ...]
    policy: Policy = field(default_factory=Policy)
    timeout_s: float | None = None

    async def run(
        self,
        request: Request,
        scope: CallScope,
        output: type[Output],
        checks: tuple[Check, ...] = (),
        tell: Callable[[Delta], None] | None = None,
    ) -> Reply[Output]:
        """Climb until a reply is good enough.

        Args:
            request: the question; its ``timeout_s`` bounds the whole call.
            scope: where its costs go.
            output: the type of the reply.
            checks: judges of the reply.
            tell: told of the served reply's text as it comes, or when it is decided.

        Returns:
            The first good reply; when none is, the most confident valid one.

        Raises:
            BudgetExceeded: no valid reply, and at least one rung was refused.
            CallFailed: every rung was tried and none gave a valid reply.
            ContextOverflow: the prompt is too long for every model; nothing was sent.
            LedgerError: an attempt could not be recorded; it was not sent.
            NotServed: no model can serve what the request needs; nothing was sent.
        """
        if request.schema is None and output is not str:
            request = replace(request, schema=output_schema(output))
        rungs, skipped = self._able(request, scope)
        for attempt in skipped:
            scope.observe(attempt)
        if self.timeout_s is not None:
            request = replace(request, timeout_s=min(request.timeout_s or self.timeout_s, self.timeout_s))
        climb = Climb(self.name, rungs, self.policy, scope, output, checks, tell, skipped)
        try:
            if scope.reuse is None:
                reply = await climb.run(request)
            else:
                reply = await reused_or_climbed(climb, request, scope.reuse)
        except CallFailed:
            if skipped and all(attempt.kind == "code" for attempt in climb.trail.attempts[len(skipped) :]):
                raise not_served(self.name, [(attempt.rung, attempt.reason) for attempt in skipped]) from None
            raise
        log = scope.services.escalations
        if log is not None and (lesson := Lesson.of(climb.trail.attempts, reply)) is not None:
            await log.note(scope.key, replace(scope.labels, cascade=self.name), request, reply, lesson)
        return reply

    def _able(self, request: Request, scope: CallScope) -> tuple[tuple[Rung, ...], tuple[Attempt, ...]]:
        """The rungs that can and may serve a request, where they will; the others as the trail tells of them."""
        able: list[Rung] = []
        skipped: list[Attempt] = []
        for rung in self.rungs:
            if isinstance(rung, CodeRung):
                able.append(rung)
                continue
            placed, reason = self._placed(rung, request, scope)
            if reason:
                skipped.append(Attempt(rung.name, "model", len(skipped) + 1, "skipped", Spend(), reason=reason))
            else:
                able.append(self._hedged(placed, rung, request, scope))
        return tuple(able), tuple(skipped)

    def _placed(self, rung: ModelRung, request: Request, scope: CallScope) -> tuple[ModelRung, str]:
        """A model where it will serve a request; or why it cannot, or may not."""
        placed, reason = scope.services.placement.place(rung, request, scope.residency)
        return placed, reason or lack(placed, request, self.policy.min_output)

    def _hedged(self, placed: ModelRung, rung: ModelRung, request: Request, scope: CallScope) -> ModelRung:
        """The same model; a second attempt goes to another one only where that one can and may serve as well."""
        if rung.hedge_with is None:
            return placed
        other, reason = self._placed(rung.hedge_with, request, scope)
        return replace(placed, hedge_with=None if reason else other)
