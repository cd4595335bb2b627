"""A model of known shape on known GPUs: what is known of a call decides how its joules are found.

Batch and time per token known: the power model over the measured time. Batch alone: the roofline gives the time.
Time alone: every batch, weighed by how well it explains that time. Neither: every batch, by its prior.
May import facts, constants and roofline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from agentflow.energy.constants import Fitted, Tier, shipped
from agentflow.energy.facts import CallFacts, Range, Speculation, reported_or
from agentflow.energy.interval import Energy, Scope
from agentflow.energy.roofline import Chip, Load, ModelShape, Step, decode_step

# How many sequences a server decodes together, when nobody says: ln B ~ N(ln 64, 1.6), on this grid.
BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_MOST_SEQUENCES = 65_536.0
BATCH_MEDIAN, BATCH_SPREAD = 64.0, 1.6
# How far a modelled time per token lies from the measured one at the same batch: spread of the natural logarithm.
TIME_SPREAD = 0.15
# Keeps a time that no batch explains from dividing by zero: then the prior decides.
UNEXPLAINED = 1e-12
_HOST_W = Range(110.0, 185.0, 210.0)
_SUPPLY = Range(1 / 0.96, 1 / 0.93, 1 / 0.89)
_PUE = Range(1.0, 1.2, 1.56)
_MOST_GPUS = 16


def batch_weight(batch: float) -> float:
    """The prior's weight of a batch, not normalised."""
    return math.exp(-0.5 * (math.log(batch / BATCH_MEDIAN) / BATCH_SPREAD) ** 2)


def fewest_gpus(shape: ModelShape, chip: Chip) -> int:
    """The least power of two of chips that holds the weights and a fifth more, 16 at most."""
    needed = 1.2 * shape.total * shape.bytes_per_parameter / chip.memory_bytes
    return min(2 ** math.ceil(math.log2(max(needed, 1.0))), _MOST_GPUS)


@dataclass(frozen=True, slots=True)
class Facility:
    """From boards to the building.

    ``joules = PUE * (boards + (host + network watts) * GPU-seconds) / efficiency``: additive, because a host's draw
    does not follow its boards'. Published starting points, as intervals: host 110-160 W and network 50 W per GPU of
    a large server, power supplies .89-.96 efficient (``supply`` is the inverse), PUE 1 on your own floor, about 1.2
    at a large provider, 1.56 on average of all.
    """

    host_w: Range = _HOST_W
    supply: Range = _SUPPLY
    pue: Range = _PUE

    def of(self, board_joules: float, gpu_seconds: float) -> Range:
        """Joules of the building for joules of the boards that were held for ``gpu_seconds``."""

        def at(host_w: float, supply: float, pue: float) -> float:
            return pue * supply * (board_joules + host_w * gpu_seconds)

        return Range(
            at(self.host_w.low, self.supply.low, self.pue.low),
            at(self.host_w.mean, self.supply.mean, self.pue.mean),
            at(self.host_w.high, self.supply.high, self.pue.high),
        )


_ONE = Range(1.0, 1.0, 1.0)
_SURROUNDINGS: dict[Scope, Facility] = {
    "board": Facility(Range(0.0, 0.0, 0.0), _ONE, _ONE),
    "server": Facility(pue=_ONE),
}


def surroundings(scope: Scope, facility: Facility) -> Facility:
    """What stands around the boards and is counted, by the scope of the joules."""
    return _SURROUNDINGS.get(scope, facility)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One way the call may have run: a deployment, batch and engine; how likely; its step and joules there."""

    profile: GpuProfile
    weight: float
    overhead: float
    step: Step
    joules: Range

    def times(self, likely: float) -> Hypothesis:
        """The same, ``likely`` times as likely."""
        # In full: a call has over a thousand of them, and dataclasses.replace takes four times as long.
        return Hypothesis(self.profile, self.weight * likely, self.overhead, self.step, self.joules)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A call's joules before they are labelled: the hypotheses, and the interval drawn around their middle.

    ``median`` is the geometric mean of the hypotheses, ``spread`` the standard deviation of their natural logarithm;
    the interval reaches ``width * sqrt(spread^2 + floor^2)`` either side of it, in natural logarithms.
    """

    tier: Tier
    hypotheses: tuple[Hypothesis, ...]
    median: float
    spread: float
    width: float
    floor: float
    joules: Range

    @property
    def factor(self) -> float:
        """How many times above and below the middle the interval reaches."""
        return math.exp(self.width * math.hypot(self.spread, self.floor))


