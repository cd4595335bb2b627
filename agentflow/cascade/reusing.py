"""A call that may be given an earlier reply: look, else climb, and keep what was accepted.

Equal calls at the same time wait for the first of them. May import climb and all below. ``cascade`` calls it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from agentflow.budget.ledger import Labels
from agentflow.budget.ledger.base import REUSE
from agentflow.budget.spend import Quote, Spend
from agentflow.cascade.cache import Reusing, age_text, key_of
from agentflow.cascade.climb import Climb
from agentflow.cascade.reply import Attempt, Reply
from agentflow.cascade.reply_file import KeptReply
from agentflow.cascade.rung import ModelRung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.semantic_cache import look_alike
from agentflow.messages import Completion, Delta, Request
from agentflow.telemetry import tracing


async def reused_or_climbed(climb: Climb, request: Request, reusing: Reusing) -> Reply[Any]:
    """The reply that an earlier call was given, at no cost, or a new one.

    Raises:
        BudgetExceeded, CallFailed, LedgerError: as ``Cascade.run`` says.
    """
    scope = reusing.scope(climb.rungs, climb.policy, climb.checks)
    key = key_of(scope, request)
    left_s = _left_s(climb.scope, request)
    began = asyncio.get_running_loop().time()
    # Whoever is asked in the end needs time of its own.
    async with reusing.cache.alone(key, None if left_s is None else left_s / 2.0):
        reply, known = await _given_again(climb, request, reusing, await _kept(climb, reusing, key)), None
        if reply is None:
            known = await look_alike(climb, request, reusing, scope)
            if known is not None and known.kept is not None:
                reply = await _given_again(climb, request, reusing, known.kept, known.cosine)
        tracing.reuse_looked_up(climb.cascade, hit=reply is not None)
        if reply is not None:
            return reply
        if request.timeout_s is not None:
            passed_s = asyncio.get_running_loop().time() - began
            request = replace(request, timeout_s=max(request.timeout_s - passed_s, 0.0))
        reply = await climb.run(request)
        accepted = any(
            a.rung == reply.rung and a.outcome == "accepted" and not a.replayed for a in climb.trail.attempts
        )
        if accepted and reply.completion is not None:
            await reusing.keep(key, reply.rung, reply.completion, known and known.likeness)
        return reply


def _left_s(scope: CallScope, request: Request) -> float | None:
    """Seconds until the call must be over; None when nothing says so."""
    return min((s for s in (request.timeout_s, scope.meter.seconds_left) if s is not None), default=None)


async def _kept(climb: Climb, reusing: Reusing, key: str) -> KeptReply | None:
    """What an earlier run of the job was given, else what is kept under the key."""
    before = await climb.scope.ledger.find(_entry(climb), replay=True) if climb.scope.repeats else None
    if before is not None and before.completion is not None:
        return KeptReply("", before.labels.rung, before.completion, before.opened_ms / 1000)
    return await reusing.find(key)


def _entry(climb: Climb) -> str:
    return f"{climb.scope.key}|reuse"


async def _given_again(
    climb: Climb, request: Request, reusing: Reusing, kept: KeptReply | None, cosine: float | None = None
) -> Reply[Any] | None:
    """The kept reply, if there is one that is still valid by the very checks of this call."""
    scope, entry = climb.scope, _entry(climb)
    models = {rung.name: rung for rung in climb.rungs if isinstance(rung, ModelRung)}
    if kept is None or kept.rung not in models:
        return None
    value, verdict = climb.judge(request, kept.completion)
    if not verdict.valid:
        return None
    await _record(scope, entry, climb.cascade, models[kept.rung], kept.completion)
    scope.ledger.judge(entry, "accepted", verdict.confidence)
    attempt = Attempt(
        kept.rung, "model", climb.trail.number, "accepted", Spend(), verdict.confidence,
        _reason(reusing.cache.now() - kept.at_s, cosine), replayed=not kept.key, reused=True,
    )  # fmt: skip
    scope.observe(attempt)
    if climb.listener is not None:
        climb.listener(Delta(str(value)))
    trail = (*climb.trail.attempts, attempt)
    return Reply(value, kept.completion.text, kept.rung, "model", verdict.confidence, trail, completion=kept.completion)


def _reason(age_s: float, cosine: float | None) -> str:
    alike = "" if cosine is None else f" for a question like it (cosine {cosine:.3f})"
    return f"given again{alike}, from {age_text(age_s)} ago"


async def _record(scope: CallScope, key: str, cascade: str, rung: ModelRung, completion: Completion) -> None:
    """An entry of no cost: reports count it, and a repeated run is given this reply."""
    labels: Labels = replace(scope.labels, cascade=cascade, rung=rung.name, kind=REUSE, model=rung.model)
    hold = await scope.reserve(Quote(calls=0), key, labels)
    if hold is not None:
        with hold:
            hold.settle(Spend())
            await scope.ledger.close(key, "settled", spend=Spend(), completion=completion)
