"""Accelerators by their data sheets: the few whose figures were cross-checked, from data/chips.json.

A chip that is not in the table has no profile: its figures are not guessed. Imports roofline and errors.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources

from agentflow.energy.roofline import Chip
from agentflow.errors import ConfigError


@functools.cache
def chips() -> Mapping[str, Chip]:
    """Every known chip by its name."""
    table = json.loads(resources.files("agentflow.energy").joinpath("data/chips.json").read_text("utf-8"))
    return {
        name: Chip(
            name,
            tdp_w=row["tdp_w"],
            bytes_per_s=row["bw_tb_s"] * 1e12,
            flops_16=row["bf16_tflops"] * 1e12,
            flops_8=None if row["fp8_tflops"] is None else row["fp8_tflops"] * 1e12,
            memory_bytes=row["hbm_gb"] * 1e9,
            source=f"{table['source']}, {table['date']}",
        )
        for name, row in table["chips"].items()
    }


def chip_named(name: str) -> Chip:
    """The chip of this name.

    Raises:
        ConfigError: no such chip; the message lists those there are.
    """
    if name not in chips():
        raise ConfigError(f"No data sheet for chip '{name}'. Known chips: {', '.join(chips())}.")
    return chips()[name]
