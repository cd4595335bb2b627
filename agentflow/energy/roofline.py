"""The physics of one decode step: bytes and FLOP it moves, how long it takes, what the boards draw. Pure arithmetic.

Prefill is bound by compute, decode by memory traffic; every step pays for launching each layer and handling each
sequence. A board draws a static share of its rated power while it works, a smaller one while it waits for its engine,
and energy for every byte and FLOP, in units of what the chip would draw moving them at full rate: that is what lets
constants fitted on one chip hold on another, whose data sheet alone is known. Imports nothing of agentflow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chip:
    """An accelerator by its data sheet: watts, bytes per second, dense FLOP per second at 16, 8 and 4 bits."""

    name: str
    tdp_w: float
    bytes_per_s: float
    flops_16: float
    flops_8: float | None = None
    memory_bytes: float = 0.0
    source: str = ""
    flops_4: float | None = None
    aliases: tuple[str, ...] = ()

    def flops(self, bits: int) -> float:
        """FLOP per second at a width; the next wider one's where the chip does not compute in it."""
        if bits <= 4 and self.flops_4 is not None:
            return self.flops_4
        return self.flops_8 if bits == 8 and self.flops_8 is not None else self.flops_16


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model by its configuration.

    ``active`` and ``total`` are parameters; ``kv_bytes`` the K and V bytes per token at their precision;
    ``bytes_per_parameter`` 2 for bf16, 1 for fp8, .53 for mxfp4; ``experts`` and ``experts_used`` describe a
    mixture of experts (1 and 1 when dense, or when a mixture's numbers are not known: then all of it is taken to
    be experts). ``full_attention`` is the share of layers that attend to the whole context; the others see the
    last ``window`` tokens. ``attention_layers`` are those that attend at all, all of them unless a hybrid's are given.
    ``compute_bits`` is the width that products are computed in, where the chip can. ``guessed`` marks a shape that was
    made up from a size alone.
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
    attention_layers: int | None = None
    compute_bits: int = 16
    guessed: bool = False

    def weight_bytes(self, batch: float) -> float:
        """Bytes of weights a step reads: all dense ones, and the experts its sequences are expected to touch.

        ``D + E * (1 - (1 - k/n)^batch)``: each sequence picks ``k`` of ``n`` experts, independently of the others.
        """
        used = self.experts_used / self.experts if self.experts > 1 else self.active / self.total
        if used >= 1.0:
            return self.total * self.bytes_per_parameter
        in_experts = max((self.total - self.active) / (1.0 - used), 0.0)
        dense = max(self.total - in_experts, 0.02 * self.total)
        return self.bytes_per_parameter * (dense + in_experts * (1.0 - (1.0 - used) ** batch))

    def attended(self, context: float) -> float:
        """Tokens that a new token attends to, averaged over the layers, ``context`` tokens into its life."""
        return self.full_attention * context + (1.0 - self.full_attention) * min(context, self.window)

    def kv_read(self, context: float) -> float:
        """Bytes of K and V that one sequence reads in a step, ``context`` tokens into its life."""
        return self.kv_bytes * self.attended(context)

    def attention_flop(self, context: float) -> float:
        """FLOP that one new token spends on attention: 4 a layer, hidden value and attended token.

        The hidden size is taken from ``active = 12 * layers * hidden^2``, the plain transformer's.
        """
        hidden = math.sqrt(self.active / (12.0 * self.layers))
        return 4.0 * (self.attention_layers or self.layers) * hidden * self.attended(context)


@dataclass(frozen=True, slots=True)
class Constants:
    """The ten fitted constants. They are effective values: data/constants.json says of which runs, and when.

    Args:
        memory_efficiency: share of the data sheet's bytes per second.
        flop_efficiency: share of the data sheet's FLOP per second.
        s_per_layer: seconds to launch a layer.
        slope_per_doubling: more of it for each doubling of the GPUs (all-reduce), as a share.
        s_per_sequence: seconds a step spends on each of its sequences.
        byte_power: energy of a byte, in units of TDP / (bytes per second).
        flop_power: energy of a FLOP, in units of TDP / (FLOP per second).
        busy_power: static draw while working, as a share of TDP.
        stall_power: draw while waiting for the engine, as a share of TDP.
        old_engine: how many times longer engines of 2023 and 2024 took for layers and sequences.
    """

    memory_efficiency: float
    flop_efficiency: float
    s_per_layer: float
    slope_per_doubling: float
    s_per_sequence: float
    byte_power: float
    flop_power: float
    busy_power: float
    stall_power: float
    old_engine: float


# No board was seen above this share of its rating, averaged over a run.
MOST_POWER = 0.98


