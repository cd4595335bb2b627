"""Models by their published configurations, from data/architectures.json; and what a precision takes.

Ids match exactly or not at all: a model that is only named alike has other layers. Imports roofline.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from agentflow.energy.roofline import ModelShape


@dataclass(frozen=True, slots=True)
class Precision:
    """Weights of a kind: bytes a parameter with its scales, the bits products are computed in, and why."""

    bytes_per_parameter: float
    compute_bits: int
    source: str


_BF16 = Precision(2.0, 16, "16 bits")
_EIGHT = Precision(1.0, 8, "8 bits; scales are few")
_INT4 = Precision(0.53, 16, "4 bits and a 16-bit scale for each 128 weights; products in 16 bits")
_NVFP4 = Precision(0.5625, 4, "4 bits and an 8-bit scale for each 16 weights (NVIDIA, 2025)")
PRECISIONS: Mapping[str, Precision] = {
    "bf16": _BF16,
    "bfloat16": _BF16,
    "fp16": _BF16,
    "float16": _BF16,
    "fp8": _EIGHT,
    "fp8_e4m3": _EIGHT,
    "float8": _EIGHT,
    "mxfp8": _EIGHT,
    "w8a8": _EIGHT,
    "int8": _EIGHT,
    "int4": _INT4,
    "awq": _INT4,
    "gptq": _INT4,
    "w4a16": _INT4,
    "nf4": Precision(0.5625, 16, "4 bits and a 32-bit scale for each 64 weights (QLoRA, 2023); products in 16 bits"),
    "mxfp4": Precision(
        0.53, 16, "4 bits and an 8-bit scale for each 32 weights (OCP MX 1.0, 2023); products in 16 bits"
    ),
    "nvfp4": _NVFP4,
    "fp4": _NVFP4,
}


def precision_named(name: str | None) -> Precision | None:
    """The precision of this name, None when there is none."""
    return PRECISIONS.get(name.lower()) if name else None


@dataclass(frozen=True, slots=True)
class Architecture:
    """A published model: its shape at 16 bits (or as published), and where that is from."""

    id: str
    shape: ModelShape
    source: str


@functools.cache
def _table() -> Mapping[str, Any]:
    return json.loads(resources.files("agentflow.energy").joinpath("data/architectures.json").read_text("utf-8"))


@functools.cache
def architectures() -> Mapping[str, Architecture]:
    """Every known model by each of its ids."""
    table = _table()
    source = "its published config.json and model card"
    return {
        name: Architecture(name, _shape(row), f"{source}, {row['date']}, as recalled")
        for row in table["models"]
        for name in row["ids"]
    }


def find_architecture(model: str) -> Architecture | None:
    """The model of exactly this id, None when it is not listed."""
    return architectures().get(model)


def _shape(row: Mapping[str, Any]) -> ModelShape:
    attending = row.get("kv_layers", row["layers"])
    values = row["kv_values_per_layer"] if "kv_values_per_layer" in row else 2 * row["kv_heads"] * row["head_dim"]
    weights = PRECISIONS[row.get("native_precision", "bf16")]
    return ModelShape(
        active=row["active_b"] * 1e9,
        total=row["total_b"] * 1e9,
        layers=row["layers"],
        kv_bytes=2.0 * attending * values,
        bytes_per_parameter=weights.bytes_per_parameter,
        experts=row.get("experts", 1),
        experts_used=row.get("experts_used", 1),
        full_attention=row.get("full_attention", 1.0),
        window=row.get("window", 1024),
        attention_layers=attending,
        compute_bits=weights.compute_bits,
    )


def shape_of_size(active_b: float, total_b: float | None, precision: Precision = _BF16) -> ModelShape:
    """A shape made up for a model of which only the size is known, in billions of parameters.

    Built as the Llama 3 family is: 32 layers at 8 B, 80 at 70 B; 4 kB of K and V a layer and token. A mixture has the
    layers of a dense model between its active and its total size (their geometric mean).
    """
    total = max(total_b or active_b, active_b)
    layers = max(16, round(32 * (math.sqrt(active_b * total) / 8) ** 0.42))
    return ModelShape(
        active_b * 1e9,
        total * 1e9,
        layers,
        layers * 4096.0,
        precision.bytes_per_parameter,
        compute_bits=precision.compute_bits,
        guessed=True,
    )
