"""One attempt at a model, from its hold to its settle. May import budget, backends and everything below, rung, scope.

However an attempt ends, its hold ends with it: settled by what the reply used, released when nothing was sent, charged
at its worst when nobody can know. ``climb`` sends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from agentflow.budget.hold import Hold
from agentflow.budget.spend import Quote, Spend
from agentflow.cascade.rung import DELIVERY_S, ModelRung
from agentflow.cascade.scope import CallScope
from agentflow.errors import BackendError, BackendTimeout, BadReply, UsageError
from agentflow.messages import Completion, Delta, Request


class SendFailed(Exception):
    """An attempt that ended without a reply, and what it is charged."""

    def __init__(self, error: BackendError, spend: Spend) -> None:
        super().__init__(str(error))
        self.error = error
        self.spend = spend


async def send(
    rung: ModelRung,
    request: Request,
    hold: Hold,
    key: str,
    scope: CallScope,
    tell: Callable[[Delta], None] | None = None,
) -> tuple[Completion, Spend]:
    """Ask the model under a hold that the ledger knows by ``key``.

    Args:
        rung: the model.
        request: as it was fitted to the hold.
        hold: what the attempt may use.
        key: the attempt's, in the ledger.
        scope: where its costs go.
        tell: told of each piece of the reply as it comes.

    Returns:
        The reply, and what it used; both are recorded.

    Raises:
        SendFailed: there is no reply; it says what that is charged.
        LedgerError: the reply could not be recorded.
    """
    with hold:
        started = asyncio.get_running_loop().time()
        left = scope.meter.room(final=scope.final).seconds
        if left is not None:
            left = max(left - DELIVERY_S, 0.0)
            request = replace(request, timeout_s=min(left, request.timeout_s or left))
        try:
            async with asyncio.timeout(request.timeout_s):
                completion = await rung.backend.complete(rung.model, request, tell)
            spend = _believable_spend(rung, completion)
        except BaseException as error:
            seconds = asyncio.get_running_loop().time() - started
            failure = _backend_error(error, rung, request)
            if failure is not None and not failure.sent:
                hold.release()
                await scope.ledger.close(key, "released")
                raise SendFailed(failure, Spend(seconds=seconds)) from error
            reply = min(request.max_output_tokens or rung.default_output, hold.quote.tokens)
            worst = Spend.at_worst(hold.quote, reply, seconds)
            hold.settle(worst)
            await scope.ledger.close(key, "in_doubt", spend=worst)
            if failure is None:
                raise
            raise SendFailed(failure, worst) from error
        hold.settle(spend)
        first_token_s = completion.timings.first_token_s
        await scope.ledger.close(key, "settled", spend=spend, completion=completion, first_token_s=first_token_s)
        return completion, spend


def _backend_error(error: BaseException, rung: ModelRung, request: Request) -> BackendError | None:
    """The backend's failure behind an exception; None for a cancellation or a defect, which pass through."""
    if isinstance(error, BackendError):
        return error
    if isinstance(error, TimeoutError):
        return BackendTimeout(
            f"'{rung.name}' gave no whole reply within {request.timeout_s:.3g} s. "
            "Raise its timeout_s or the budget's seconds."
        )
    return None


def _believable_spend(rung: ModelRung, completion: Completion) -> Spend:
    """What a reply used; a server whose counts cannot be is charged for all that was held.

    Raises:
        BadReply: the reply's own figures cannot be.
    """
    try:
        spend = rung.spend(completion)
        Quote(*spend.amounts[:3], micrograms=spend.amounts[3])
        return spend
    except UsageError as error:
        raise BadReply(
            f"'{rung.name}' sent figures that cannot be: {error} It is charged at its worst case."
        ) from error
