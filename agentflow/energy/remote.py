"""A remote model: which chips it may run on, in which numbers, how busy. Honestly wide. May import gpu, chips.

Of a model whose size is not known either, joules per token are a published average with wide ends.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from agentflow.energy.architectures import PRECISIONS, find_architecture, shape_of_size
from agentflow.energy.chips import chips
from agentflow.energy.constants import Tier, shipped
from agentflow.energy.facts import CallFacts, Range, reported_or
from agentflow.energy.gpu import Estimate, GpuProfile, basis, fewest_gpus, plausible, pooled, summary, tier_of
from agentflow.energy.interval import Energy
from agentflow.energy.population import Parts, Population
from agentflow.energy.roofline import ModelShape

# Where a remote model is likely to run, and how likely against each other. Assumed.
_HOSTS = (("H100-SXM5-80GB", 1.0), ("H200-SXM-141GB", 1.0), ("A100-SXM4-80GB", 0.5), ("B200-SXM-180GB", 0.5))
# Joules per token with nothing known; RemotePrior says where from.
_OUTPUT_J = Range(0.1, 3.0, 15.0)
_INPUT_J = Range(0.01, 0.3, 1.5)
# The call that tokens are weighed on.
_PROMPT, _REPLY = 1000.0, 300.0
# Sizes within an interval that are tried, spread evenly by order of magnitude.
_SIZES = 3


@dataclass(frozen=True, slots=True)
class ClosedModel:
    """A model of unpublished size: others' estimates of it in billions of parameters, as sourced intervals."""

    id: str
    active_b: tuple[float, float]
    total_b: tuple[float, float]
    source: str


@functools.cache
def closed_models() -> Mapping[str, ClosedModel]:
    """Every closed model with published estimates, by each of its ids."""
    table = json.loads(resources.files("agentflow.energy").joinpath("data/closed_models.json").read_text("utf-8"))
    return {
        name: ClosedModel(name, tuple(row["active_b"]), tuple(row["total_b"]), f"{row['source']}, {row['date']}")
        for row in table["models"]
        for name in row["ids"]
    }


