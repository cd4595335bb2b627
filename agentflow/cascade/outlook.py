"""A rung before it is asked: what an attempt is expected to cost, and whether it may be tried.

May import rung, scope and everything below the cascade. ``climb`` shows it to the policy.
"""

from __future__ import annotations

from agentflow.budget.currency import MICRO
from agentflow.budget.money import NANO
from agentflow.budget.spend import Quote
from agentflow.cascade.routing.state import Expected, RungFacts
from agentflow.cascade.rung import CodeRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.messages import Request


def outlook(rung: Rung, request: Request, scope: CallScope, *, open: bool, priced: bool) -> RungFacts:
    """What a policy is told of a rung.

    Args:
        rung: the rung.
        request: what it would be asked.
        scope: whose budgets it would be paid from.
        open: it was not tried, and nothing refused it.
        priced: find out what it costs; counting a prompt takes time, so only when the policy will look at it.
    """
    if not priced:
        return RungFacts(rung.name, open=open)
    quote = rung.quote() if isinstance(rung, CodeRung) else rung.quote(request)
    return RungFacts(rung.name, _expected(quote), open=open, dearness=scope.meter.dearness(quote))


def _expected(quote: Quote) -> Expected:
    return Expected(quote.nano_usd / NANO, quote.microjoules / MICRO)
