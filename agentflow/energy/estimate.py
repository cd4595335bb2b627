"""What is known of a call, and the protocol of everything that turns it into joules. May import messages."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from agentflow.energy.interval import Energy
from agentflow.messages import Timings, TokenUsage

# A provider's own figure this many times outside our interval is taken for a mistake or a forgery.
_PLAUSIBLE = 100.0
# No call uses this much: 278 kWh.
_ABSURD_J = 1e9


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with the ends of its 90 % interval, in whatever unit its name says."""

    low: float
    mean: float
    high: float

    def __mul__(self, factor: float) -> Range:
        """The range ``factor`` times over; a factor below zero counts as zero."""
        factor = max(factor, 0.0)
        return Range(self.low * factor, self.mean * factor, self.high * factor)

    def __add__(self, other: Range) -> Range:
        """Ends added to ends: the errors of one model are not independent."""
        return Range(self.low + other.low, self.mean + other.mean, self.high + other.high)


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Facts of one finished call. ``batch`` is how many sequences the server decoded together, when known."""

    usage: TokenUsage
    timings: Timings | None = None
    reported_joules: float | None = None
    batch: float | None = None

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Uncached prompt, cached prompt and reply tokens; counts that cannot be are cut to those that can."""
        prompt = max(self.usage.input, 0)
        cached = min(max(self.usage.cached_input, 0), prompt)
        return prompt - cached, cached, max(self.usage.output, 0)


class EnergyProfile(Protocol):
    """Joules of calls to one model on one kind of hardware."""

    @property
    def name(self) -> str:
        """What the figures rest on, in a few words."""
        ...

    def estimate(self, facts: CallFacts) -> Energy:
        """Joules of a finished call, as a 90 % interval."""
        ...

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """The upper end of every modelled call within these bounds: what a hold reserves, in joules."""
        ...


def reported_or(modelled: Energy, facts: CallFacts) -> Energy:
    """The provider's own figure when it gave a believable one, else the modelled interval.

    A figure that is negative, not finite, over a hundred times the modelled upper end or under a hundredth of the
    lower one is not believed: a server that reports nothing for its work would slip under a limit. The modelled
    interval then says so in ``assumed``.
    """
    joules = facts.reported_joules
    if joules is None:
        return modelled
    most = min(modelled.high * _PLAUSIBLE, _ABSURD_J)
    if math.isfinite(joules) and modelled.low / _PLAUSIBLE <= joules <= most:
        return Energy(joules, joules, joules, "reported", modelled.scope)
    return replace(modelled, assumed=(*modelled.assumed, "the provider's own figure was not believable"))
