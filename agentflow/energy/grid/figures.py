"""What a grid's figure is: grams or dollars per kilowatt-hour in a place and an hour, and what it rests on.

May import estimate, errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from agentflow.energy.estimate import Range
from agentflow.errors import ConfigError

JOULES_PER_KWH = 3.6e6
WORLD = "WORLD"

Unit = Literal["g/kWh", "usd/kWh"]
# What of a plant's life its grams count: only what it burns, or building it too. The two are never mixed.
Counts = Literal["direct", "life-cycle", "not stated"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine stands.

    Args:
        region: a country's ISO 3166 code of three letters, a cloud's region as ``gcp:europe-west1``, or ``WORLD`` when
            nobody knows.
        provider: whose building it is, for PUE and water: ``own``, ``aws``, ``azure``, ``google``, ...
        zone: the region's name in a table of hours or at a live provider (``DE``, ``US-CAL-CISO``); the region's own
            name when None.
    """

    region: str = WORLD
    provider: str = "own"
    zone: str | None = None

    @property
    def zone_name(self) -> str:
        """The name that tables of hours and live providers know it by."""
        return self.zone or self.region


@dataclass(frozen=True, slots=True)
class GridFigure:
    """One figure of a grid.

    Args:
        value: with the ends of its 90 % interval, in ``unit``.
        unit: grams of CO2 equivalent, or US dollars, per kilowatt-hour.
        of: the hour or the year that it is the average of.
        at: the start of that hour or year.
        counts: for grams, what of a plant's life they count.
        source: who says so.
        notes: what else a reader must know: estimated, fallen back to, and why.
    """

    value: Range
    unit: Unit
    of: Literal["hour", "year"]
    at: datetime
    counts: Counts
    source: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For people: ``56 g/kWh (37 to 84; year 2023, life-cycle; Our World in Data)``."""
        when = f"{self.at:%Y-%m-%d %H:%M} UTC" if self.of == "hour" else f"year {self.at.year}"
        kind = f", {self.counts}" if self.unit == "g/kWh" else ""
        v = self.value
        return f"{v.mean:.3g} {self.unit} ({v.low:.3g} to {v.high:.3g}; {when}{kind}; {self.source})"


def utc_hour(at: datetime) -> datetime:
    """The start of the hour that a moment lies in, in UTC.

    Raises:
        ConfigError: the moment has no time zone, so that nobody knows which hour it is.
    """
    if at.tzinfo is None:
        raise ConfigError(f"The time {at.isoformat()} has no time zone. Give one, for instance datetime.now(UTC).")
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def around(figure: float, factor: float) -> Range:
    """A figure with ends a factor away; of a price below zero the ends change places."""
    ends = sorted((figure / factor, figure * factor))
    return Range(ends[0], figure, ends[1])
