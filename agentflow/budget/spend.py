"""Spend and Quote: what something used, and the most it may use. May import energy and messages.

Dollars are integer nano-dollars and joules are counted in integer microjoules, so that sums are exact;
the interval of the joules travels beside the count. Next: ``budget`` (limits) and ``meter`` (the tree).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from agentflow.energy.interval import Energy
from agentflow.messages import TokenUsage


@dataclass(frozen=True, slots=True)
class Quote:
    """The most one attempt can cost: what a hold reserves.

    ``tokens`` is input plus output, ``nano_usd`` billionths of a dollar, ``microjoules`` the upper end of the
    energy interval, ``seconds`` the longest the attempt may take on the wall clock.
    """

    tokens: int = 0
    nano_usd: int = 0
    microjoules: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a quote that could free room instead of reserving it."""
        if min(self.tokens, self.nano_usd, self.microjoules) < 0 or not 0.0 <= self.seconds < math.inf:
            raise ValueError(f"a quote cannot be negative or endless: {self}")


@dataclass(frozen=True, slots=True)
class Spend:
    """What was used, in every currency.

    ``seconds`` is wall clock and adds up for calls made one after another; a node of the meter reports its
    own elapsed time instead, because its children may run side by side. ``in_doubt`` counts the calls charged
    at their worst case because their true cost never became known.

    Example:
        >>> (Spend(calls=1, nano_usd=1_500) + Spend(calls=1, nano_usd=500)).nano_usd
        2000
    """

    calls: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    nano_usd: int = 0
    energy: Energy = field(default_factory=Energy)
    seconds: float = 0.0
    in_doubt: int = 0

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.usage.total

    @property
    def microjoules(self) -> int:
        """The mean of the energy interval, rounded up: what counts against a limit."""
        return microjoules(self.energy.mean)

    def __add__(self, other: Spend) -> Spend:
        """Add in every currency; intervals of joules add end to end."""
        return Spend(
            self.calls + other.calls,
            _add_usage(self.usage, other.usage),
            self.nano_usd + other.nano_usd,
            self.energy + other.energy,
            self.seconds + other.seconds,
            self.in_doubt + other.in_doubt,
        )

    def lasting(self, seconds: float) -> Spend:
        """The same spend with another wall clock."""
        return replace(self, seconds=seconds)


def microjoules(joules: float) -> int:
    """Joules as whole microjoules, rounded up, so that a count never understates."""
    return math.ceil(joules * 1e6)


def _add_usage(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    if other.total == 0:
        return one
    if one.total == 0:
        return other
    return TokenUsage(
        one.input + other.input,
        one.output + other.output,
        one.cached_input + other.cached_input,
        one.cache_write + other.cache_write,
        one.reasoning + other.reasoning,
        one.source if one.source == other.source else "estimate",
    )
