"""Energy profiles, and which of them a model gets: CPU seconds here, ``remote`` and ``gpu`` beside.

Every figure is modelled; this process's CPU time is the only thing measured. Counters (RAPL, NVML) have no probe
yet. May import everything of this folder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from agentflow.energy.architectures import find_architecture
from agentflow.energy.estimate import profile_of
from agentflow.energy.facts import CallFacts, Deployment, EnergyProfile, Range, reported_or
from agentflow.energy.gpu import Facility, GpuProfile
from agentflow.energy.interval import Energy
from agentflow.energy.remote import RemotePrior
from agentflow.errors import ConfigError

_CORE_W = Range(2.2, 6.0, 22.0)
_MEMORY_W = Range(0.4, 1.5, 3.0)
# CPU seconds of a token when nobody timed the call: a 15 M model on a fast core to an 8 B model on a slow one.
_CPU_S_PER_TOKEN = Range(0.001, 0.1, 2.0)
# Cores that a server on the CPU keeps busy when nobody says how many.
_UNKNOWN_CORES = Range(1.0, 4.0, 16.0)


@dataclass(frozen=True, slots=True)
class CpuProfile:
    """Joules of the host = CPU seconds x watts of a busy core and its share of memory.

    Watts of a core, from TDP over cores of the 94 CPUs with both figures in Green Algorithms' table (CC BY 4.0, parts
    up to about 2021): 5 % of them below 4.4 W, half below 10.8 W (of the servers, 8.6 W), 95 % below 21.7 W. Low 2.2 W:
    a hyper-thread has half of a core at the lower end. Mean 6 W: between those servers and today's with 96 cores
    (EPYC 9654, 360 W: 3.8 W). High 22 W. Memory at .3725 W/GB (same source): 1, 4 and 8 GB for each busy core.

    Args:
        watts: of one busy core.
        memory_w: of the memory that goes with it.
        threads: cores a call may keep busy.
        cores: cores it does keep busy, as a range, when ``threads`` is not known either.
    """

    name: str = "cpu seconds x watts of a busy core"
    watts: Range = _CORE_W
    memory_w: Range = _MEMORY_W
    threads: int = 1
    cores: Range | None = None

    @property
    def busy_w(self) -> Range:
        """Watts of one busy core with its memory."""
        return self.watts + self.memory_w

    def estimate(self, facts: CallFacts) -> Energy:
        """Joules of the CPU seconds used; without a count of them, of the wall clock on the cores it may use.

        A call that nobody timed is taken by its tokens, very widely: unknown is not zero.
        """
        seconds, known = self.cpu_seconds(facts)
        busy = self.busy_w
        assumed = (f"{busy.low:g} to {busy.high:g} W per busy core with memory", known)
        counted = () if facts.timings is None else (("cpu_s", seconds.mean),)
        modelled = Energy(
            seconds.mean * busy.mean,
            seconds.low * busy.low,
            seconds.high * busy.high,
            "modelled",
            "server",
            assumed,
            basis=counted,
        )
        return reported_or(modelled, facts)

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """All the cores it may use, busy at the upper watts for all of ``seconds``: joules of a call that is timed."""
        cores = self.threads if self.cores is None else self.cores.high
        return seconds * cores * self.busy_w.high

    def cpu_seconds(self, facts: CallFacts) -> tuple[Range, str]:
        """CPU seconds of a call, and how they were found."""
        timings = facts.timings
        if timings is not None and timings.cpu_s is not None and math.isfinite(timings.cpu_s):
            return Range(1.0, 1.0, 1.0) * timings.cpu_s, "CPU seconds counted"
        if timings is not None and math.isfinite(timings.total_s):
            cores = self.cores or Range(self.threads, self.threads, self.threads)
            return cores * timings.total_s, "every core it may use busy all the time"
        fresh, cached, output = facts.tokens
        return _CPU_S_PER_TOKEN * (output + 0.1 * fresh + 0.01 * cached), "not timed: CPU seconds guessed from tokens"


class EnergyFacts(Protocol):
    """What the configuration may say of a model's hardware; None is not said."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def model(self) -> str | None: ...  # noqa: D102
    @property
    def precision(self) -> str | None: ...  # noqa: D102
    @property
    def engine(self) -> str | None: ...  # noqa: D102
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