@dataclass(frozen=True, slots=True)
class GpuProfile:
    """A model of known shape on known GPUs.

    Args:
        shape: the model.
        chip: the accelerator.
        gpus: how many of them serve the model together.
        batch: sequences decoded together; a call's own facts go before it.
        facility: what stands around the boards.
        name: what the figures rest on.
        scope: of the joules: the boards alone, the server, or the whole facility.
        engine: the server and its version.
        speculation: speculative decoding, if any.
        fitted: the constants and the widths of their intervals.
    """

    shape: ModelShape
    chip: Chip
    gpus: int = 1
    batch: float | None = None
    facility: Facility = Facility()
    name: str = "roofline"
    scope: Scope = "facility"
    engine: str | None = None
    speculation: Speculation | None = None
    fitted: Fitted = field(default_factory=shipped)

    def estimate(self, facts: CallFacts) -> Energy:
        """Joules of one call. A batch among the facts goes before the profile's own."""
        if sum(facts.tokens) == 0:
            return reported_or(Energy(0.0, 0.0, 0.0, "modelled", self.scope), facts)
        found = self.weigh(facts)
        joules = found.joules
        assumed = self._assumed(facts, found.tier)
        modelled = Energy(
            joules.mean, joules.low, joules.high, "modelled", self.scope, assumed, found.median, basis=basis(facts)
        )
        return reported_or(modelled, facts)

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """The upper end of the longest call within these bounds, in joules.

        It covers calls that share the GPUs with at least ``batch`` sequences; with the batch unknown, those above
        the lowest twentieth of the prior (4 sequences). A call that had the GPUs to itself may use more.
        """
        tokens = (float(input_tokens), 0.0, float(output_tokens))
        if input_tokens + output_tokens == 0:
            return 0.0
        highest = self._at(tokens, "tokens" if self.batch is None else "batch", self.batch, None).joules.high
        if output_tokens > 1:
            # Time between tokens is counted from the second one on: with two tokens, half of what is charged.
            slowest = self._at(tokens, "batch+latency", self.batch or 4.0, 2.0 * seconds / output_tokens).joules.high
            highest = max(highest, slowest)
        return highest

    def weigh(self, facts: CallFacts) -> Estimate:
        """Every way the call may have run, and the interval of its joules."""
        tokens = tuple(map(float, facts.tokens))
        batch = plausible(facts.batch) or self.batch
        return self._at(tokens, tier_of(facts, self.batch), batch, facts.token_s, apart=facts.step_s is None)

    def hypotheses(
        self,
        tokens: tuple[float, ...],
        tier: Tier,
        batch: float | None = None,
        token_s: float | None = None,
        *,
        apart: bool = True,
    ) -> list[Hypothesis]:
        """Every batch and engine that the call may have met; weights are not normalised.

        Args:
            tokens: uncached prompt, cached prompt and reply tokens.
            tier: what is known.
            batch: sequences decoded together, when known.
            token_s: seconds per token of the reply, when known.
            apart: whether the call's own prefill comes on top of them.
        """
        fresh, cached, output = tokens
        # What the engine did shows in a measured time, and does not matter once the batch is known as well.
        overheads = ((1.0, 1.0),) if tier == "batch+latency" else self.fitted.overheads(self.engine)
        batches = [(batch, 1.0)] if batch is not None else [(float(b), batch_weight(b)) for b in BATCHES]
        return [
            self._hypothesis(self._load(b, fresh, cached, output), overhead, prior * likely, token_s, tier, apart)
            for b, prior in batches
            for overhead, likely in overheads
        ]

    def _at(
        self, tokens: tuple[float, ...], tier: Tier, batch: float | None, token_s: float | None, *, apart: bool = True
    ) -> Estimate:
        width = self.fitted.width(tier, self.chip.name, guessed=self.shape.guessed)
        found = self.hypotheses(tokens, tier, batch, token_s, apart=apart)
        return pooled(found, tier, width, self.fitted.floor)

    def _load(self, batch: float, fresh: float, cached: float, output: float) -> Load:
        # A call without a reply takes one step.
        load = Load(batch, fresh, max(output, 1.0), cached)
        s = self.speculation
        if s is None:
            return load
        return replace(load, checked=s.drafted + 1.0, accepted=s.accepted, draft=s.draft_b * 1e9)

    def _hypothesis(
        self, load: Load, overhead: float, weight: float, token_s: float | None, tier: Tier, apart: bool
    ) -> Hypothesis:
        k, measured = self.fitted.constants, None if token_s is None else token_s * load.accepted
        step = decode_step(
            self.shape, self.chip, self.gpus, load, k, overhead=overhead, seconds=measured, prefill_apart=apart
        )
        if tier == "latency" and measured is not None:
            weight *= UNEXPLAINED + math.exp(-0.5 * (math.log(step.modelled_s / measured) / TIME_SPREAD) ** 2)
        gpu_seconds = self.gpus * step.token_s * load.output_tokens / load.batch
        around = surroundings(self.scope, self.facility)
        return Hypothesis(
            self, weight, overhead, step, around.of(step.joules_per_token * load.output_tokens, gpu_seconds)
        )

    def _assumed(self, facts: CallFacts, tier: Tier) -> tuple[str, ...]:
        batch = plausible(facts.batch) or self.batch
        said = {
            "batch+latency": f"batch {batch:g}, measured time per token" if batch else "",
            "batch": f"batch {batch:g}, modelled time per token" if batch else "",
            "latency": "batch inferred from the time per token",
            "tokens": "batch unknown: 1 to 2048, median 64",
        }
        assumed = [f"{self.gpus} x {self.chip.name}", said[tier]]
        if tier != "batch+latency" and len(self.fitted.overheads(self.engine)) > 1:
            assumed.append("engine not fitted: up to 4 times the overhead of a current one")
        if self.chip.name not in self.fitted.chips:
            assumed.append("chip known by its data sheet alone")
        if self.shape.guessed:
            assumed.append("shape guessed from the model's size")
        if self.scope == "facility":
            assumed.append("host, network and PUE as intervals")
        return tuple(assumed)


