"""Energy profiles: CPU seconds, a remote model of unknown size, a known model on known GPUs.

Every figure here is modelled; process CPU time is the only thing measured. Counters (RAPL, NVML) have no
probe yet. May import estimate, roofline, chips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agentflow.energy.chips import chip_named
from agentflow.energy.estimate import CallFacts, EnergyProfile, reported_or
from agentflow.energy.interval import Energy
from agentflow.energy.roofline import Chip, ModelShape, decode_step
from agentflow.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CpuProfile:
    """Joules = CPU seconds x watts of a busy core, its share of memory and board included.

    The prior of watts per busy core: low 2 W (laptop parts, 15-28 W over 4-14 cores), mean 6 W, high 15 W (desktop
    parts, 125-170 W over 8-16 cores); servers lie between, EPYC 9654: 360 W / 96 = 3.8 W, plus memory. ``threads``
    is how many cores a call may keep busy.
    """

    name: str = "cpu seconds x watts per busy core"
    low_w: float = 2.0
    mean_w: float = 6.0
    high_w: float = 15.0
    threads: int = 1

    def estimate(self, facts: CallFacts) -> Energy:
        """Joules of the CPU seconds used; without a count of them, of the wall clock on ``threads`` cores."""
        if facts.timings is None:
            return Energy()
        cpu_s = facts.timings.cpu_s
        if cpu_s is None:
            cpu_s = facts.timings.total_s * self.threads
        assumed = (f"{self.low_w:g} to {self.high_w:g} W per busy core",)
        modelled = Energy(cpu_s * self.mean_w, cpu_s * self.low_w, cpu_s * self.high_w, "modelled", "host", assumed)
        return reported_or(modelled, facts)

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """``threads`` cores busy at the upper watts for all of ``seconds``."""
        return seconds * self.threads * self.high_w


@dataclass(frozen=True, slots=True)
class PerToken:
    """Joules of one token: low, mean, high."""

    low: float
    mean: float
    high: float

    def __mul__(self, tokens: float) -> PerToken:
        return PerToken(self.low * tokens, self.mean * tokens, self.high * tokens)


@dataclass(frozen=True, slots=True)
class RemotePrior:
    """A remote model of which nothing is known but its tokens. Honestly wide.

    Per output token, whole facility: published medians are 0.24 Wh a prompt (Google, May 2025) and 0.34 Wh
    (OpenAI, June 2025); 0.34 Wh = 1,224 J, over about 400 tokens 3 J. Low 0.15 J: an 8B model at a large batch,
    0.12 J of board energy measured, plus hosts. High 15 J: a 405B dense model at batch 8. Per input token: two FLOP per
    active parameter at 0.8-1.8 pJ: 8B 0.013 J and up, 405B 1.5 J with hosts. A cached input token is counted at a
    tenth of the low and mean and half of the high: its memory is read, not computed.
    """

    name: str = "remote model of unknown size"
    output: PerToken = PerToken(0.15, 3.0, 15.0)
    input: PerToken = PerToken(0.02, 0.2, 1.5)
    cached: PerToken = PerToken(0.002, 0.02, 0.75)

    def estimate(self, facts: CallFacts) -> Energy:
        """Tokens times their prior."""
        usage = facts.usage
        parts = (
            self.output * usage.output,
            self.input * (usage.input - usage.cached_input),
            self.cached * usage.cached_input,
        )
        modelled = Energy(
            sum(p.mean for p in parts),
            sum(p.low for p in parts),
            sum(p.high for p in parts),
            "modelled",
            "facility",
            ("model size, chip and batch unknown",),
        )
        return reported_or(modelled, facts)

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """Every token at its upper end."""
        return self.output.high * output_tokens + self.input.high * input_tokens


# How many sequences a server decodes together, when nobody says: ln B ~ N(ln 64, 1.6).
_BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_BATCH_MEDIAN, _BATCH_SPREAD = 64.0, 1.6
# Factor either side that covered 90 % of model families the constants were not fitted on, batch known.
_FAMILY_FACTOR = 1.68


@dataclass(frozen=True, slots=True)
class Facility:
    """From boards to the building: watts of host and network per GPU, power supply efficiency, PUE, as intervals.

    ``E = PUE * (E_board + (host + network) * GPU-seconds) / efficiency``: additive, because a host's draw does not
    follow its boards'. Starting points from published server power models; PUE 1.1 (hyperscale) to 1.56 (unknown).
    """

    host_w: PerToken = PerToken(110.0, 140.0, 210.0)
    efficiency: PerToken = PerToken(0.96, 0.93, 0.89)
    pue: PerToken = PerToken(1.09, 1.2, 1.56)

    def of(self, joules: float, gpu_seconds: float, end: Callable[[PerToken], float]) -> float:
        """Facility joules at one end of the interval."""
        return end(self.pue) * (joules + end(self.host_w) * gpu_seconds) / end(self.efficiency)


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
        """Joules of the whole facility for one call."""
        usage = facts.usage
        batch = facts.batch or self.batch
        fresh = usage.input - usage.cached_input
        low, mean, high = self._joules(fresh, usage.cached_input, usage.output, batch)
        known = f"batch {batch:g}" if batch else "batch unknown: 1 to 2048, median 64"
        assumed = (f"{self.gpus} x {self.chip.name}", known, "host, network and PUE as intervals")
        return reported_or(Energy(mean, low, high, "modelled", "facility", assumed), facts)

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """The upper end of the longest call within these bounds."""
        return self._joules(input_tokens, 0, output_tokens, self.batch)[2]

    def _joules(self, fresh: float, cached: float, output: float, batch: float | None) -> tuple[float, float, float]:
        if fresh + cached + output == 0:
            return 0.0, 0.0, 0.0
        batches = (batch,) if batch else _BATCHES
        weights = (1.0,) if batch else tuple(_batch_weight(b) for b in _BATCHES)
        ends = (_low, _mean, _high)
        lows, means, highs = ([self._at(b, fresh, cached, output, end) for b in batches] for end in ends)
        mean = sum(w * m for w, m in zip(weights, means, strict=True)) / sum(weights)
        low = _quantile(lows, weights, 0.05) / _FAMILY_FACTOR
        high = _quantile(highs, weights, 0.95) * _FAMILY_FACTOR
        return min(low, mean), mean, max(high, mean)

    def _at(self, batch: float, fresh: float, cached: float, output: float, end: Callable[[PerToken], float]) -> float:
        """Facility joules of one call among ``batch`` alike."""
        tokens = max(output, 1.0)
        step = decode_step(self.shape, self.chip, self.gpus, batch, fresh, tokens, cached)
        joules = step.joules_per_token * tokens
        gpu_seconds = self.gpus * step.seconds * tokens / batch
        return self.facility.of(joules, gpu_seconds, end)


class EnergyFacts(Protocol):
    """What the configuration may say of a model's hardware; None is not said."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def active_b(self) -> float | None: ...  # noqa: D102
    @property
    def total_b(self) -> float | None: ...  # noqa: D102
    @property
    def layers(self) -> int | None: ...  # noqa: D102
    @property
    def kv_bytes(self) -> float | None: ...  # noqa: D102
    @property
    def weight_bits(self) -> float | None: ...  # noqa: D102
    @property
    def experts(self) -> int | None: ...  # noqa: D102
    @property
    def experts_used(self) -> int | None: ...  # noqa: D102
    @property
    def chip(self) -> str | None: ...  # noqa: D102
    @property
    def gpus(self) -> int | None: ...  # noqa: D102
    @property
    def batch(self) -> float | None: ...  # noqa: D102
    @property
    def watts(self) -> float | None: ...  # noqa: D102


