"""Tables of hours that you bring: grams or dollars per kilowatt-hour by region and hour. May import figures, errors.

Two layouts are read. Long: the columns ``hour, region, value``. Wide: an hour in the first column, then one column a
region. Hours are ISO 8601, and UTC when they name no zone. An empty cell is an hour that is not known.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentflow.energy.grid.figures import Counts, GridFigure, Place, Unit, around, utc_hour
from agentflow.errors import ConfigError

# Factor either side of an hour's own figure, assumed: sources differ by what they count and where they draw the border.
_OF_AN_HOUR = 1.2
# No grid has ever been near these: a file in other units (milligrams, dollars a megawatt-hour) is refused.
_MOST: dict[Unit, float] = {"g/kWh": 2_500.0, "usd/kWh": 100.0}
_PER_KWH = {"g/kWh": 1.0, "kg/kWh": 1000.0, "g/MWh": 0.001, "usd/kWh": 1.0, "usd/MWh": 0.001}


@dataclass(frozen=True, slots=True)
class HourlyTable:
    """Figures by region and hour.

    Args:
        values: for each region, its hours (their start, UTC) with the figure.
        unit: of the figures.
        counts: for grams, what of a plant's life they count.
        source: who says so.
    """

    values: Mapping[str, Mapping[datetime, float]]
    unit: Unit
    counts: Counts
    source: str

    @classmethod
    def read(cls, path: Path, *, unit: str = "g/kWh", counts: Counts = "not stated", source: str = "") -> HourlyTable:
        """Read a CSV file.

        Args:
            path: the file, long or wide.
            unit: g/kWh, kg/kWh, g/MWh, usd/kWh or usd/MWh, whichever the file has.
            counts: for grams, what of a plant's life they count; say so if you know.
            source: who says so; the file's name when empty.

        Raises:
            ConfigError: the file cannot be read, or a line is not what it should be; the message names the line.
        """
        if unit not in _PER_KWH:
            raise ConfigError(f"Unit '{unit}' is not known. Give one of {', '.join(_PER_KWH)}.")
        kept: Unit = "usd/kWh" if unit.startswith("usd") else "g/kWh"
        values: dict[str, dict[datetime, float]] = {}
        for line, hour, region, text in _cells(path):
            if not text.strip():
                continue
            figure = _figure(path, line, text) * _PER_KWH[unit]
            if abs(figure) > _MOST[kept] or (kept == "g/kWh" and figure < 0):
                raise ConfigError(f"{path}, line {line}: {text} {unit} cannot be true. Check the unit.")
            hours = values.setdefault(region, {})
            if hours.setdefault(hour, figure) != figure:
                raise ConfigError(f"{path}, line {line}: {region} has two figures for {hour:%Y-%m-%d %H:%M} UTC.")
        if not values:
            raise ConfigError(f"{path} has no figures. Give the columns hour, region, value, or hour and one a region.")
        return cls(values, kept, counts, source or path.name)

    def at(self, place: Place, at: datetime) -> GridFigure | None:
        """The figure of a place in the hour of a moment; None when the table does not know it.

        Raises:
            ConfigError: the moment has no time zone.
        """
        hour = utc_hour(at)
        figure = self.values.get(place.zone_name, {}).get(hour)
        if figure is None:
            return None
        factor = 1.0 if self.unit == "usd/kWh" else _OF_AN_HOUR
        return GridFigure(around(figure, factor), self.unit, "hour", hour, self.counts, self.source)


def _cells(path: Path) -> Iterator[tuple[int, datetime, str, str]]:
    """Line, hour, region and text of each cell with a figure."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = [name.strip() for name in next(rows, list[str]())]
            long = [name.lower() for name in header] == ["hour", "region", "value"]
            for row in rows:
                if row:
                    yield from _row(path, rows.line_num, header, row, long=long)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a CSV file in UTF-8: {error}.") from error


def _row(
    path: Path, line: int, header: Sequence[str], row: Sequence[str], *, long: bool
) -> Iterator[tuple[int, datetime, str, str]]:
    if len(row) != len(header):
        raise ConfigError(f"{path}, line {line}: {len(row)} cells where the header has {len(header)}.")
    hour = _hour(path, line, row[0])
    if long:
        yield line, hour, row[1].strip(), row[2]
        return
    for region, text in zip(header[1:], row[1:], strict=True):
        yield line, hour, region, text


def _hour(path: Path, line: int, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigError(f"{path}, line {line}: '{text[:40]}' is not a time such as 2024-05-01T13:00Z.") from error
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    if moment != utc_hour(moment):
        raise ConfigError(f"{path}, line {line}: {text} is not the start of an hour of UTC. Average it to hours first.")
    return moment


def _figure(path: Path, line: int, text: str) -> float:
    try:
        figure = float(text)
    except ValueError:
        figure = math.nan
    if not math.isfinite(figure):
        raise ConfigError(f"{path}, line {line}: '{text[:40]}' is not a number.")
    return figure
