"""What is known of a call, and the protocol of everything that turns it into joules. May import messages."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from agentflow.energy.interval import Energy
from agentflow.messages import Timings, TokenUsage

# A provider's own figure this many times above our upper end is taken for a mistake or a forgery.
_PLAUSIBLE = 100.0


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Facts of one finished call. ``batch`` is how many sequences the server decoded together, when known."""

    usage: TokenUsage
    timings: Timings | None = None
    reported_joules: float | None = None
    batch: float | None = None


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
        """The most joules a call within these bounds is expected to use: what a hold reserves."""
        ...


def reported_or(modelled: Energy, facts: CallFacts) -> Energy:
    """The provider's own figure when it gave a believable one, else the modelled interval.

    A figure that is negative, not finite, or over a hundred times the modelled upper end is not believed; the
    modelled interval then says so in ``assumed``.
    """
    joules = facts.reported_joules
    if joules is None:
        return modelled
    if math.isfinite(joules) and 0.0 <= joules <= modelled.high * _PLAUSIBLE:
        return Energy(joules, joules, joules, "reported", modelled.scope)
    return replace(modelled, assumed=(*modelled.assumed, "the provider's own figure was not believable"))
