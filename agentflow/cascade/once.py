"""Once: code that does something to the world, and must not do it again when a job is run again. Imports scope, trail.

What it gave back is kept in the ledger beside what it cost, as a model's reply is, and a later run gets it from there.
Code that was cut off in the middle is another matter: nobody knows whether the world has changed.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from pydantic import JsonValue

from agentflow.budget.hold import Hold
from agentflow.budget.ledger import Entry
from agentflow.budget.spend import Spend
from agentflow.cascade.reply import Attempt
from agentflow.cascade.rung import CodeRung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.trail import attempt_key
from agentflow.errors import EffectInDoubt, NotDone, UsageError
from agentflow.messages import Completion, Request, Timings


async def once(rung: CodeRung, request: Request, scope: CallScope, *, repeatable: bool = False) -> JsonValue:
    """Run code whose effect is wanted once, over all runs of a job.

    Args:
        rung: the code. Its function gets ``(key, inputs)``, and its answer's value must be JSON.
        request: its ``inputs`` are what the function is given.
        scope: where its cost goes. ``scope.key`` names the effect, and is what the function gets as ``key``.
        repeatable: it bears to be done again when an earlier run was cut off in the middle of it.

    Returns:
        What the function gave back, in this run or an earlier one; None where a person has said that it was done.

    Raises:
        NotDone: the function says so.
        EffectInDoubt: an earlier run was cut off in the middle of it, and it is not ``repeatable``.
        UsageError: it gave back what is no JSON. It was done, and will not be done again.
        BudgetExceeded: the budget has no room for it. It was not done.
        LedgerError: it cannot be recorded. It was not done.
    """
    number = 0
    while True:
        number += 1
        key = attempt_key(scope.key, rung, number)
        labels = replace(scope.labels, rung=rung.name, kind="code")
        entry = await scope.ledger.find(key, replay=True)
        if entry is None or entry.state in ("held", "released"):
            hold = await scope.reserve(rung.quote(), key, labels)
            if hold is not None:
                with hold:
                    return await _do(rung, request, hold, key, number, scope)
            entry = await scope.ledger.find(key, replay=True)
        assert entry is not None, "the ledger has just said that it is recorded"
        if entry.state == "settled" or _was_done(entry):
            scope.observe(Attempt(rung.name, "code", number, "accepted", Spend(), replayed=True))
            return None if entry.completion is None else json.loads(entry.completion.text)
        if entry.state == "in_doubt" and not repeatable:
            raise EffectInDoubt(
                f"'{rung.name}' was begun by an earlier run of this job that was cut off: nobody knows whether it was "
                f"done. Find out, then say so and resume the job: agentflow budget reconcile '{key}' --usd 0 if it "
                "was, --nothing if it was not."
            )


async def _do(rung: CodeRung, request: Request, hold: Hold, key: str, number: int, scope: CallScope) -> JsonValue:
    started = asyncio.get_running_loop().time()
    try:
        answer, spend = await rung.run(replace(request, inputs=(scope.key, request.inputs)))
    except NotDone as error:
        hold.release()
        await scope.ledger.close(key, "released")
        scope.observe(Attempt(rung.name, "code", number, "failed", Spend(), reason=str(error)))
        raise
    except BaseException as error:
        spend = Spend.at_worst(hold.quote, seconds=asyncio.get_running_loop().time() - started)
        hold.settle(spend)
        await scope.ledger.close(key, "in_doubt", spend=spend)
        scope.observe(Attempt(rung.name, "code", number, "failed", spend, reason=type(error).__name__, in_doubt=True))
        raise
    try:
        text, fault = json.dumps(answer.value, allow_nan=False), None
    except (TypeError, ValueError) as error:
        text, fault = "null", error
    hold.settle(spend)
    kept = Completion(text, "", answer.usage, Timings(total_s=spend.seconds))
    await scope.ledger.close(key, "settled", spend=spend, completion=kept)
    scope.ledger.judge(key, "accepted", None)
    scope.observe(Attempt(rung.name, "code", number, "accepted", spend))
    if fault is not None:
        raise UsageError(
            f"'{rung.name}' is done, but what it gave back cannot be kept, for it is no JSON: {fault}. Later runs get "
            "None. Give back text, numbers, lists and dictionaries."
        ) from fault
    return answer.value


def _was_done(entry: Entry) -> bool:
    """Whether a person has said of an effect in doubt that it was done: it cost something then, if only time."""
    return entry.state == "reconciled" and entry.spend != Spend(calls=entry.held.calls)
