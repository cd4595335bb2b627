"""Models and chips that the energy tests share."""

from __future__ import annotations

from agentflow.energy.chips import chip_named
from agentflow.energy.roofline import ModelShape

H100 = chip_named("H100-SXM5-80GB")
A100 = chip_named("A100-SXM4-80GB")
LLAMA_8B = ModelShape(8.0e9, 8.0e9, 32, 131_072)
LLAMA_70B = ModelShape(70.0e9, 70.0e9, 80, 328_000)
