"""Room: what is left for the next hold. Imports spend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentflow.budget.spend import Quote


@dataclass(frozen=True, slots=True)
class Room:
    """What is left for the next hold, the least over a node and its ancestors. None is unlimited."""

    tokens: int | None = None
    nano_usd: int | None = None
    microjoules: int | None = None
    seconds: float | None = None
    micrograms: int | None = None
    calls: int | None = None

    @classmethod
    def of(cls, left: Sequence[float], seconds: float | None) -> Room:
        """From amounts in the order of ``currency.COUNTED`` and seconds; infinite is unlimited, below zero is zero."""
        tokens, nano_usd, microjoules, micrograms, calls = [
            None if amount == math.inf else max(int(amount), 0) for amount in left
        ]
        return cls(tokens, nano_usd, microjoules, seconds, micrograms, calls)

    def of_currency(self, currency: str) -> float | None:
        """What is left of one currency, in the unit the meter counts it in."""
        amount: float | None = getattr(self, _FIELDS[currency])
        return amount

    def fits(self, quote: Quote) -> bool:
        """Whether a hold of ``quote`` would be granted now."""
        return (
            (self.tokens is None or quote.tokens <= self.tokens)
            and (self.nano_usd is None or quote.nano_usd <= self.nano_usd)
            and (self.microjoules is None or quote.microjoules <= self.microjoules)
            and (self.seconds is None or quote.seconds <= self.seconds)
            and (self.micrograms is None or quote.micrograms <= self.micrograms)
            and (self.calls is None or quote.calls <= self.calls)
        )

    def at_most(self, currency: str, left: float) -> Room:
        """The same room with no more than ``left`` of one currency, in the unit the meter counts it in."""
        field = _FIELDS[currency]
        now = getattr(self, field)
        return replace(self, **{field: left if now is None else min(now, left)})


_FIELDS: dict[str, str] = {
    "tokens": "tokens",
    "usd": "nano_usd",
    "joules": "microjoules",
    "grams_co2e": "micrograms",
    "calls": "calls",
    "seconds": "seconds",
}