@dataclass(frozen=True, slots=True)
class RemotePrior:
    """Joules per token of a remote model, for the whole facility.

    With nothing known: the mean per output token is a published average, 0.34 Wh a query (OpenAI, June 2025) =
    1,224 J, over about 400 tokens 3 J; Google's median prompt of May 2025, 0.24 Wh, lies below. The ends and the
    input tokens come from the roofline, over models of 3 to 400 billion active parameters (spread evenly by
    order of magnitude), 8 and 16 bit, four data centre chips, the batch prior and engines of three ages: 90 % of that
    population lies between .13 and 11 J per output token and between .013 and 1.2 J per input token, with means 2.8
    and .29. The ends are taken a little further out, for what the roofline itself is off by. A test derives these
    figures again.

    A cached input token is counted at a tenth of the low and the mean and half of the high: its memory is read, its
    products are not computed.

    With the model's size known, ``parts`` are the deployments it may have. When the time per token of a call or its
    batch is known too, they are weighed by it; the upper end that was held for the call still bounds it.
    """

    name: str = "remote model of unknown size"
    output: Range = _OUTPUT_J
    input: Range = _INPUT_J
    assumed: str = "model size, chip and batch unknown"
    parts: Parts = field(default=(), repr=False)
    _population: Population = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Remember the parts as one population, whose columns are made when a call first asks."""
        object.__setattr__(self, "_population", Population(self.parts))

    @classmethod
    def of_size(cls, active_b: float, total_b: float | None = None, bits: float | None = None) -> RemotePrior:
        """The prior of a model whose size is known, and whose chip and batch are not.

        Args:
            active_b: active parameters, billions.
            total_b: total parameters, billions; the active ones when None.
            bits: bits a weight; 8 or 16 when None.
        """
        shapes = [
            ModelShape(
                s.active, s.total, s.layers, s.kv_bytes, width / 8, compute_bits=8 if width == 8 else 16, guessed=True
            )
            for width in ((bits,) if bits else (8.0, 16.0))
            for s in (shape_of_size(active_b, total_b),)
        ]
        return cls._of(shapes, f"remote model of {active_b:g} B active parameters", "chip and batch unknown")

    @classmethod
    def of_model(cls, model: str) -> RemotePrior:
        """The prior of a model by its exact id: of its published shape or size, else of nothing known."""
        known, closed = find_architecture(model), closed_models().get(model)
        if known is not None:
            return cls._of([known.shape], f"{model} on unknown chips", "chip and batch unknown")
        if closed is None:
            return cls(assumed=f"'{model}' is not listed: its size, chip and batch unknown")
        (low, high), (total_low, total_high) = closed.active_b, closed.total_b
        steps = [n / (_SIZES - 1) for n in range(_SIZES)]
        shapes = [
            shape_of_size(low * (high / low) ** at, total_low * (total_high / total_low) ** at, PRECISIONS[precision])
            for at in steps
            for precision in ("fp8", "bf16")
        ]
        assumed = f"{low:g} to {high:g} B active parameters ({closed.source}), chip and batch unknown"
        return cls._of(shapes, f"{model}, whose size is estimated", assumed)

    @classmethod
    def _of(cls, shapes: Sequence[ModelShape], name: str, assumed: str) -> RemotePrior:
        parts = tuple(_parts(shapes))
        found = list(_population(parts))
        weights = [part.weight for part in found]
        k = shipped()
        factor = math.exp(k.widths["batch"] * k.floor)
        return cls(
            name,
            summary([part.output for part in found], weights, factor),
            summary([part.input for part in found], weights, factor),
            assumed,
            parts,
        )

    @property
    def cached(self) -> Range:
        """Joules of a prompt token that was read from a cache."""
        return Range(self.input.low / 10, self.input.mean / 10, self.input.high / 2)

    def estimate(self, facts: CallFacts) -> Energy:
        """Tokens times their prior; with the time per token known, the deployments that explain it."""
        fresh, cached, output = facts.tokens
        tier = self._tier(facts)
        if tier is None:
            joules, assumed = self.output * output + self.input * fresh + self.cached * cached, (self.assumed,)
        else:
            most = self.output.high * output + self.input.high * fresh + self.cached.high * cached
            found = self._found(facts, tier)
            joules = Range(min(found.low, most), min(found.mean, most), min(found.high, most))
            said = "batch known" if tier == "batch" else "hardware inferred from the time per token"
            assumed = (self.assumed, said)
        modelled = Energy(joules.mean, joules.low, joules.high, "modelled", "facility", assumed, basis=basis(facts))
        return reported_or(modelled, facts)

    def ceiling(self, input_tokens: int, output_tokens: int, seconds: float) -> float:
        """Every token at its upper end, in joules."""
        return self.output.high * max(output_tokens, 0) + self.input.high * max(input_tokens, 0)

    def weighed(self, facts: CallFacts) -> Estimate | None:
        """The deployments weighed by the time per token and the batch of a call; None when neither is known."""
        tier = self._tier(facts)
        if tier is None:
            return None
        tokens = tuple(map(float, facts.tokens))
        found = [
            hypothesis.times(weight)
            for weight, part in self.parts
            for hypothesis in part.hypotheses(
                tokens, tier, plausible(facts.batch), facts.token_s, apart=facts.step_s is None
            )
        ]
        k = shipped()
        return pooled(found, tier, k.unfitted[tier], k.floor)

    def _tier(self, facts: CallFacts) -> Tier | None:
        """What the deployments can be weighed by; None when there is nothing."""
        tier = tier_of(facts)
        return tier if tier != "tokens" and self.parts and facts.tokens[2] > 0 else None

    def _found(self, facts: CallFacts, tier: Tier) -> Range:
        """The joules of ``weighed``, without its hypotheses."""
        return self._population.joules(
            facts.tokens, tier, plausible(facts.batch), facts.token_s, shipped().unfitted[tier],
            apart=facts.step_s is None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _PerToken:
    weight: float
    output: Range
    input: Range


def _parts(shapes: Sequence[ModelShape]) -> Iterator[tuple[float, GpuProfile]]:
    """Deployments that models of these shapes may have, with how likely they are."""
    for shape in shapes:
        for name, likely in _HOSTS:
            chip = chips()[name]
            yield likely, GpuProfile(shape, chip, fewest_gpus(shape, chip))


def _population(parts: Parts) -> Iterator[_PerToken]:
    """Joules per token of every deployment, at every batch and on every engine."""
    for weight, part in parts:
        # With the prompt cached, a reply pays for itself; what it costs more without is the prompt's.
        replies = part.hypotheses((0.0, _PROMPT, _REPLY), "tokens")
        wholes = part.hypotheses((_PROMPT, 0.0, _REPLY), "tokens")
        for reply, whole in zip(replies, wholes, strict=True):
            a, b = reply.joules, whole.joules
            prompt = Range(b.low - a.low, b.mean - a.mean, b.high - a.high)
            yield _PerToken(weight * reply.weight, a * (1 / _REPLY), prompt * (1 / _PROMPT))
