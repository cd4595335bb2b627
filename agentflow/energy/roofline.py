"""The roofline of a decode step: how long it takes and what the boards draw. Pure arithmetic, no agentflow imports.

Prefill is bound by compute, decode by memory traffic, and every step pays a fixed price per layer and per
sequence. Constants were fitted on 274 measured H100 runs (ML.ENERGY-style board energy, 2025 engines): effective
values and starting points, not physics; they trade off against each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chip:
    """An accelerator by its data sheet: watts, bytes per second, dense FLOP per second at 16 and 8 bits."""

    name: str
    tdp_w: float
    bytes_per_s: float
    flops_16: float
    flops_8: float | None = None


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model by its configuration.

    ``active`` and ``total`` are parameters; ``kv_bytes`` the K and V bytes per token at their precision;
    ``bytes_per_parameter`` 2 for bf16, 1 for fp8, .53 for mxfp4; ``experts`` and ``experts_used`` describe a
    mixture of experts (1 and 1 when dense).
    """

    active: float
    total: float
    layers: int
    kv_bytes: float
    bytes_per_parameter: float = 2.0
    experts: int = 1
    experts_used: int = 1


@dataclass(frozen=True, slots=True)
class Constants:
    """The fitted constants (fit of 2026-06 on H100 text rows). Units in the names' comments."""

    memory_efficiency: float = 0.947
    flop_efficiency: float = 0.675
    s_per_layer: float = 76.9e-6
    slope_per_doubling: float = 0.454  # of the per-layer time, for each doubling of the GPUs
    s_per_sequence: float = 91.5e-6
    j_per_byte: float = 49.9e-12
    j_per_flop: float = 0.97e-12
    static_share: float = 0.535  # of TDP


H100_2025 = Constants()


@dataclass(frozen=True, slots=True)
class Step:
    """One decode step of a batch: seconds, and joules of all boards; both shared by ``batch`` sequences."""

    seconds: float
    joules: float
    batch: float

    @property
    def joules_per_token(self) -> float:
        """Board joules per output token, prefill included."""
        return self.joules / self.batch


def decode_step(
    model: ModelShape,
    chip: Chip,
    gpus: int,
    batch: float,
    input_tokens: float,
    output_tokens: float,
    cached_tokens: float = 0.0,
    constants: Constants = H100_2025,
) -> Step:
    """One decode step with the prefill of its sequences spread over their output tokens.

    Args:
        model: shape of the model.
        chip: the accelerator.
        gpus: how many of them serve the model together.
        batch: sequences decoded together.
        input_tokens: uncached prompt tokens of each sequence.
        output_tokens: reply tokens of each sequence, at least one.
        cached_tokens: prompt tokens whose K and V are already there: read at every step, not computed.
        constants: fitted constants.
    """
    k = constants
    traffic = _weight_bytes(model, batch) + batch * model.kv_bytes * (input_tokens + cached_tokens + output_tokens / 2)
    decode_flop = 2.0 * model.active * batch
    prefill_flop = 2.0 * model.active * batch * input_tokens / output_tokens
    eight_bit = chip.flops_8 is not None and model.bytes_per_parameter == 1.0
    flops = gpus * (chip.flops_8 if eight_bit and chip.flops_8 else chip.flops_16) * k.flop_efficiency
    seconds = (
        max(traffic / (gpus * chip.bytes_per_s * k.memory_efficiency), decode_flop / flops)
        + prefill_flop / flops
        + model.layers * k.s_per_layer * (1.0 + k.slope_per_doubling * math.log2(gpus))
        + batch * k.s_per_sequence
    )
    drawn = (
        gpus * k.static_share * chip.tdp_w * seconds
        + k.j_per_byte * traffic
        + k.j_per_flop * (decode_flop + prefill_flop)
    )
    return Step(seconds, min(gpus * chip.tdp_w * seconds, drawn), batch)


def _weight_bytes(model: ModelShape, batch: float) -> float:
    """Bytes of weights read in a step: all dense ones, and the experts that the batch is expected to touch."""
    if model.experts <= 1:
        return model.active * model.bytes_per_parameter
    used = model.experts_used / model.experts
    in_experts = max((model.total - model.active) / (1.0 - used), 0.0)
    dense = max(model.total - in_experts, 0.02 * model.total)
    return model.bytes_per_parameter * (dense + in_experts * (1.0 - (1.0 - used) ** batch))
