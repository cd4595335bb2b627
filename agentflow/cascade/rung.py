"""Rungs: what a cascade climbs. A code rung is a Python function; a model rung is a backend with a price.

A rung knows the most that an attempt can cost (``quote``) and what it did cost (``spend``). May import
backends, budget, energy, tokens.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from agentflow.backends.base import Backend
from agentflow.budget.currency import MICRO
from agentflow.budget.prices import Price
from agentflow.budget.room import Room
from agentflow.budget.spend import Emissions, Quote, Spend, microjoules_at_most
from agentflow.cascade.capabilities import EVERYTHING, Capability
from agentflow.cascade.lane import Lane
from agentflow.energy.estimate import CallFacts, EnergyProfile, Range
from agentflow.energy.grid import WORLD, Place, emissions
from agentflow.energy.interval import Energy, Scope
from agentflow.messages import Completion, MeasuredJoules, Request, Timings, TokenUsage
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
        worst: the most tokens and dollars it may spend elsewhere in one run; it is held for them.
        region: where its electricity comes from, by its code in ``energy.grid``.
    """

    name: str
    function: Callable[[Any], Answer | Awaitable[Answer]]
    profile: EnergyProfile
    max_cpu_s: float = 0.5
    threaded: bool = False
    worst: Quote = field(default_factory=Quote)
    region: str = WORLD

    def quote(self) -> Quote:
        """The most one run is expected to use. It is no bound: nothing stops a function after its CPU seconds."""
        joules = self.profile.ceiling(0, 0, self.max_cpu_s)
        return replace(
            self.worst,
            microjoules=microjoules_at_most(joules),
            micrograms=_most_micrograms(joules, self.region),
            bound=False,
        )

    @property
    def pays(self) -> bool:
        """Whether it may pay someone."""
        return self.worst.tokens > 0 or self.worst.nano_usd > 0

    def computed(self, seconds: float) -> Spend:
        """What a run that ended without an answer used: its time, every core busy that it may use."""
        energy = self.profile.estimate(CallFacts(TokenUsage(), Timings(total_s=seconds)))
        return Spend(calls=1, energy=energy, seconds=seconds, co2e=co2e(energy, self.region))

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
        return answer, Spend(
            calls=1,
            usage=answer.usage,
            nano_usd=answer.nano_usd,
            energy=energy,
            seconds=seconds,
            co2e=co2e(energy, self.region),
        )

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
        default_output: tokens of a reply when the request does not say.
        max_output: tokens of the longest reply the model gives; None when unknown.
        timeout_s: the longest one attempt may take.
        logprobs: whether to ask for token probabilities.
        profiled: whether ``profile`` rests on what someone said of the hardware, not on a prior alone.
        region: where its electricity comes from, by its code in ``energy.grid``.
        lane: its live state: how quick it is, whether it is up, what may be sent to it now.
        hedge_with: the rung that a second attempt goes to, where ``lane`` hedges; None: this one's backend again.
        serves: what it takes and gives, see ``capabilities``.
        served_by: tells this model from others of its name: its server or file, and what of its settings a reply
            depends on.
        site: the name of the region that this is, where the model runs in several.
        zone: the region's name in tables of hours; its code when None.
        residency: tags that residency rules name.
        latency_s: seconds that the way there and a usual reply take; None when nobody said.
        sites: the model in each of its regions, where it has several: one of them serves in place of this.
    """

    name: str
    backend: Backend
    model: str
    price: Price
    profile: EnergyProfile
    counter: TokenCounter
    context: int | None = None
    default_output: int = 1024
    max_output: int | None = None
    timeout_s: float = 60.0
    logprobs: bool = False
    profiled: bool = True
    region: str = WORLD
    serves: frozenset[Capability] = EVERYTHING
    served_by: str = ""
    site: str = ""
    zone: str | None = None
    residency: frozenset[str] = frozenset()
    latency_s: float | None = None
    sites: tuple[ModelRung, ...] = ()
    lane: Lane = field(default_factory=Lane)
    hedge_with: ModelRung | None = None

    @property
    def identity(self) -> str:
        """What its replies depend on beside the request: equal for equal models in any process."""
        return f"{self.backend.provider}|{self.model}|{self.served_by}"

    def quote(self, request: Request, expected: int | None = None) -> Quote:
        """What one attempt at ``request`` (its ``max_output_tokens`` and ``timeout_s`` set) is held for.

        Of seconds it asks for the least that is worth sending it: the attempt is cut short to what is left.

        Args:
            request: as it will be sent.
            expected: tokens that its reply is expected to have, when that is held instead of the worst case.
        """
        return self._quote(request, self.counter.prompt_bound(request), expected)

    def _quote(self, request: Request, prompt: int, expected: int | None) -> Quote:
        most = request.max_output_tokens or self.default_output
        reply = most if expected is None else min(expected, most)
        seconds = request.timeout_s or self.timeout_s
        joules = self.profile.ceiling(prompt, reply, seconds)
        return Quote(
            prompt + reply,
            self.price.ceiling(prompt, reply, images=self._sold_images(len(request.images))),
            microjoules_at_most(joules),
            min(self.timeout_s, LEAST_S),
            _most_micrograms(joules, self.region),
            bound=reply == most,
        )

    def fit(
        self, request: Request, room: Room, min_output: int, expected: int | None = None, key: str | None = None
    ) -> tuple[Request, Quote]:
        """The request as this rung would send it, its reply and time shortened to the room that is left; its quote.

        ``key`` is the attempt's, for servers to be told of it. When not even ``min_output`` tokens fit, the request is
        returned with that many: the hold will refuse it and say what lacks.
        """
        asked = request.max_output_tokens or self.default_output
        if self.max_output is not None:
            asked = min(asked, self.max_output)
        if self.context is not None and self.counter.at_most(request) + asked > self.context:
            asked = min(asked, max(1, self.context - self.counter.prompt(request)))
        left = self.timeout_s if room.seconds is None else min(self.timeout_s, room.seconds)
        timeout_s = left if request.timeout_s is None else min(left, request.timeout_s)
        logprobs = request.logprobs or self.logprobs
        request = replace(request, timeout_s=timeout_s, max_output_tokens=asked, logprobs=logprobs, key=key)
        # The same for every length of the reply, and the dearest part of a quote.
        prompt = self.counter.prompt_bound(request)
        quote = self._quote(request, prompt, expected)
        if room.fits(quote):
            return request, quote
        least, most = min(min_output, asked), asked
        while least < most:
            middle = (least + most + 1) // 2
            if room.fits(self._quote(replace(request, max_output_tokens=middle), prompt, expected)):
                least = middle
            else:
                most = middle - 1
        request = replace(request, max_output_tokens=least)
        return request, self._quote(request, prompt, expected)

    def spend(self, completion: Completion, images: int = 0) -> Spend:
        """What a whole reply used.

        Args:
            completion: the reply.
            images: how many the request carried; servers count them among the tokens alone.

        Raises:
            UsageError: its token counts cannot be.
        """
        usage = completion.usage
        if images > usage.images:
            usage = replace(usage, images=images)
        seconds = completion.timings.total_s
        # Checked before it is priced: what a server says of itself may be anything.
        Spend(calls=1, usage=usage, seconds=seconds)
        facts = CallFacts(usage, completion.timings, completion.reported_joules, completion.batch)
        energy = self.profile.estimate(facts) if completion.measured is None else _measured(completion.measured)
        return Spend(
            calls=1,
            usage=usage,
            seconds=seconds,
            nano_usd=self.price.cost(usage, images=self._sold_images(usage.images), audio_ms=usage.audio_ms),
            energy=energy,
            co2e=co2e(energy, self.region),
            estimated=int(usage.source in ("tokenizer", "estimate")),
        )

    def _sold_images(self, images: int) -> int:
        """How many images are paid for by the piece: none where the price names none, for they are prompt tokens."""
        return images if any(tier.rates.image is not None for tier in self.price.in_force()) else 0


def _measured(joules: MeasuredJoules) -> Energy:
    provenance = "measured" if joules.alone else "modelled"
    return Energy(joules.mean, joules.low, joules.high, provenance, joules.scope, joules.assumed)


def co2e(energy: Energy, region: str) -> Emissions:
    """Micrograms of CO2 equivalent of some energy, by the yearly average of its region.

    Raises:
        ConfigError: the region is not known.
    """
    per_joule = _micrograms_of_a_joule(region, energy.scope)
    return Emissions(
        round(energy.mean * per_joule.mean),
        math.floor(energy.low * per_joule.low),
        math.ceil(energy.high * per_joule.high),
    )


@functools.lru_cache(maxsize=256)
def _micrograms_of_a_joule(region: str, scope: Scope) -> Range:
    return emissions(Energy(1.0, 1.0, 1.0, scope=scope), Place(region)).location * MICRO


def _most_micrograms(joules: float, region: str) -> int:
    return math.ceil(joules * _micrograms_of_a_joule(region, "facility").high)


Rung = CodeRung | ModelRung