def pooled(found: Sequence[Hypothesis], tier: Tier, width: float, floor: float) -> Estimate:
    """The expectation of the hypotheses, and an interval around their geometric mean."""
    whole = sum(h.weight for h in found)

    def middle(end: Callable[[Range], float]) -> float:
        return sum(h.weight * math.log(end(h.joules)) for h in found) / whole

    centre = middle(lambda r: r.mean)
    spread = math.sqrt(sum(h.weight * (math.log(h.joules.mean) - centre) ** 2 for h in found) / whole)
    mean = sum(h.weight * h.joules.mean for h in found) / whole
    joules = interval(middle(lambda r: r.low), mean, middle(lambda r: r.high), width, spread, floor)
    scaled = tuple(h.times(1 / whole) for h in found)
    return Estimate(tier, scaled, math.exp(centre), spread, width, floor, joules)


def interval(log_low: float, mean: float, log_high: float, width: float, spread: float, floor: float) -> Range:
    """The interval that reaches ``width * sqrt(spread^2 + floor^2)`` beyond the middles of its ends, and its mean.

    Args:
        log_low: middle of the natural logarithms of the low ends.
        mean: expectation; the interval holds it.
        log_high: middle of the natural logarithms of the high ends.
        width: spreads either side.
        spread: standard deviation of the logarithms.
        floor: the spread of a figure whose batch is known.
    """
    reach = width * math.hypot(spread, floor)
    low, high = math.exp(log_low - reach), math.exp(log_high + reach)
    return Range(min(low, mean), mean, max(high, mean))


def summary(ranges: Sequence[Range], weights: Sequence[float], factor: float) -> Range:
    """The expectation of weighted ranges, and their 5 % and 95 % quantiles ``factor`` times further out."""
    mean = sum(w * r.mean for w, r in zip(weights, ranges, strict=True)) / sum(weights)
    low = quantile(ranges, weights, 0.05, lambda r: r.low) / factor
    high = quantile(ranges, weights, 0.95, lambda r: r.high) * factor
    return Range(min(low, mean), mean, max(high, mean))


def quantile(ranges: Sequence[Range], weights: Sequence[float], part: float, end: Callable[[Range], float]) -> float:
    """The least value with ``part`` of the weight at or below it."""
    reached, whole = 0.0, sum(weights)
    ordered = sorted(zip(map(end, ranges), weights, strict=True))
    for value, weight in ordered:
        reached += weight
        if reached >= part * whole:
            return value
    return ordered[-1][0]


def tier_of(facts: CallFacts, batch: float | None = None) -> Tier:
    """What is known of a call; ``batch`` is its server's, for a call that does not say."""
    if plausible(facts.batch) or batch is not None:
        return "batch" if facts.token_s is None else "batch+latency"
    return "tokens" if facts.token_s is None else "latency"


def basis(facts: CallFacts) -> tuple[tuple[str, float], ...]:
    """What besides the tokens is known of a call, by name."""
    known = {"batch": plausible(facts.batch), "token_s" if facts.step_s is None else "step_s": facts.token_s}
    return tuple((name, figure) for name, figure in known.items() if figure is not None)


def plausible(batch: float | None) -> float | None:
    """A batch that a server can hold, or None for a figure that is none."""
    return min(max(batch, 1.0), _MOST_SEQUENCES) if batch is not None and batch > 0 else None
