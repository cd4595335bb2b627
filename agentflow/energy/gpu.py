"""A model of known shape on known GPUs: the roofline of a step, the batch it shares, the building around it.

May import estimate and roofline. The batch prior is also what ``remote`` integrates over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentflow.energy.estimate import CallFacts, Range, reported_or
from agentflow.energy.interval import Energy
from agentflow.energy.roofline import H100_2025, Chip, ModelShape, decode_step

# How many sequences a server decodes together, when nobody says: ln B ~ N(ln 64, 1.6), on this grid.
BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_MOST_SEQUENCES = 65_536.0
_BATCH_MEDIAN, _BATCH_SPREAD = 64.0, 1.6
# Factor either side that covers 90 % with the batch known: leave-one-family-out residuals on 12 of 18 H100 model
# families, families weighted equally at .95, covered .935 of the other six (.82 in the worst split).
FAMILY_FACTOR = 1.68
# And more on a chip that the constants were not fitted on: A100 runs on another engine came out 1.6 times off.
UNFITTED_CHIP_FACTOR = 1.6
_HOST_W = Range(110.0, 185.0, 210.0)
_SUPPLY = Range(1 / 0.96, 1 / 0.93, 1 / 0.89)
_PUE = Range(1.0, 1.2, 1.56)


def batch_weight(batch: float) -> float:
    """The prior's weight of a batch, not normalised."""
    return math.exp(-0.5 * (math.log(batch / _BATCH_MEDIAN) / _BATCH_SPREAD) ** 2)


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


@dataclass(frozen=True, slots=True)
class GpuProfile:
    """A model of known shape on known GPUs: the roofline, with the batch known or integrated over a prior."""

    shape: ModelShape
    chip: Chip
    gpus: int = 1
    batch: float | None = None
    facility: Facility = Facility()
    name: str = "roofline"

    def estimate(self, facts: CallFacts) -> Energy:
        """Joules of the whole facility for one call. A batch among the facts goes before the profile's own."""
        batch = _plausible(facts.batch) or self.batch
        joules = self._joules(*facts.tokens, batch)
        known = f"batch {batch:g}" if batch else "batch unknown: 1 to 2048, median 64"
        assumed = (f"{self.gpus} x {self.chip.name}", known, "host, network and PUE as intervals")
        return reported_or(Energy(joules.mean, joules.low, joules.high, "modelled", "facility", assumed), facts)

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """The upper end of the longest call within these bounds, in joules.

        It covers calls that share the GPUs with at least ``batch`` sequences; with the batch unknown, those above
        the lowest twentieth of the prior (4 sequences). A call that had the GPUs to itself may use more.
        """
        return self._joules(input_tokens, 0, output_tokens, self.batch).high

    def _joules(self, fresh: float, cached: float, output: float, batch: float | None) -> Range:
        if fresh + cached + output == 0:
            return Range(0.0, 0.0, 0.0)
        batches = (batch,) if batch else BATCHES
        weights = [batch_weight(b) for b in batches] if not batch else [1.0]
        at = [self._at(b, fresh, cached, output) for b in batches]
        fitted = self.chip.name == H100_2025.fitted_on
        factor = FAMILY_FACTOR if fitted else FAMILY_FACTOR * UNFITTED_CHIP_FACTOR
        return summary(at, weights, factor)

    def _at(self, batch: float, fresh: float, cached: float, output: float) -> Range:
        """Facility joules of one call among ``batch`` alike; a call without a reply takes one step."""
        tokens = max(output, 1.0)
        step = decode_step(self.shape, self.chip, self.gpus, batch, fresh, tokens, cached)
        gpu_seconds = self.gpus * step.seconds * tokens / batch
        return self.facility.of(step.joules_per_token * tokens, gpu_seconds)


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


def _plausible(batch: float | None) -> float | None:
    """A batch that a server can hold, or None for a figure that is none."""
    return min(max(batch, 1.0), _MOST_SEQUENCES) if batch is not None and batch > 0 else None
