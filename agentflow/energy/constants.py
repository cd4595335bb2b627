"""The fitted constants and what they were fitted on, from data/constants.json. Imports roofline."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, Literal

from agentflow.energy.roofline import Constants

# What is known of a call besides its tokens, its model and its chip.
Tier = Literal["batch+latency", "batch", "latency", "tokens"]
TIERS: tuple[Tier, ...] = ("batch+latency", "batch", "latency", "tokens")

# How long an engine that was never fitted takes for layers and sequences, against a current one, and how likely.
# Assumed: most are current; engines of 2023 and 2024 took four to six times as long.
_UNKNOWN_ENGINE = ((1.0, 0.6), (2.0, 0.25), (4.0, 0.15))
_VLLM = re.compile(r"vllm[- ]v?(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Constants with where they are from, and how wide intervals around them must be.

    Args:
        constants: the ten fitted values.
        chips: names of the chips among the measured runs.
        widths: by tier, how many spreads either side the 90 % interval reaches.
        unfitted: the same for a chip that was not measured, or a model known by its size alone.
        floor: the spread (of the natural logarithm) of a figure whose batch is known.
        source: runs, date and the command that fitted them.
    """

    constants: Constants
    chips: frozenset[str]
    widths: Mapping[Tier, float]
    unfitted: Mapping[Tier, float]
    floor: float
    source: str

    def width(self, tier: Tier, chip: str, *, guessed: bool = False) -> float:
        """Spreads either side that the 90 % interval reaches; wider on an unmeasured chip, or for a guessed shape."""
        return (self.widths if chip in self.chips and not guessed else self.unfitted)[tier]

    def overheads(self, engine: str | None) -> tuple[tuple[float, float], ...]:
        """How many times a current engine's overhead this one has, each with its likelihood."""
        age = engine_age(engine)
        if age is None:
            return _UNKNOWN_ENGINE
        return ((1.0 if age == "current" else self.constants.old_engine, 1.0),)


def engine_age(engine: str | None) -> Literal["current", "old"] | None:
    """Whether an engine is one that was measured: vLLM 0.6 and later is current, earlier ones are old.

    Its way of scheduling was rewritten with 0.6 (September 2024). None for every other engine.
    """
    found = _VLLM.match(engine.strip().lower()) if engine else None
    if found is None:
        return None
    major, minor = int(found[1]), int(found[2] or 0)
    if major >= 2000:
        return "old" if major < 2025 else "current"
    return "old" if (major, minor) < (0, 6) else "current"


@functools.cache
def constants_table() -> Mapping[str, Any]:
    """data/constants.json as it is."""
    return json.loads(resources.files("agentflow.energy").joinpath("data/constants.json").read_text("utf-8"))


@functools.cache
def shipped() -> Fitted:
    """The constants that this package ships."""
    table = constants_table()
    return Fitted(
        Constants(**{field.name: table["constants"][field.name]["value"] for field in fields(Constants)}),
        frozenset(table["chips"]),
        {tier: table["intervals"]["widths"][tier] for tier in TIERS},
        {tier: table["intervals"]["unfitted"][tier] for tier in TIERS},
        table["intervals"]["floor"],
        f"{table['rows']} runs, {table['data']}, fitted {table['date']} with: {table['command']}",
    )
