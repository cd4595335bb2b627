"""A remote model of which little is known but its tokens: joules per token, honestly wide. May import gpu, chips."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from agentflow.energy.chips import chips
from agentflow.energy.estimate import CallFacts, Range, reported_or
from agentflow.energy.gpu import BATCHES, FAMILY_FACTOR, Facility, batch_weight, summary
from agentflow.energy.interval import Energy
from agentflow.energy.roofline import Chip, ModelShape, decode_step

# Where a remote model is likely to run, and how likely against each other.
_HOSTS = (("H100-SXM5-80GB", 1.0), ("H200-SXM-141GB", 1.0), ("A100-SXM4-80GB", 0.5), ("B200-SXM-180GB", 0.5))
_MOST_GPUS = 16
# Joules per token with nothing known; RemotePrior says where from.
_OUTPUT_J = Range(0.1, 3.0, 15.0)
_INPUT_J = Range(0.01, 0.3, 1.5)
# The call that tokens are weighed on.
_PROMPT, _REPLY = 1000.0, 300.0


@dataclass(frozen=True, slots=True)
class RemotePrior:
    """Joules per token of a remote model, for the whole facility.

    With nothing known: the mean per output token is a published average, 0.34 Wh a query (OpenAI, June 2025) =
    1,224 J, over about 400 tokens 3 J; Google's median prompt of May 2025, 0.24 Wh, lies below. The ends and the
    input tokens come from the roofline, over models of 3 to 400 billion active parameters (spread evenly by
    order of magnitude), 8 and 16 bit, four data centre chips and the batch prior: 90 % of that population lies
    between .13 and 10.3 J per output token and between .016 and 1.3 J per input token, with means 2.6 and .31. The
    ends are taken a little further out, for what the roofline itself is off by. A test derives these figures again.

    A cached input token is counted at a tenth of the low and the mean and half of the high: its memory is read, its
    products are not computed.
    """

    name: str = "remote model of unknown size"
    output: Range = _OUTPUT_J
    input: Range = _INPUT_J
    assumed: str = "model size, chip and batch unknown"

    @classmethod
    def of_size(cls, active_b: float, total_b: float | None = None, bits: float | None = None) -> RemotePrior:
        """The prior of a model whose size is known, and whose chip and batch are not.

        Args:
            active_b: active parameters, billions.
            total_b: total parameters, billions; the active ones when None.
            bits: bits a weight; 8 or 16 when None.
        """
        parts = list(_population(active_b, total_b or active_b, (bits,) if bits else (8.0, 16.0)))
        weights = [part.weight for part in parts]
        return cls(
            name=f"remote model of {active_b:g} B active parameters",
            output=summary([part.output for part in parts], weights, FAMILY_FACTOR),
            input=summary([part.input for part in parts], weights, FAMILY_FACTOR),
            assumed="chip and batch unknown",
        )

    @property
    def cached(self) -> Range:
        """Joules of a prompt token that was read from a cache."""
        return Range(self.input.low / 10, self.input.mean / 10, self.input.high / 2)

    def estimate(self, facts: CallFacts) -> Energy:
        """Tokens times their prior."""
        fresh, cached, output = facts.tokens
        joules = self.output * output + self.input * fresh + self.cached * cached
        return reported_or(Energy(joules.mean, joules.low, joules.high, "modelled", "facility", (self.assumed,)), facts)

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """Every token at its upper end, in joules."""
        return (self.output * output_tokens + self.input * input_tokens).high


@dataclass(frozen=True, slots=True)
class _Deployment:
    weight: float
    output: Range
    input: Range


def _population(active_b: float, total_b: float, bits: tuple[float, ...]) -> Iterator[_Deployment]:
    """Deployments that a model of this size may have, with joules per token of each."""
    for name, likely in _HOSTS:
        chip = chips()[name]
        for width in bits:
            shape = _shape(active_b, total_b, width)
            gpus = _gpus(shape, chip)
            for batch in BATCHES:
                # With the prompt cached, a reply pays for itself; what it costs more without is the prompt's.
                reply = _joules(shape, chip, gpus, batch, cached=_PROMPT)
                whole = _joules(shape, chip, gpus, batch, fresh=_PROMPT)
                prompt = Range(whole.low - reply.low, whole.mean - reply.mean, whole.high - reply.high)
                weight = likely * batch_weight(batch)
                yield _Deployment(weight, reply * (1 / _REPLY), prompt * (1 / _PROMPT))


def _joules(
    shape: ModelShape, chip: Chip, gpus: int, batch: float, *, fresh: float = 0.0, cached: float = 0.0
) -> Range:
    step = decode_step(shape, chip, gpus, batch, fresh, _REPLY, cached)
    return Facility().of(step.joules_per_token * _REPLY, gpus * step.seconds * _REPLY / batch)


def _shape(active_b: float, total_b: float, bits: float) -> ModelShape:
    """A model of a size, built as the Llama 3 family is: 32 layers at 8 B, 80 at 70 B; 4 kB of K and V a layer."""
    layers = max(16, round(32 * (active_b / 8) ** 0.42))
    return ModelShape(active_b * 1e9, max(total_b, active_b) * 1e9, layers, layers * 4096.0, bits / 8)


def _gpus(shape: ModelShape, chip: Chip) -> int:
    """The least power of two of chips that holds the weights and a fifth more, 16 at most."""
    needed = 1.2 * shape.total * shape.bytes_per_parameter / chip.memory_bytes
    return min(2 ** math.ceil(math.log2(max(needed, 1.0))), _MOST_GPUS)
