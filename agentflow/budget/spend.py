"""Spend and Quote: what something used, and the most it may use. May import currency, money, energy and messages.

Counts are integers, so that sums are exact in any order; the intervals of joules and grams travel beside their
counts. Next: ``budget`` (limits) and ``meter`` (the tree).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_args

from agentflow.budget.currency import LARGEST, MICRO, Amounts, format_amount
from agentflow.budget.money import format_usd
from agentflow.energy.interval import Energy, Provenance, Scope
from agentflow.errors import UsageError
from agentflow.messages import TokenUsage, UsageSource

# Sums beyond this do not fit the 64 bits of a ledger's column.
_ENDLESS = LARGEST * 1024


@dataclass(frozen=True, slots=True)
class Quote:
    """The most one attempt can cost: what a hold reserves.

    ``tokens`` is input plus output, ``nano_usd`` billionths of a dollar, ``microjoules`` and ``micrograms`` (CO2e) the
    upper ends of their intervals, ``seconds`` the longest the attempt may take on the wall clock. ``bound`` is False
    when the figures are an expectation instead of a bound: a dearer reply is then no sign that something is wrong.
    """

    tokens: int = 0
    nano_usd: int = 0
    microjoules: int = 0
    seconds: float = 0.0
    micrograms: int = 0
    calls: int = 1
    bound: bool = True

    def __post_init__(self) -> None:
        """Refuse a quote that could free room instead of reserving it."""
        for amount in (self.tokens, self.nano_usd, self.microjoules, self.micrograms, self.calls):
            if not 0 <= amount <= LARGEST:
                raise UsageError(f"A quote cannot be negative or endless: {self}.")
        if not 0.0 <= self.seconds < math.inf:
            raise UsageError(f"A quote cannot be negative or endless: {self}.")

    @property
    def amounts(self) -> Amounts:
        """The counted amounts, in the order of ``currency.COUNTED``."""
        return (self.tokens, self.nano_usd, self.microjoules, self.micrograms, self.calls)


@dataclass(frozen=True, slots=True)
class Emissions:
    """Micrograms of CO2 equivalent, with the ends of their 90 % interval."""

    mean: int = 0
    low: int = 0
    high: int = 0

    def __post_init__(self) -> None:
        """Refuse figures that are not an interval."""
        if not 0 <= self.low <= self.mean <= self.high <= _ENDLESS:
            raise UsageError(f"Emissions need 0 <= low <= mean <= high, got {self.low} / {self.mean} / {self.high}.")

    def __add__(self, other: Emissions) -> Emissions:
        """Add end to end: the errors of one grid figure are not independent."""
        return Emissions(self.mean + other.mean, self.low + other.low, self.high + other.high)


@dataclass(frozen=True, slots=True)
class Spend:
    """What was used, in every currency.

    ``seconds`` is wall clock and adds up for calls made one after another; a node of the meter reports its
    own elapsed time instead, because its children may run side by side. ``in_doubt`` counts the calls charged
    at their worst case because their true cost never became known, ``estimated`` those whose tokens we counted
    ourselves because the provider's reply did not say, ``overruns`` those that came back dearer than their hold.

    Raises:
        UsageError: a figure is negative, not a number, or larger than any call can be.

    Example:
        >>> (Spend(calls=1, nano_usd=1_500) + Spend(calls=1, nano_usd=500)).nano_usd
        2000
        >>> print(Spend(calls=2, nano_usd=3_100_000, energy=Energy(1_200, 400, 3_000, "modelled")))
        2 calls, 0 tokens, $0.0031, 1.2 kJ (400 J to 3 kJ, modelled), 0 s
    """

    calls: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    nano_usd: int = 0
    energy: Energy = field(default_factory=Energy)
    seconds: float = 0.0
    in_doubt: int = 0
    co2e: Emissions = field(default_factory=Emissions)
    estimated: int = 0
    overruns: int = 0

    def __post_init__(self) -> None:
        """Refuse what no call can have used, before it reaches a total."""
        usage = self.usage
        for name, amount in (
            ("calls", self.calls),
            ("nano_usd", self.nano_usd),
            ("input", usage.input),
            ("output", usage.output),
            ("cached_input", usage.cached_input),
            ("cache_write", usage.cache_write),
            ("reasoning", usage.reasoning),
            ("images", usage.images),
            ("audio_ms", usage.audio_ms),
        ):
            if amount.__class__ is not int or not 0 <= amount < _ENDLESS:
                raise UsageError(f"A spend of {amount!r} {name} cannot be. Counts are whole numbers from 0 up.")
        if not 0.0 <= self.seconds < math.inf:
            raise UsageError(f"A spend of {self.seconds} seconds cannot be.")

    @classmethod
    def at_worst(cls, held: Quote, reply_tokens: int = 0, seconds: float = 0.0) -> Spend:
        """What an attempt is charged when its true cost never became known: everything that was held for it.

        Args:
            held: the hold.
            reply_tokens: how many of its tokens were for the reply.
            seconds: wall clock until it was given up.
        """
        joules = held.microjoules / MICRO
        return cls(
            calls=held.calls,
            usage=TokenUsage(held.tokens - reply_tokens, reply_tokens, source="estimate"),
            nano_usd=held.nano_usd,
            energy=Energy(joules, 0.0, joules, "modelled", assumed=("cost unknown: charged at the hold",)),
            seconds=seconds,
            in_doubt=1,
            co2e=Emissions(held.micrograms, 0, held.micrograms),
        )

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.usage.total

    @property
    def microjoules(self) -> int:
        """The mean of the energy interval: what counts against a limit."""
        return microjoules(self.energy.mean)

    @property
    def amounts(self) -> Amounts:
        """The counted amounts, in the order of ``currency.COUNTED``."""
        return (self.usage.total, self.nano_usd, microjoules(self.energy.mean), self.co2e.mean, self.calls)

    def __add__(self, other: Spend) -> Spend:
        """Add in every currency; intervals of joules and grams add end to end."""
        return Spend(
            self.calls + other.calls,
            _add_usage(self.usage, other.usage),
            self.nano_usd + other.nano_usd,
            add_energy(self.energy, other.energy),
            self.seconds + other.seconds,
            self.in_doubt + other.in_doubt,
            self.co2e + other.co2e,
            self.estimated + other.estimated,
            self.overruns + other.overruns,
        )

    def overrun(self) -> Spend:
        """The same spend, marked as dearer than its hold."""
        return replace(self, overruns=1)

    def lasting(self, seconds: float) -> Spend:
        """The same spend with another wall clock."""
        return replace(self, seconds=seconds)

    def __str__(self) -> str:
        """For people: ``3 calls, 1,520 tokens, $0.0031, 1.2 kJ (...), 2.4 s``."""
        calls, tokens = format_amount("calls", self.calls), format_amount("tokens", self.tokens)
        return (
            f"{calls}, {tokens}, {format_usd(self.nano_usd)}, {self.energy}, {format_amount('seconds', self.seconds)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values that ``from_json`` reads back, exactly."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spend:
        """A spend that ``to_json`` wrote.

        Raises:
            UsageError: it is not one.
        """
        try:
            rest = {f.name: data[f.name] for f in fields(cls) if f.name not in ("usage", "energy", "co2e")}
            energy: dict[str, Any] = dict(data["energy"])
            energy["assumed"] = tuple(energy["assumed"])
            energy["basis"] = tuple((name, figure) for name, figure in energy["basis"])
            if energy["provenance"] not in get_args(Provenance) or energy["scope"] not in get_args(Scope):
                raise ValueError(f"provenance {energy['provenance']}, scope {energy['scope']}")
            if data["usage"]["source"] not in get_args(UsageSource):
                raise ValueError(f"source {data['usage']['source']}")
            return cls(
                usage=TokenUsage(**data["usage"]), energy=Energy(**energy), co2e=Emissions(**data["co2e"]), **rest
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"This is not a recorded spend: {error}. It may be of another version.") from error


def microjoules(joules: float) -> int:
    """Joules as whole microjoules, to the nearest: what is counted and added."""
    return round(joules * MICRO)


def microjoules_at_most(joules: float) -> int:
    """Joules as whole microjoules, rounded up: what is held."""
    return math.ceil(joules * MICRO)


def add_energy(one: Energy, other: Energy) -> Energy:
    """The sum of two energies to the microjoule, the same in any order."""
    total = one + other
    mean, low, high = (
        (microjoules(a) + microjoules(b)) / MICRO
        for a, b in ((one.mean, other.mean), (one.low, other.low), (one.high, other.high))
    )
    return replace(total, mean=mean, low=low, high=high)


def _add_usage(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    if other == _NONE:
        return one
    if one == _NONE:
        return other
    source = one.source if one.source == other.source else "estimate"
    counts = {f.name: getattr(one, f.name) + getattr(other, f.name) for f in fields(TokenUsage) if f.name != "source"}
    return TokenUsage(**counts, source=source)


_NONE = TokenUsage()
