"""A rung before it is asked: what an attempt is expected to cost, and whether it may be tried.

May import rung, scope and everything below the cascade. ``climb`` shows it to the policy.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agentflow.budget.currency import MICRO
from agentflow.budget.money import NANO
from agentflow.cascade.routing.state import FREE, Expected, RungFacts
from agentflow.cascade.routing.utility import switch_cost
from agentflow.cascade.rung import CodeRung, ModelRung, Rung
from agentflow.cascade.scope import CallScope
from agentflow.cascade.signals import Signal
from agentflow.energy.facts import CallFacts
from agentflow.messages import Request, TokenUsage

_NOMINAL_PROMPT: Final = 1_000


def outlook(
    rung: Rung, request: Request, scope: CallScope, signal: Signal | None = None, *, open: bool, priced: bool
) -> RungFacts:
    """What a policy is told of a rung.

    Args:
        rung: the rung.
        request: what it would be asked.
        scope: whose budgets it would be paid from.
        signal: what could find out its reply's confidence.
        open: it was not tried, and nothing refused it.
        priced: find out what it costs; counting a prompt takes time, so only when the policy will look at it.
    """
    healthy = isinstance(rung, CodeRung) or rung.lane.breaker.health != "open"
    if not priced:
        asks = None if signal is None or isinstance(rung, CodeRung) else FREE
        return _unpriced(rung.name, asks, healthy, open)
    if isinstance(rung, CodeRung):
        return RungFacts(rung.name, nominal(rung), open=open, dearness=scope.meter.dearness(rung.quote()))
    cached = scope.warmth.cached(rung, request)
    return RungFacts(
        rung.name,
        _expected(rung, request, scope, cached),
        signal=None if signal is None else _of_signal(signal, rung, request, scope),
        p95_s=rung.lane.total.quantile(0.95),
        healthy=healthy,
        open=open,
        dearness=scope.meter.dearness(rung.quote(request)),
        cached_tokens=cached,
    )


@functools.lru_cache(maxsize=1_000)
def _unpriced(name: str, signal: Expected | None, healthy: bool, open: bool) -> RungFacts:
    """The few things that can be said of a rung before it is priced: the same in every call."""
    return RungFacts(name, signal=signal, healthy=healthy, open=open)


def with_return_costs(
    facts: Sequence[RungFacts], rungs: Sequence[Rung], request: Request, scope: CallScope
) -> tuple[RungFacts, ...]:
    """The same facts, with what it costs to come back to a warm rung that would cool down while another answers."""
    return tuple(
        replace(
            fact, return_cost=sum((_lost(other, fact, request, scope) for other in rungs if other is not rung), FREE)
        )
        for fact, rung in zip(facts, rungs, strict=True)
    )


def _lost(warm: Rung, asked: RungFacts, request: Request, scope: CallScope) -> Expected:
    if isinstance(warm, CodeRung):
        return FREE
    cools_in = scope.warmth.cools_in(warm)
    if cools_in is None or asked.cost.seconds <= cools_in:
        return FREE
    cached = scope.warmth.cached(warm, request)
    return switch_cost(_expected(warm, request, scope, cached), _expected(warm, request, scope, 0), calls=1)


def _of_signal(signal: Signal, rung: ModelRung, request: Request, scope: CallScope) -> Expected:
    asked = signal.asks(rung, request)
    return sum((_expected(whom, what, scope, scope.warmth.cached(whom, what)) for whom, what in asked), FREE)


def _expected(rung: ModelRung, request: Request, scope: CallScope, cached: int) -> Expected:
    """What an attempt is expected to use; the worst case is what is held for it, and is another figure."""
    prompt = rung.counter.prompt(request)
    most = request.max_output_tokens or rung.default_output
    reply = min(scope.admission.expected(rung.name, scope.labels.call) or most, most)
    used = _used(rung, TokenUsage(prompt, reply, min(cached, prompt)))
    return replace(used, seconds=rung.lane.expected_s(reply) or 0.0)


def _used(rung: ModelRung, usage: TokenUsage) -> Expected:
    """Dollars and joules of these tokens."""
    return Expected(rung.price.cost(usage) / NANO, rung.profile.estimate(CallFacts(usage)).mean)


def nominal(rung: Rung) -> Expected:
    """What a rung is expected to use where no request is known yet: a prompt of 1,000 tokens, half its usual reply."""
    if isinstance(rung, CodeRung):
        quote = rung.quote()
        return Expected(quote.nano_usd / NANO, quote.microjoules / MICRO)
    return _used(rung, TokenUsage(_NOMINAL_PROMPT, rung.default_output // 2))
