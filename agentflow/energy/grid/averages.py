"""Figures that ship with the package: yearly averages of carbon by region, PUE and water by provider.

Every row of data/carbon_yearly.csv and data/buildings.csv carries its source, its year, and the first its licence too.
May import figures, errors.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import cast

from agentflow.energy.estimate import Range
from agentflow.energy.grid.figures import WORLD, Counts, GridFigure, around
from agentflow.errors import ConfigError

# Factor either side of a yearly average: 90 % of the hours of 2023 and 2024 lay within it, in 16 regions of five
# continents together. Alone, Ontario takes 4.8, Great Britain 2.4, Germany 2.2, South Africa and Singapore under 1.1.
HOURS_OF_A_YEAR = 1.8


@dataclass(frozen=True, slots=True)
class Region:
    """A place: its code, its name, grams of CO2 equivalent per kilowatt-hour as a range, and where from."""

    code: str
    name: str
    g_per_kwh: Range
    year: int
    counts: Counts
    source: str


@functools.cache
def regions() -> Mapping[str, Region]:
    """Every known region by its code; ``WORLD`` spans from the cleanest to the dirtiest."""
    known = {
        row["code"].upper(): Region(
            row["code"],
            row["name"],
            around(float(row["g_per_kwh"]), HOURS_OF_A_YEAR),
            int(row["year"]),
            cast("Counts", row["counts"]),
            f"{row['source']}, {row['licence']}",
        )
        for row in _rows("carbon_yearly.csv")
    }
    world, countries = known[WORLD], [r.g_per_kwh for r in known.values() if r.counts == "life-cycle"]
    anywhere = Range(min(r.low for r in countries), world.g_per_kwh.mean, max(r.high for r in countries))
    return {**known, WORLD: Region(WORLD, world.name, anywhere, world.year, world.counts, world.source)}


def region(code: str) -> Region:
    """The region of this code.

    Raises:
        ConfigError: no such region; the message says what codes look like.
    """
    found = regions().get(code.upper())
    if found is None:
        clouds = ", ".join(r.code for r in regions().values() if r.counts == "direct")
        raise ConfigError(
            f"No carbon intensity for region '{code}'. Give a country's code of three letters (FRA, USA, IND), "
            f"WORLD, or one of {clouds}."
        )
    return found


def yearly_carbon(code: str = WORLD) -> GridFigure:
    """Grams of CO2 equivalent per kilowatt-hour in a region: its yearly average.

    Args:
        code: the region's.

    Raises:
        ConfigError: the region is not known.
    """
    place = region(code)
    notes = () if place.code != WORLD else ("nobody said where: from the cleanest country to the dirtiest",)
    start = datetime(place.year, 1, 1, tzinfo=UTC)
    return GridFigure(place.g_per_kwh, "g/kWh", "year", start, place.counts, f"{place.name}: {place.source}", notes)


def pue(provider: str = "unknown") -> Range:
    """Joules of the building per joule of its machines, by provider; one that is not listed is ``unknown``."""
    return _building("pue", provider)


def wue(provider: str = "unknown") -> Range:
    """Litres of water that a building uses per kilowatt-hour of its machines (WUE, on site), by provider."""
    return _building("wue", provider)


@functools.cache
def _buildings() -> Mapping[tuple[str, str], Range]:
    return {
        (row["figure"], row["provider"]): Range(float(row["low"]), float(row["mean"]), float(row["high"]))
        for row in _rows("buildings.csv")
    }


def _building(figure: str, provider: str) -> Range:
    return _buildings().get((figure, provider.lower()), _buildings()[figure, "unknown"])


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("agentflow.energy").joinpath(f"data/{name}").read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
