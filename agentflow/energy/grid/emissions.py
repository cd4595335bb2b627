"""From joules to grams of CO2 equivalent, to the price of the power, to litres of water. May import the grid's files.

Location-based: what the grid of the place emits. What a contract for green power says is the market's figure and has a
field of its own; the two are never added, never averaged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from agentflow.energy.estimate import Range
from agentflow.energy.grid.averages import pue, wue, yearly_carbon
from agentflow.energy.grid.figures import JOULES_PER_KWH, Counts, GridFigure, Place
from agentflow.energy.grid.hourly import HourlyTable
from agentflow.energy.interval import Energy
from agentflow.errors import ConfigError

NANO_DOLLARS = 10**9


@dataclass(frozen=True, slots=True)
class Emissions:
    """Grams of CO2 equivalent of some energy.

    Args:
        location: by the grid of the place, with the ends of a 90 % interval.
        market: by a contract for power, if one was given; a second figure for the same energy, not a part.
        counts: what of a power plant's life the grams count.
        assumed: what they rest on.
    """

    location: Range
    market: Range | None
    counts: Counts
    assumed: tuple[str, ...]

    def __add__(self, other: Emissions) -> Emissions:
        """Grams of both.

        Raises:
            ValueError: they count different things, or only one has a market's figure: their sum would mean nothing.
        """
        if self.counts != other.counts:
            raise ValueError(f"{self.counts} grams and {other.counts} grams cannot be added: they count other things")
        if (self.market is None) != (other.market is None):
            raise ValueError("only one of the two has market-based grams; their sum would mix the methods")
        market = None if self.market is None or other.market is None else self.market + other.market
        assumed = tuple(dict.fromkeys((*self.assumed, *other.assumed)))
        return Emissions(self.location + other.location, market, self.counts, assumed)


@dataclass(frozen=True, slots=True)
class PowerCost:
    """What some energy's power cost, in whole nano-dollars; below zero when the market paid for it to be used."""

    low: int
    mean: int
    high: int
    assumed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Water:
    """Litres that the building used for some energy, on site; the power plants' water is not in it."""

    litres: Range
    assumed: tuple[str, ...]


def emissions(
    energy: Energy,
    place: Place,
    at: datetime | None = None,
    *,
    carbon: HourlyTable | GridFigure | None = None,
    contract_g_per_kwh: float | None = None,
) -> Emissions:
    """Grams of CO2 equivalent of some energy, used in a place at a time.

    Args:
        energy: joules; those that leave the building out are carried to it by the provider's PUE. Those of boards alone
            leave their host out, and the result says so.
        place: where.
        at: when, with its time zone; unknown when None.
        carbon: a table of hours, or a figure that a live provider gave. Where it knows nothing of that hour, and when
            it is None, the yearly average serves and the result says so.
        contract_g_per_kwh: by a contract for power: gives the market's figure beside the location's.

    Raises:
        ConfigError: the region is not known, the time has no zone, or the figure is not one of carbon.

    Example:
        >>> kwh = Energy(3.6e6, 3.6e6, 3.6e6, "measured", "facility")
        >>> round(emissions(kwh, Place("FRA")).location.mean)
        56
    """
    figure = _carbon(place, at, carbon)
    building, assumed = _of_the_building(energy, place)
    market = None if contract_g_per_kwh is None else building * (contract_g_per_kwh / JOULES_PER_KWH)
    return Emissions(
        _times(building, figure.value, 1 / JOULES_PER_KWH),
        market,
        figure.counts,
        (*assumed, str(figure), *figure.notes),
    )


def power_cost(
    energy: Energy, place: Place, at: datetime | None = None, *, price: HourlyTable | GridFigure
) -> PowerCost | None:
    """What the power cost at the market's price. None when the price of that hour is not known: unknown is not zero.

    Args:
        energy: joules, carried to the building as for grams.
        place: where.
        at: when, with its time zone; needed with a table.
        price: a table of hours, or one figure.

    Raises:
        ConfigError: the figures are not prices, or a table was given and no time.
    """
    figure = price.at(place, _needed(at)) if isinstance(price, HourlyTable) else price
    if figure is None:
        return None
    if figure.unit != "usd/kWh":
        raise ConfigError(f"The figures are {figure.unit}, not a price. Give a table in usd/kWh or usd/MWh.")
    building, assumed = _of_the_building(energy, place)
    cost = _times(building, figure.value, NANO_DOLLARS / JOULES_PER_KWH)
    return PowerCost(round(cost.low), round(cost.mean), round(cost.high), (*assumed, str(figure), *figure.notes))


def water(energy: Energy, place: Place) -> Water:
    """Litres of water that the building used, by its provider's WUE: litres per kilowatt-hour of its machines.

    Args:
        energy: joules; of those of a whole building, the machines' part is taken.
        place: where; the provider matters, the region does not.
    """
    used, overhead = wue(place.provider), pue(place.provider)
    machines = Range(energy.low, energy.mean, energy.high)
    if energy.scope == "facility":
        machines = Range(energy.low / overhead.high, energy.mean / overhead.mean, energy.high / overhead.low)
    assumed = f"WUE of {place.provider} {used.low:g} to {used.high:g} L/kWh, on site; water of power plants left out"
    return Water(_times(machines, used, 1 / JOULES_PER_KWH), (*energy.assumed, assumed))


def _carbon(place: Place, at: datetime | None, carbon: HourlyTable | GridFigure | None) -> GridFigure:
    """The figure of that hour, else the yearly average with a note of why."""
    why: tuple[str, ...] = ()
    if isinstance(carbon, HourlyTable):
        figure = None if at is None else carbon.at(place, at)
        because = "nobody said when" if at is None else f"no {place.zone_name} at {at:%Y-%m-%d %H:%M %Z}"
        why = () if figure is not None else (f"yearly average: {carbon.source} was not used, {because}",)
    else:
        figure = carbon
    if figure is None:
        average = yearly_carbon(place.region)
        return replace(average, notes=(*average.notes, *why))
    if figure.unit != "g/kWh":
        raise ConfigError(f"The figures are {figure.unit}, not carbon. Give a table in g/kWh.")
    return figure


def _of_the_building(energy: Energy, place: Place) -> tuple[Range, tuple[str, ...]]:
    """Joules of the building, and what that assumed."""
    joules = Range(energy.low, energy.mean, energy.high)
    if energy.scope == "facility":
        return joules, energy.assumed
    overhead = pue(place.provider)
    assumed = [*energy.assumed, f"PUE of {place.provider} {overhead.low:g} to {overhead.high:g}"]
    if energy.scope == "board":
        assumed.append("boards alone: the machine they stand in is left out")
    return _times(joules, overhead, 1.0), tuple(assumed)


def _times(joules: Range, figure: Range, factor: float) -> Range:
    """Joules, never below zero, times a figure that may be: the ends are the least and the most of all products."""
    ends = [j * f * factor for j in (joules.low, joules.high) for f in (figure.low, figure.high)]
    return Range(min(ends), joules.mean * figure.mean * factor, max(ends))


def _needed(at: datetime | None) -> datetime:
    if at is None:
        raise ConfigError("A price by the hour needs a time. Give at=, with its time zone.")
    return at