def profile_for(
    facts: EnergyFacts | None, *, model: str, in_process: bool, threads: int = 1, served: str | None = None
) -> EnergyProfile:
    """The profile of a model: what the configuration says of it, else the prior of its kind. Never zero.

    Args:
        facts: the model's ``energy`` table.
        model: its name, for messages.
        in_process: whether it runs inside this process, on the CPU.
        threads: cores it may keep busy there; 1 for a server elsewhere means that nobody said.
        served: the id that its server knows it by: a listed model's size is known.

    Raises:
        ConfigError: a GPU profile lacks a figure it cannot do without, or figures contradict each other.
    """
    unknown_cores = _UNKNOWN_CORES if not in_process and threads == 1 else None
    if facts is None:
        return CpuProfile(threads=threads) if in_process else _remote(None, served)
    if facts.kind == "cpu" and facts.watts is None:
        return CpuProfile(threads=threads, cores=unknown_cores)
    if facts.kind == "cpu" and facts.watts is not None:
        given = Range(facts.watts * 0.7, facts.watts, facts.watts * 1.5)
        return CpuProfile(watts=given, threads=threads, cores=unknown_cores)
    if facts.total_b is not None and facts.total_b < (facts.active_b or 0):
        raise ConfigError(
            f"models.{model}.energy: total_b {facts.total_b:g} is less than active_b {facts.active_b:g}. "
            "Give the total parameters, or leave total_b out."
        )
    return _remote(facts, served) if facts.kind == "remote" else _gpu_profile(facts, model)


def _remote(facts: EnergyFacts | None, served: str | None) -> EnergyProfile:
    if facts is not None and facts.active_b is not None:
        return RemotePrior.of_size(facts.active_b, facts.total_b, facts.weight_bits)
    named = (facts.model if facts is not None else None) or served
    return RemotePrior() if named is None else RemotePrior.of_model(named)


def _gpu_profile(facts: EnergyFacts, model: str) -> EnergyProfile:
    listed = facts.model is not None and find_architecture(facts.model) is not None
    needed = {"chip": facts.chip}
    if not listed:
        needed |= {"active_b": facts.active_b, "layers": facts.layers, "kv_bytes": facts.kv_bytes}
    missing = [key for key, value in needed.items() if value is None]
    if missing:
        unlisted = f" ('{facts.model}' is not a listed model)" if facts.model is not None and not listed else ""
        raise ConfigError(
            f"models.{model}.energy of kind 'gpu' needs {', '.join(missing)}{unlisted}. Give them, or kind = 'remote'."
        )
    deployment = Deployment(
        model=facts.model,
        active_b=facts.active_b,
        total_b=facts.total_b,
        layers=facts.layers,
        kv_bytes=facts.kv_bytes,
        experts=facts.experts,
        experts_used=facts.experts_used,
        precision=facts.precision or _of_bits(facts.weight_bits),
        chip=facts.chip,
        gpus=facts.gpus or 1,
        engine=facts.engine,
        batch=facts.batch,
    )
    try:
        return profile_of(deployment)
    except ConfigError as error:
        raise ConfigError(f"models.{model}.energy: {error}") from error


def _of_bits(bits: float | None) -> str | None:
    """The usual precision of so many bits a weight."""
    return None if bits is None else "bf16" if bits > 8 else "fp8" if bits > 4.5 else "int4"


__all__ = ["CpuProfile", "EnergyFacts", "Facility", "GpuProfile", "RemotePrior", "profile_for"]
