"""``[placement]``: what decides between a model's regions, and between hours for calls that may wait."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from agentflow.config.table import Table, Tags


class PlacementSettings(Table):
    """What decides between regions, and between hours for calls that may wait."""

    residency: Tags = ()
    """Every call is served in a region with one of these tags; anywhere when left out."""
    usd_per_kg_co2e: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Dollars that a kilogram of CO2 equivalent is worth avoiding."""
    usd_per_hour: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Dollars that an hour of waiting for replies is worth avoiding."""
    carbon: Path | None = None
    """A CSV file of grams of CO2 equivalent by zone and hour."""
    carbon_unit: Literal["g/kWh", "kg/kWh", "g/MWh"] = "g/kWh"
    """Its unit."""
    power: Path | None = None
    """A CSV file of the price of power by zone and hour, for zones where you pay for it yourself."""
    power_unit: Literal["usd/kWh", "usd/MWh"] = "usd/kWh"
    """Its unit."""
