"""Cascade: ordered rungs, cheapest first, climbed only when the evidence says that a reply is not good enough.

May import everything on the floors below. Next: ``climb`` (one call on its way), ``policy``; ``chain`` calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from agentflow.cascade.checks import Check
from agentflow.cascade.climb import Climb
from agentflow.cascade.policy import Policy
from agentflow.cascade.reply import Reply
from agentflow.cascade.rung import Rung
from agentflow.cascade.scope import CallScope
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
            LedgerError: an attempt could not be recorded; it was not sent.
        """
        if self.timeout_s is not None:
            request = replace(request, timeout_s=min(request.timeout_s or self.timeout_s, self.timeout_s))
        return await Climb(self.name, self.rungs, self.policy, scope, output, checks, tell).run(request)
