"""One attempt at a code rung, from its hold to its settle. May import budget and everything below, rung, scope."""

from __future__ import annotations

import asyncio

from agentflow.budget.hold import Hold
from agentflow.budget.money import format_usd
from agentflow.budget.spend import Spend
from agentflow.cascade.rung import Answer, CodeRung
from agentflow.cascade.scope import CallScope
from agentflow.errors import UsageError
from agentflow.messages import Request


async def compute(rung: CodeRung, request: Request, hold: Hold, key: str, scope: CallScope) -> tuple[Answer, Spend]:
    """Run a code rung under a hold that the ledger knows by ``key``.

    Returns:
        Its answer, and what it used; the spend is recorded.

    Raises:
        UsageError: it spent more than it declared.
        LedgerError: its spend could not be recorded.
    """
    started = asyncio.get_running_loop().time()
    try:
        answer, spend = await rung.run(request)
    except BaseException:
        await _end_failed(rung, hold, key, scope, asyncio.get_running_loop().time() - started)
        raise
    hold.settle(spend)
    await scope.ledger.close(key, "settled", spend=spend)
    _refuse_undeclared(rung, spend)
    return answer, spend


async def _end_failed(rung: CodeRung, hold: Hold, key: str, scope: CallScope, seconds: float) -> None:
    """Code that may pay someone is charged at its worst; what only computes, for the time it took."""
    if rung.pays:
        spend = Spend.at_worst(hold.quote, seconds=seconds)
        hold.settle(spend)
        await scope.ledger.close(key, "in_doubt", spend=spend)
    else:
        spend = rung.computed(seconds)
        hold.settle(spend)
        await scope.ledger.close(key, "settled", spend=spend)


def _refuse_undeclared(rung: CodeRung, spend: Spend) -> None:
    """Code that spends more than it declared was not held for it: the next one would slip under a limit as well."""
    if spend.nano_usd > rung.worst.nano_usd or spend.tokens > rung.worst.tokens:
        raise UsageError(
            f"The code rung '{rung.name}' spent {spend.tokens:,} tokens and {format_usd(spend.nano_usd)}, and declared "
            f"at most {rung.worst.tokens:,} and {format_usd(rung.worst.nano_usd)}. It is charged. State its worst case."
        )
