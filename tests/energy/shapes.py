"""Models, chips and deployments that the energy tests share."""

from __future__ import annotations

from agentflow.energy.chips import chip_named
from agentflow.energy.constants import shipped
from agentflow.energy.roofline import Chip, Load, ModelShape, Step, decode_step

H100 = chip_named("H100-SXM5-80GB")
A100 = chip_named("A100-SXM4-80GB")
B200 = chip_named("B200-SXM-180GB")
LLAMA_8B = ModelShape(8.0e9, 8.0e9, 32, 131_072)
LLAMA_70B = ModelShape(70.0e9, 70.0e9, 80, 328_000)
DENSE_30B = ModelShape(30e9, 30e9, 48, 98_000)
SPARSE_30B = ModelShape(3e9, 30e9, 48, 98_000, experts=128, experts_used=8)


def step(
    shape: ModelShape,
    chip: Chip = H100,
    gpus: int = 1,
    batch: float = 8,
    prompt: float = 500,
    reply: float = 300,
    cached: float = 0,
    *,
    overhead: float = 1.0,
    seconds: float | None = None,
) -> Step:
    """One step under the shipped constants."""
    load = Load(batch, prompt, reply, cached)
    return decode_step(shape, chip, gpus, load, shipped().constants, overhead=overhead, seconds=seconds)
