"""What is known of a call and of where it ran, and the protocol of everything that turns it into joules.

Every fact but the tokens is optional: what is missing widens the interval. May import interval and messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from agentflow.energy.interval import Energy
from agentflow.messages import Timings, TokenUsage

# A provider's own figure this many times outside our interval is taken for a mistake or a forgery.
_PLAUSIBLE = 100.0
# No call uses this much: 278 kWh.
_ABSURD_J = 1e9
# Seconds between two tokens that a stream can show: a microsecond to an hour.
_SHORTEST_S, _LONGEST_S = 1e-6, 3600.0


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
class Speculation:
    """Speculative decoding: ``drafted`` tokens are checked in a step, which yields ``accepted`` tokens on average.

    ``accepted`` counts the token that the model itself adds, so it lies from 1 to ``drafted + 1``. ``draft_b`` is the
    size of the drafting model in billions of parameters; 0 for drafts that cost next to nothing (n-grams, one head).
    """

    drafted: float
    accepted: float
    draft_b: float = 0.0

    def __post_init__(self) -> None:
        """Refuse figures that cannot be."""
        if not (self.drafted >= 0 and 1 <= self.accepted <= self.drafted + 1 and self.draft_b >= 0):
            raise ValueError(
                f"speculation yields 1 to drafted + 1 tokens a step, got {self.accepted:g} of {self.drafted:g} drafted"
            )


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a model runs. None is not known, and never guessed from a name that is only alike.

    Args:
        model: the exact id of a model in data/architectures.json; its shape is looked up there.
        active_b: active parameters in billions, for a model that is not listed.
        total_b: total parameters in billions; the active ones when left out.
        layers: layers.
        kv_bytes: bytes of K and V a token takes in the cache.
        experts: experts of a mixture.
        experts_used: experts a token uses.
        precision: of the weights: bf16, fp16, fp8, int8, int4, nf4, mxfp4, nvfp4 or fp4.
        kv_bits: bits of each number in the K and V cache.
        chip: name of an accelerator in data/chips.json.
        gpus: how many of them serve the model together; the fewest that hold its weights when left out.
        engine: the server and its version, as ``vllm-0.11``.
        batch: sequences decoded together, on average.
        speculation: speculative decoding, if any.
        pue: joules of the building per joule of its machines, from ``grid.pue(provider)``.
        region: where it stands, for grams of CO2 equivalent: joules do not depend on it.
        at: when, for the same.
    """

    model: str | None = None
    active_b: float | None = None
    total_b: float | None = None
    layers: int | None = None
    kv_bytes: float | None = None
    experts: int | None = None
    experts_used: int | None = None
    precision: str | None = None
    kv_bits: float = 16.0
    chip: str | None = None
    gpus: int | None = None
    engine: str | None = None
    batch: float | None = None
    speculation: Speculation | None = None
    pue: Range | None = None
    region: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Facts of one finished call.

    Args:
        usage: its tokens.
        timings: its seconds.
        reported_joules: what the provider itself said it used.
        batch: how many sequences the server decoded together.
        itl_s: seconds between two tokens of its reply; from ``timings`` when left out. Its own prompt's are not among
            them.
        step_s: the same with its share of all prompts, as a server's counters give it: batch / tokens a second. Goes
            before ``itl_s``.
        deployment: where it ran; the profile's own when left out.
    """

    usage: TokenUsage
    timings: Timings | None = None
    reported_joules: float | None = None
    batch: float | None = None
    itl_s: float | None = None
    deployment: Deployment | None = None
    step_s: float | None = None

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Uncached prompt, cached prompt and reply tokens; counts that cannot be are cut to those that can."""
        prompt = max(self.usage.input, 0)
        cached = min(max(self.usage.cached_input, 0), prompt)
        return prompt - cached, cached, max(self.usage.output, 0)

    @property
    def token_s(self) -> float | None:
        """Seconds between two tokens of the reply, None when nobody saw them come.

        The whole call's seconds say nothing of it: they hold the queue and the prompt as well.
        """
        if self.step_s is not None:
            return _believable(self.step_s)
        if self.itl_s is not None:
            return _believable(self.itl_s)
        timings, tokens = self.timings, self.usage.output - 1
        if timings is None or tokens < 1:
            return None
        if timings.decode_s is not None:
            return _believable(timings.decode_s / tokens)
        if timings.first_token_s is not None:
            return _believable((timings.total_s - timings.first_token_s) / tokens)
        return None


def _believable(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and _SHORTEST_S <= seconds <= _LONGEST_S else None


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
