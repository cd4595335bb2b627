"""Accelerators by their data sheets: the few whose figures were cross-checked. Imports roofline and errors."""

from __future__ import annotations

from agentflow.energy.roofline import Chip
from agentflow.errors import ConfigError

# Watts, bytes/s, dense FLOP/s at 16 and 8 bits. Cross-checked against two public comparison pages, mid-2026;
# brochures print the sparse figure, twice as high.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("A100-SXM4-80GB", 400, 2.039e12, 312e12),
        Chip("H100-SXM5-80GB", 700, 3.35e12, 989e12, 1979e12),
        Chip("H200-SXM-141GB", 700, 4.8e12, 989e12, 1979e12),
        Chip("B200-SXM-180GB", 1000, 8.0e12, 2250e12, 4500e12),
        Chip("L40S", 350, 0.864e12, 362e12, 733e12),
        Chip("MI300X", 750, 5.3e12, 1307e12, 2615e12),
    )
}


def chip_named(name: str) -> Chip:
    """The chip of this name.

    Raises:
        ConfigError: no such chip; the message lists those there are.
    """
    if name not in CHIPS:
        raise ConfigError(f"No data sheet for chip '{name}'. Known chips: {', '.join(CHIPS)}.")
    return CHIPS[name]
