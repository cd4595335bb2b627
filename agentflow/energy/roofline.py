"""The roofline of a decode step: how long it takes and what the boards draw. Pure arithmetic, no agentflow imports.

Prefill is bound by compute, decode by memory traffic, and every step pays a fixed price per layer and per
sequence. Constants were fitted on 274 measured H100 runs of the ML.ENERGY leaderboard (board energy, 2025 engine):
effective values and starting points, not physics; they trade off against each other. Attention FLOPs, quadratic
in the context, are left out: beyond about 32,000 tokens the figure is too low.
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
    memory_bytes: float = 0.0
    source: str = ""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model by its configuration.

    ``active`` and ``total`` are parameters; ``kv_bytes`` the K and V bytes per token at their precision;
    ``bytes_per_parameter`` 2 for bf16, 1 for fp8, .53 for mxfp4; ``experts`` and ``experts_used`` describe a
    mixture of experts (1 and 1 when dense, or when a mixture's numbers are not known: then all of it is taken to
    be experts). ``full_attention`` is the share of layers that attend to the whole context; the others see the
    last ``window`` tokens.
    """

    active: float
    total: float
    layers: int
    kv_bytes: float
    bytes_per_parameter: float = 2.0
    experts: int = 1
    experts_used: int = 1
    full_attention: float = 1.0
    window: int = 1024

    def weight_bytes(self, batch: float) -> float:
        """Bytes of weights a step reads: all dense ones, and the experts its sequences are expected to touch."""
        used = self.experts_used / self.experts if self.experts > 1 else self.active / self.total
        if used >= 1.0:
            return self.total * self.bytes_per_parameter
        in_experts = max((self.total - self.active) / (1.0 - used), 0.0)
        dense = max(self.total - in_experts, 0.02 * self.total)
        return self.bytes_per_parameter * (dense + in_experts * (1.0 - (1.0 - used) ** batch))

    def kv_read(self, context: float) -> float:
        """Bytes of K and V that one sequence reads in a step, ``context`` tokens into its life."""
        seen = self.full_attention * context + (1.0 - self.full_attention) * min(context, self.window)
        return self.kv_bytes * seen


@dataclass(frozen=True, slots=True)
class Constants:
    """The fitted constants, by default those of a joint fit of energy and step time on 274 H100 text runs.

    Effective values of one engine (vLLM 0.11, fitted mid-2026): the times per layer and per sequence are software,
    and age with it. Ranges over ten fits on half of the model families: memory .76-.95, FLOP .26-.90, layer 12-98
    us, slope .02-3, sequence 65-105 us, byte 8-68 pJ, FLOP .60-2.6 pJ, static .42-.60.
    """

    fitted_on: str = "H100-SXM5-80GB"
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
    context = input_tokens + cached_tokens + output_tokens / 2
    traffic = model.weight_bytes(batch) + batch * model.kv_read(context)
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
