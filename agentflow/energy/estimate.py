"""``estimate``: joules of a call from whatever is known of it. May import everything of this folder but grid.

What every profile has in common is in ``facts``; its names can be imported from here as well.
"""

from __future__ import annotations

from dataclasses import replace

from agentflow.energy.architectures import find_architecture, precision_named, shape_of_size
from agentflow.energy.chips import chip_named
from agentflow.energy.facts import CallFacts, Deployment, EnergyProfile, Range, Speculation, reported_or
from agentflow.energy.gpu import Facility, GpuProfile, fewest_gpus
from agentflow.energy.interval import Energy, Scope
from agentflow.energy.remote import RemotePrior
from agentflow.energy.roofline import ModelShape
from agentflow.errors import ConfigError

__all__ = [
    "CallFacts", "Deployment", "EnergyProfile", "Range", "Speculation",
    "estimate", "profile_of", "reported_or", "shape_of",
]  # fmt: skip


def estimate(facts: CallFacts, *, scope: Scope = "facility") -> Energy:
    """Joules of one call, as an expectation with a 90 % interval, its provenance and what it assumed.

    What is known decides how: batch and time per token, batch alone, time alone, or tokens alone, each with a wider
    interval than the one before. Without a chip the call is taken for one of a remote model.

    Args:
        facts: the call, and in ``facts.deployment`` where it ran.
        scope: ``board``, ``server`` or ``facility``; a remote model's are always the facility's.

    Raises:
        ConfigError: the chip or the precision is not known, or figures contradict each other.

    Example:
        >>> where = Deployment(model="meta-llama/Llama-3.1-8B-Instruct", chip="H100", engine="vllm-0.11", batch=64)
        >>> energy = estimate(CallFacts(TokenUsage(input=500, output=300), deployment=where))
        >>> energy.provenance, energy.scope
        ('modelled', 'facility')
    """
    return profile_of(facts.deployment or Deployment(), scope=scope).estimate(facts)


def profile_of(deployment: Deployment, *, scope: Scope = "facility") -> EnergyProfile:
    """The profile of a deployment, as far as it is known.

    Raises:
        ConfigError: the chip or the precision is not known, or figures contradict each other.
    """
    shape = shape_of(deployment)
    chip = None if deployment.chip is None else chip_named(deployment.chip)
    if chip is None or shape is None:
        if deployment.model is not None and deployment.active_b is None:
            return RemotePrior.of_model(deployment.model)
        if deployment.active_b is None:
            return RemotePrior()
        bits = None if deployment.precision is None or shape is None else 8 * shape.bytes_per_parameter
        return RemotePrior.of_size(deployment.active_b, deployment.total_b, bits)
    return GpuProfile(
        shape,
        chip,
        deployment.gpus or fewest_gpus(shape, chip),
        deployment.batch,
        Facility() if deployment.pue is None else Facility(pue=deployment.pue),
        scope=scope,
        engine=deployment.engine,
        speculation=deployment.speculation,
    )


def shape_of(deployment: Deployment) -> ModelShape | None:
    """The model's shape: its published one with what the deployment says in its place; None when nothing is known.

    Raises:
        ConfigError: the precision is not known, or figures contradict each other.
    """
    d = deployment
    precision = precision_named(d.precision)
    if d.precision is not None and precision is None:
        raise ConfigError(
            f"Precision '{d.precision}' is not known. Give bf16, fp16, fp8, int8, int4, nf4, mxfp4 or nvfp4."
        )
    if d.total_b is not None and d.active_b is not None and d.total_b < d.active_b:
        raise ConfigError(
            f"total_b {d.total_b:g} is less than active_b {d.active_b:g}. Give the total, or leave it out."
        )
    if (d.experts_used or 1) > (d.experts or 1):
        raise ConfigError(f"A token uses {d.experts_used} experts of {d.experts or 1}. Give experts, at least as many.")
    known = find_architecture(d.model) if d.model is not None and d.active_b is None else None
    if known is not None:
        shape = known.shape
    elif d.active_b is not None:
        shape = shape_of_size(d.active_b, d.total_b)
        shape = replace(shape, guessed=d.layers is None or d.kv_bytes is None)
    else:
        return None
    if precision is not None:
        shape = replace(shape, bytes_per_parameter=precision.bytes_per_parameter, compute_bits=precision.compute_bits)
    shape = replace(
        shape,
        layers=d.layers or shape.layers,
        kv_bytes=d.kv_bytes if d.kv_bytes is not None else shape.kv_bytes * d.kv_bits / 16,
        experts=d.experts or shape.experts,
        experts_used=d.experts_used or shape.experts_used,
    )
    return shape