def profile_for(facts: EnergyFacts | None, *, model: str, in_process: bool, threads: int = 1) -> EnergyProfile:
    """The profile of a model: what the configuration says of it, else the prior of its kind. Never zero.

    Args:
        facts: the model's ``energy`` table.
        model: its name, for messages.
        in_process: whether it runs inside this process, on the CPU.
        threads: cores it may keep busy there.

    Raises:
        ConfigError: a GPU profile lacks a figure it cannot do without.
    """
    if facts is None:
        return CpuProfile(threads=threads) if in_process else RemotePrior()
    if facts.kind == "cpu":
        if facts.watts is None:
            return CpuProfile(threads=threads)
        return CpuProfile(low_w=facts.watts * 0.7, mean_w=facts.watts, high_w=facts.watts * 1.5, threads=threads)
    if facts.kind == "remote":
        return RemotePrior()
    needed = {"active_b": facts.active_b, "layers": facts.layers, "kv_bytes": facts.kv_bytes, "chip": facts.chip}
    missing = [key for key, value in needed.items() if value is None]
    if facts.active_b is None or facts.layers is None or facts.kv_bytes is None or facts.chip is None:
        raise ConfigError(
            f"models.{model}.energy of kind 'gpu' needs {', '.join(missing)}. Give them, or kind = 'remote'."
        )
    shape = ModelShape(
        active=facts.active_b * 1e9,
        total=(facts.total_b or facts.active_b) * 1e9,
        layers=facts.layers,
        kv_bytes=facts.kv_bytes,
        bytes_per_parameter=(facts.weight_bits or 16) / 8,
        experts=facts.experts or 1,
        experts_used=facts.experts_used or 1,
    )
    return GpuProfile(shape, chip_named(facts.chip), facts.gpus or 1, facts.batch)


def _batch_weight(batch: float) -> float:
    return math.exp(-0.5 * (math.log(batch / _BATCH_MEDIAN) / _BATCH_SPREAD) ** 2)


def _quantile(values: list[float], weights: tuple[float, ...], part: float) -> float:
    """The weighted quantile: the least value with ``part`` of the weight at or below it."""
    reached, whole = 0.0, sum(weights)
    for value, weight in sorted(zip(values, weights, strict=True)):
        reached += weight
        if reached >= part * whole:
            return value
    return max(values)


def _low(interval: PerToken) -> float:
    return interval.low


def _mean(interval: PerToken) -> float:
    return interval.mean


def _high(interval: PerToken) -> float:
    return interval.high


__all__ = ["CpuProfile", "EnergyFacts", "Facility", "GpuProfile", "PerToken", "RemotePrior", "profile_for"]