@dataclass(frozen=True, slots=True)
class Load:
    """What a step carries: ``batch`` alike sequences, each with its uncached, cached and reply tokens.

    ``checked`` tokens of each sequence go through the model in one step, and ``accepted`` come out: 1 and 1 without
    speculative decoding. ``draft`` is the size in parameters of the model that drafts the other tokens.
    """

    batch: float
    input_tokens: float
    output_tokens: float
    cached_tokens: float = 0.0
    checked: float = 1.0
    accepted: float = 1.0
    draft: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One decode step of a batch with its share of prefill: seconds, bytes, FLOP, and joules of all boards.

    ``seconds`` is what the joules were computed over: the modelled time, or the measured one that was given.
    """

    batch: float
    weight_bytes: float
    kv_bytes: float
    decode_flop: float
    prefill_flop: float
    memory_s: float
    decode_s: float
    prefill_s: float
    layers_s: float
    sequences_s: float
    stalled_s: float
    seconds: float
    static_j: float
    bytes_j: float
    flop_j: float
    most_j: float
    accepted: float = 1.0

    @property
    def busy_s(self) -> float:
        """Modelled seconds that the boards work."""
        return max(self.memory_s, self.decode_s) + self.prefill_s + self.layers_s + self.sequences_s

    @property
    def modelled_s(self) -> float:
        """Modelled seconds of the step."""
        return self.busy_s + self.stalled_s

    @property
    def joules(self) -> float:
        """Joules of all boards, at most what they can draw."""
        return min(self.most_j, self.static_j + self.bytes_j + self.flop_j)

    @property
    def joules_per_token(self) -> float:
        """Board joules per output token, prefill included."""
        return self.joules / (self.batch * self.accepted)

    @property
    def token_s(self) -> float:
        """Seconds between two tokens of one sequence."""
        return self.seconds / self.accepted


def decode_step(
    model: ModelShape,
    chip: Chip,
    gpus: int,
    load: Load,
    constants: Constants,
    *,
    overhead: float = 1.0,
    seconds: float | None = None,
    prefill_apart: bool = False,
) -> Step:
    """One decode step with the prefill of its sequences spread over their output tokens.

    Args:
        model: shape of the model.
        chip: the accelerator.
        gpus: how many of them serve the model together.
        load: the sequences.
        constants: fitted constants.
        overhead: how many times a current engine's time this one takes for layers and sequences.
        seconds: measured seconds of the step; modelled when None.
        prefill_apart: whether those are between tokens, so that a sequence's own prefill comes on top of them.
    """
    k = constants
    context = load.input_tokens + load.cached_tokens + load.output_tokens / 2
    rate = gpus * chip.flops(model.compute_bits)
    bandwidth = gpus * chip.bytes_per_s
    # Drafting reads the whole draft model once for each token drafted.
    drafts = max(load.checked - 1.0, 0.0) * load.draft
    weights = model.weight_bytes(load.batch * load.checked) + drafts * model.bytes_per_parameter
    kv = load.batch * model.kv_read(context)
    per_token = 2.0 * model.active + model.attention_flop(context)
    decode = load.batch * (load.checked * per_token + 2.0 * drafts)
    prompt = 2.0 * model.active + model.attention_flop(load.cached_tokens + load.input_tokens / 2)
    steps = load.output_tokens / load.accepted
    prefill = load.batch * load.input_tokens * prompt / steps
    layers_s = model.layers * k.s_per_layer * (1.0 + k.slope_per_doubling * math.log2(gpus))
    sequences_s = load.batch * k.s_per_sequence
    memory_s = (weights + kv) / (bandwidth * k.memory_efficiency)
    decode_s = decode / (rate * k.flop_efficiency)
    prefill_s = prefill / (rate * k.flop_efficiency)
    busy_s = max(memory_s, decode_s) + prefill_s + layers_s + sequences_s
    stalled_s = (overhead - 1.0) * (layers_s + sequences_s)
    own_prefill_s = prefill_s / load.batch if prefill_apart else 0.0
    taken = busy_s + stalled_s if seconds is None else seconds + own_prefill_s
    watts = gpus * chip.tdp_w
    static = watts * (k.busy_power * min(busy_s, taken) + k.stall_power * max(taken - busy_s, 0.0))
    return Step(
        batch=load.batch, weight_bytes=weights, kv_bytes=kv, decode_flop=decode, prefill_flop=prefill,
        memory_s=memory_s, decode_s=decode_s, prefill_s=prefill_s, layers_s=layers_s, sequences_s=sequences_s,
        stalled_s=stalled_s, seconds=taken, static_j=static,
        bytes_j=chip.tdp_w * k.byte_power * (weights + kv) / chip.bytes_per_s,
        flop_j=chip.tdp_w * k.flop_power * (decode + prefill) / chip.flops(model.compute_bits),
        most_j=MOST_POWER * watts * taken, accepted=load.accepted,
    )  # fmt: skip
