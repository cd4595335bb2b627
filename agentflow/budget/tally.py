"""Tally: a running sum of spends in whole numbers, in detail. Imports spend."""

from __future__ import annotations

from agentflow.budget.currency import MICRO
from agentflow.budget.spend import Emissions, Spend, microjoules
from agentflow.energy.interval import Energy, Provenance, Scope, narrower, weaker
from agentflow.messages import TokenUsage, UsageSource


class Tally:
    """What the calls of one node used, kind of token by kind of token.

    Adding a Spend to a Spend makes four new values; a node settles thousands a second, so it adds to counters and
    makes a Spend when somebody looks.
    """

    __slots__ = (
        "_assumed", "_audio_ms", "_cache_write", "_cached", "_calls", "_estimated", "_grams", "_images", "_in_doubt",
        "_input", "_joules", "_nano_usd", "_output", "_overruns", "_provenance", "_reasoning", "_scope", "_seconds",
        "_source",
    )  # fmt: skip

    def __init__(self) -> None:
        self._calls = self._nano_usd = self._in_doubt = self._estimated = self._overruns = 0
        self._input = self._output = self._cached = self._cache_write = self._reasoning = 0
        self._images = self._audio_ms = 0
        self._joules = (0, 0, 0)
        self._grams = (0, 0, 0)
        self._seconds = 0.0
        self._source: UsageSource | None = None
        self._provenance: Provenance = "measured"
        self._scope: Scope | None = None
        self._assumed: dict[str, None] = {}

    def add(self, spend: Spend) -> None:
        """Count one more."""
        self._calls += spend.calls
        self._nano_usd += spend.nano_usd
        self._in_doubt += spend.in_doubt
        self._estimated += spend.estimated
        self._overruns += spend.overruns
        self._seconds += spend.seconds
        self._add_usage(spend.usage)
        energy = spend.energy
        if energy.high > 0.0:
            mean, low, high = self._joules
            self._joules = (
                mean + microjoules(energy.mean),
                low + microjoules(energy.low),
                high + microjoules(energy.high),
            )
            self._provenance = weaker(self._provenance, energy.provenance)
            self._scope = energy.scope if self._scope is None else narrower(self._scope, energy.scope)
            if energy.assumed:
                self._assumed.update(dict.fromkeys(energy.assumed))
        grams = spend.co2e
        if grams.high:
            mean, low, high = self._grams
            self._grams = (mean + grams.mean, low + grams.low, high + grams.high)

    def total(self) -> Spend:
        """The sum so far."""
        mean, low, high = (micro / MICRO for micro in self._joules)
        usage = TokenUsage(
            self._input, self._output, self._cached, self._cache_write, self._reasoning,
            self._source or "estimate", self._images, self._audio_ms,
        )  # fmt: skip
        energy = Energy(mean, low, high, self._provenance, self._scope or "facility", tuple(self._assumed))
        return Spend(
            self._calls, usage, self._nano_usd, energy, self._seconds, self._in_doubt, Emissions(*self._grams),
            self._estimated, self._overruns,
        )  # fmt: skip

    def _add_usage(self, usage: TokenUsage) -> None:
        if not (usage.input or usage.output or usage.images or usage.audio_ms):
            return
        self._input += usage.input
        self._output += usage.output
        self._cached += usage.cached_input
        self._cache_write += usage.cache_write
        self._reasoning += usage.reasoning
        self._images += usage.images
        self._audio_ms += usage.audio_ms
        self._source = usage.source if self._source in (None, usage.source) else "estimate"
