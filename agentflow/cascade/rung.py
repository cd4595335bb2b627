"""Rungs: what a cascade climbs. A code rung is a Python function; a model rung is a backend with a price.

A rung knows the most that an attempt can cost (``quote``) and what it did cost (``spend``). May import
backends, budget, energy, tokens.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from agentflow.backends.base import Backend
from agentflow.budget.meter import Room
from agentflow.budget.prices import Price
from agentflow.budget.spend import Quote, Spend, microjoules
from agentflow.energy.estimate import CallFacts, EnergyProfile
from agentflow.energy.interval import Energy
from agentflow.messages import Completion, Request, Timings, TokenUsage
from agentflow.tokens import TokenCounter

# A request is not sent with less time than this left, and ends this long before a budget's seconds do, so that
# what there is can be delivered in time.
LEAST_S, DELIVERY_S = 0.25, 0.1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a code rung's function returns.

    ``confidence`` is its own estimate that the value is good enough, 0 to 1: below the cascade's ``accept`` a
    dearer rung is asked, and this answer is kept in case it cannot do better. ``usage`` and ``nano_usd`` are
    for functions that pay someone (an embeddings endpoint).
    """

    value: Any
    confidence: float = 1.0
    usage: TokenUsage = field(default_factory=TokenUsage)
    nano_usd: int = 0


@dataclass(frozen=True, slots=True)
class CodeRung:
    """Plain code as a rung: no tokens and no dollars of its own, joules by CPU seconds.

    Args:
        name: as it appears in reports.
        function: takes the request's ``inputs`` and returns an Answer. It may be async.
        profile: joules of CPU seconds.
        max_cpu_s: the CPU seconds it is held for.
        threaded: run a plain function in a worker thread, for work that would block the event loop.
        worst: tokens and dollars it may spend elsewhere.
    """

    name: str
    function: Callable[[Any], Answer | Awaitable[Answer]]
    profile: EnergyProfile
    max_cpu_s: float = 0.5
    threaded: bool = False
    worst: Quote = field(default_factory=Quote)

    def quote(self) -> Quote:
        """The most one run is expected to use."""
        return replace(self.worst, microjoules=microjoules(self.profile.ceiling(0, 0, self.max_cpu_s)))

    async def run(self, request: Request) -> tuple[Answer, Spend]:
        """Run the function, and measure it. CPU seconds are this thread's, or the process's when it is async."""
        started = time.monotonic()
        if self.threaded:
            answer, cpu_s = await asyncio.to_thread(self._timed, request.inputs)
        else:
            answer, cpu_s = self._timed(request.inputs)
        if inspect.isawaitable(answer):
            cpu_started = time.process_time()
            answer = await answer
            cpu_s = time.process_time() - cpu_started
        seconds = time.monotonic() - started
        facts = CallFacts(answer.usage, Timings(total_s=seconds, cpu_s=cpu_s))
        energy = self.profile.estimate(facts)
        return answer, Spend(calls=1, usage=answer.usage, nano_usd=answer.nano_usd, energy=energy, seconds=seconds)

    def _timed(self, inputs: Any) -> tuple[Any, float]:
        started = time.thread_time()
        answer = self.function(inputs)
        return answer, time.thread_time() - started


@dataclass(frozen=True, slots=True)
class ModelRung:
    """A model behind a backend, with the facts that make a call of it predictable.

    Args:
        name: as the configuration calls it.
        backend: what speaks to the model.
        model: the backend's own name of it.
        price: dollars per token; a model without one cannot be a rung.
        profile: joules.
        counter: counts prompts.
        context: tokens that prompt and reply may take together; None when unknown.
        max_output: tokens of a reply when the request does not say, and the most it may ask for.
        timeout_s: the longest one attempt may take.
        logprobs: whether to ask for token probabilities.
    """

    name: str
    backend: Backend
    model: str
    price: Price
    profile: EnergyProfile
    counter: TokenCounter
    context: int | None = None
    max_output: int = 1024
    timeout_s: float = 60.0
    logprobs: bool = False

    def quote(self, request: Request) -> Quote:
        """The worst case of one attempt at ``request`` (its ``max_output_tokens`` and ``timeout_s`` set).

        Of seconds it asks for the least that is worth sending it: the attempt is cut short to what is left.
        """
        prompt = self.counter.prompt_bound(request)
        reply = request.max_output_tokens or self.max_output
        seconds = request.timeout_s or self.timeout_s
        return Quote(
            prompt + reply,
            self.price.ceiling(prompt, reply),
            microjoules(self.profile.ceiling(prompt, reply, seconds)),
            min(seconds, LEAST_S),
        )

    def fit(self, request: Request, room: Room, min_output: int) -> Request:
        """The request as this rung would send it, its reply and time shortened to the room that is left.

        When not even ``min_output`` tokens fit, the request is returned with that many: the hold will refuse
        it and say what lacks.
        """
        asked = min(request.max_output_tokens or self.max_output, self.max_output)
        if self.context is not None:
            asked = min(asked, max(1, self.context - self.counter.prompt(request)))
        left = self.timeout_s if room.seconds is None else min(self.timeout_s, room.seconds)
        timeout_s = left if request.timeout_s is None else min(left, request.timeout_s)
        request = replace(
            request, timeout_s=timeout_s, max_output_tokens=asked, logprobs=request.logprobs or self.logprobs
        )
        if room.fits(self.quote(request)):
            return request
        least, most = min(min_output, asked), asked
        while least < most:
            middle = (least + most + 1) // 2
            if room.fits(self.quote(replace(request, max_output_tokens=middle))):
                least = middle
            else:
                most = middle - 1
        return replace(request, max_output_tokens=least)

    def spend(self, completion: Completion) -> Spend:
        """What a whole reply used."""
        facts = CallFacts(completion.usage, completion.timings, completion.reported_joules)
        return Spend(
            calls=1,
            usage=completion.usage,
            nano_usd=self.price.cost(completion.usage),
            energy=self.profile.estimate(facts),
            seconds=completion.timings.total_s,
        )

    def worst_spend(self, request: Request, quote: Quote, seconds: float) -> Spend:
        """What an attempt is charged when its true cost never became known: everything that was held."""
        reply = request.max_output_tokens or self.max_output
        joules = quote.microjoules / 1e6
        return Spend(
            calls=1,
            usage=TokenUsage(quote.tokens - reply, reply, source="estimate"),
            nano_usd=quote.nano_usd,
            energy=Energy(joules, 0.0, joules, "modelled", assumed=("cost unknown: charged at the hold",)),
            seconds=seconds,
            in_doubt=1,
        )


Rung = CodeRung | ModelRung
