"""Grams of CO2 equivalent of joules in a place: yearly averages from data/grid.json. May import facts, errors.

Location-based, and of a year: an hour may be far off, and so may a contract for green power. No live source yet.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from agentflow.energy.facts import Range
from agentflow.energy.interval import Energy
from agentflow.errors import ConfigError

WORLD = "WORLD"
JOULES_PER_KWH = 3.6e6
# Factor either side of a yearly average, assumed: hours differ, and so do sources by what of a plant's life they
# count (France is 56 g in one and 41 g in another).
_OF_A_YEAR = 1.5


@dataclass(frozen=True, slots=True)
class Region:
    """A place: its code, its name, grams of CO2 equivalent per kilowatt-hour as a range, the year of the figure."""

    code: str
    name: str
    g_per_kwh: Range
    year: int


@dataclass(frozen=True, slots=True)
class Carbon:
    """Grams of CO2 equivalent, with the ends of their interval and what they rest on."""

    grams: Range
    assumed: tuple[str, ...]


@functools.cache
def _table() -> Mapping[str, Any]:
    return json.loads(resources.files("agentflow.energy").joinpath("data/grid.json").read_text("utf-8"))


@functools.cache
def regions() -> Mapping[str, Region]:
    """Every known region by its ISO 3166 code of three letters; ``WORLD`` spans from the cleanest to the dirtiest."""
    rows = _table()["regions"]
    known = {
        code: Region(code, row["name"], _around(row["g_per_kwh"], _OF_A_YEAR), row["year"])
        for code, row in rows.items()
    }
    ends = [region.g_per_kwh for region in known.values()]
    anywhere = Range(min(e.low for e in ends), rows[WORLD]["g_per_kwh"], max(e.high for e in ends))
    return {**known, WORLD: Region(WORLD, rows[WORLD]["name"], anywhere, rows[WORLD]["year"])}


def region(code: str) -> Region:
    """The region of this code.

    Raises:
        ConfigError: no such region; the message lists those there are.
    """
    found = regions().get(code.upper())
    if found is None:
        raise ConfigError(f"No carbon intensity for region '{code}'. Known regions: {', '.join(regions())}.")
    return found


def pue(provider: str = "unknown") -> Range:
    """Joules of the building per joule of its machines, by provider; one that is not listed is ``unknown``."""
    rows = _table()["pue"]
    row = rows.get(provider.lower(), rows["unknown"])
    return Range(row["low"], row["mean"], row["high"])


def grams(energy: Energy, code: str = WORLD, *, provider: str = "own") -> Carbon:
    """Grams of CO2 equivalent of some energy.

    Args:
        energy: joules; those of a host are carried to the building by the provider's PUE. Those of boards alone
            leave their host out, and the result says so.
        code: the region's code.
        provider: whose building it is, for energy that does not include it; ``own`` has a PUE of 1.

    Raises:
        ConfigError: the region is not known.
    """
    place = region(code)
    overhead = Range(1.0, 1.0, 1.0) if energy.scope == "facility" else pue(provider)
    source = _table()["world"] if place.code == WORLD else _table()["source"]
    assumed = [*energy.assumed, f"{place.name} {place.year}, {place.g_per_kwh.mean:g} g/kWh: {source}"]
    if energy.scope == "board":
        assumed.append("boards alone: the host they stand in is left out")
    per_joule = place.g_per_kwh * (1 / JOULES_PER_KWH)
    result = Range(
        energy.low * overhead.low * per_joule.low,
        energy.mean * overhead.mean * per_joule.mean,
        energy.high * overhead.high * per_joule.high,
    )
    return Carbon(result, tuple(assumed))


def _around(figure: float, factor: float) -> Range:
    return Range(figure / factor, figure, figure * factor)
