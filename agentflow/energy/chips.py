"""Accelerators by their data sheets, from data/chips.json: each row with its source, its date and how sure it is.

A chip that is not in the table has no figures: they are not guessed. Imports roofline and errors.
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
        row["name"]: Chip(
            row["name"],
            tdp_w=row["tdp_w"],
            bytes_per_s=row["bw_tb_s"] * 1e12,
            flops_16=row["tflops_16"] * 1e12,
            flops_8=row["tflops_8"] * 1e12 if "tflops_8" in row else None,
            flops_4=row["tflops_4"] * 1e12 if "tflops_4" in row else None,
            memory_bytes=row["memory_gb"] * 1e9,
            source=f"{row['source']}, {row['date']}: {row['checked']}",
            aliases=tuple(row["aliases"]),
        )
        for row in table["chips"]
    }


@functools.cache
def _by_name() -> Mapping[str, Chip]:
    return {_plain(name): chip for chip in chips().values() for name in (chip.name, *chip.aliases)}


def find_chip(name: str) -> Chip | None:
    """The chip of this name or of one of its other names (as NVML spells it, for one); None when there is none."""
    return _by_name().get(_plain(name))


def chip_named(name: str) -> Chip:
    """The chip of this name.

    Raises:
        ConfigError: no such chip; the message lists those there are.
    """
    found = find_chip(name)
    if found is None:
        raise ConfigError(f"No data sheet for chip '{name}'. Known chips: {', '.join(chips())}.")
    return found


def _plain(name: str) -> str:
    """A name without regard to case, and to spaces, dashes and underscores between its parts."""
    return "-".join(name.lower().replace("_", " ").replace("-", " ").split())
