"""One attempt at a model, from its hold to its settle. May import budget, backends and everything below, rung, scope.

However an attempt ends, its hold ends with it: settled by what the reply used, released when nothing was sent, charged
at its worst when nobody can know. ``climb`` sends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agentflow.budget.hold import Hold
from agentflow.budget.spend import Quote, Spend
from agentflow.cascade.lane import Turn
from agentflow.cascade.rung import DELIVERY_S, ModelRung
from agentflow.cascade.scope import CallScope
from agentflow.errors import BackendError, BackendTimeout, BadReply, UsageError
from agentflow.messages import Completion, Delta, Request


class SendFailed(Exception):
    """An attempt that ended without a reply; ``error`` says why."""

    def __init__(self, error: BackendError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class Sending:
    """An attempt that may leave: its turn has come, and its room is reserved.

    Args:
        rung: the model.
        request: as it was fitted to the hold.
        hold: what the attempt may use.
        key: the attempt's, in the ledger.
        turn: its place in the rung's lane.
        hedge: it goes beside an attempt that is late.
        spend: what it used; zero until it has ended.
    """

    rung: ModelRung
    request: Request
    hold: Hold
    key: str
    turn: Turn
    hedge: bool = False
    spend: Spend = field(default_factory=Spend)


async def send(sending: Sending, scope: CallScope, tell: Callable[[Delta], None] | None = None) -> Completion:
    """Ask the model. However it ends, ``sending.spend`` is what the attempt is charged.

    Args:
        sending: the attempt.
        scope: where its costs go.
        tell: told of each piece of the reply as it comes.

    Returns:
        The reply; it is recorded.

    Raises:
        SendFailed: there is no reply.
        UsageError: the backend cannot be asked that; nothing was sent.
        LedgerError: the reply could not be recorded.
    """
    rung, request, hold, key, turn = sending.rung, sending.request, sending.hold, sending.key, sending.turn
    with hold, turn:
        started = asyncio.get_running_loop().time()
        left = scope.meter.seconds_left
        if left is not None:
            left = max(left - DELIVERY_S, 0.0)
            request = replace(request, timeout_s=min(left, request.timeout_s or left))
        turn.leaves()
        if tell is not None and rung.lane.hedges is not None:
            tell = turn.watched(tell)
        try:
            async with asyncio.timeout(request.timeout_s):
                completion = await rung.backend.complete(rung.model, request, tell)
            spend = _believable_spend(rung, completion, len(request.images))
        except BaseException as error:
            seconds = asyncio.get_running_loop().time() - started
            failure = _backend_error(error, rung, request)
            if failure is not None:
                turn.failed(failure, cut=request.timeout_s is not None and request.timeout_s < rung.timeout_s)
            # What cannot be asked was not: a file that is no model, a request that a replay does not have.
            if isinstance(error, UsageError) or (failure is not None and not failure.sent):
                sending.spend = Spend(seconds=seconds)
                hold.release()
                await scope.ledger.close(key, "released")
                if failure is None:
                    raise
                raise SendFailed(failure) from error
            reply = min(request.max_output_tokens or rung.default_output, hold.quote.tokens)
            worst = sending.spend = Spend.at_worst(hold.quote, reply, seconds)
            hold.settle(worst)
            await scope.ledger.close(key, "in_doubt", spend=worst)
            if failure is None:
                raise
            raise SendFailed(failure) from error
        turn.replied(completion)
        sending.spend = spend
        hold.settle(spend)
        first_token_s = completion.timings.first_token_s
        # A reply is kept to be given again: what is never repeated leaves its cost alone.
        kept = completion if scope.repeats else None
        await scope.ledger.close(key, "settled", spend=spend, completion=kept, first_token_s=first_token_s)
        return completion


async def abandon(sending: Sending, scope: CallScope) -> None:
    """End an attempt that never left."""
    with sending.hold, sending.turn:
        await scope.ledger.close(sending.key, "released")


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


def _believable_spend(rung: ModelRung, completion: Completion, images: int) -> Spend:
    """What a reply used; a server whose counts cannot be is charged for all that was held.

    Raises:
        BadReply: the reply's own figures cannot be.
    """
    try:
        spend = rung.spend(completion, images)
        Quote(*spend.amounts[:3], micrograms=spend.amounts[3])
        return spend
    except UsageError as error:
        raise BadReply(
            f"'{rung.name}' sent figures that cannot be: {error} It is charged at its worst case."
        ) from error
