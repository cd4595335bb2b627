"""Live providers of carbon intensity over HTTP: the Electricity Maps API, and Great Britain's NESO API.

Whatever they send is checked before it is believed. When one fails, is slow or out of date, the yearly average serves
and says why. aiohttp is imported on first use. May import the grid's files.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlencode, urlsplit

from agentflow.energy.grid.averages import yearly_carbon
from agentflow.energy.grid.figures import Counts, GridFigure, Place, around, utc_hour
from agentflow.errors import GridUnavailable

if TYPE_CHECKING:
    import aiohttp

_WAIT_S = 5.0
_LONGEST_REPLY = 1_000_000
_MOST_G = 2_500.0
# Factor either side, assumed: of a figure that was observed, and of one that its provider estimated or forecast.
_OBSERVED, _ESTIMATED = 1.2, 1.4
_COUNTS: dict[str, Counts] = {"lifecycle": "life-cycle", "direct": "direct"}


class LiveCarbon(Protocol):
    """A provider of carbon intensity by place and hour."""

    async def carbon(self, place: Place, at: datetime) -> GridFigure:
        """Grams of CO2 equivalent per kilowatt-hour of a place in the hour of a moment.

        Raises:
            GridUnavailable: no figure that can be used; the message says why.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. Closing twice changes nothing."""
        ...


async def live_or_average(live: LiveCarbon, place: Place, at: datetime) -> GridFigure:
    """What a live provider says, else the yearly average of the region, with a note of why.

    Args:
        live: the provider.
        place: where; its ``zone`` is the provider's name for it.
        at: when, with its time zone.

    Raises:
        ConfigError: the region is not known either, or the time has no zone.

    Example::

        maps = ElectricityMaps(token_env="ELECTRICITY_MAPS_TOKEN")
        place = Place("DEU", provider="google", zone="DE")
        figure = await live_or_average(maps, place, now)
        grams = emissions(energy, place, now, carbon=figure).location
    """
    utc_hour(at)
    try:
        return await live.carbon(place, at)
    except GridUnavailable as error:
        average = yearly_carbon(place.region)
        return replace(average, notes=(*average.notes, f"yearly average, because {error}"))


class _JsonPage:
    """One JSON document over HTTP, bounded in time and size."""

    def __init__(self, base_url: str, headers: Mapping[str, str] | None = None) -> None:
        self._base = base_url.rstrip("/")
        self._headers = dict(headers or {})
        self.where = urlsplit(base_url).hostname or "the provider"
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> Mapping[str, Any]:
        import aiohttp

        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        try:
            async with asyncio.timeout(_WAIT_S):
                url = f"{self._base}/{path}"
                async with self._session.get(url, headers=self._headers, allow_redirects=False) as response:
                    if response.status != 200:
                        raise GridUnavailable(f"{self.where} answered {response.status}")
                    body = await response.content.read(_LONGEST_REPLY + 1)
                    while len(body) <= _LONGEST_REPLY and (more := await response.content.read(_LONGEST_REPLY)):
                        body += more
        except TimeoutError as error:
            raise GridUnavailable(f"{self.where} gave no answer within {_WAIT_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise GridUnavailable(f"{self.where} does not answer ({type(error).__name__})") from error
        return self._mapping(body)

    def _mapping(self, body: bytes) -> Mapping[str, Any]:
        if len(body) > _LONGEST_REPLY:
            raise GridUnavailable(f"{self.where} sent over {_LONGEST_REPLY:,} bytes")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise GridUnavailable(f"{self.where} sent something that is not JSON") from error
        if not isinstance(found, dict):
            raise GridUnavailable(f"{self.where} sent something other than an object")
        return cast("Mapping[str, Any]", found)

    async def aclose(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class ElectricityMaps:
    """The Electricity Maps API, version 3, or a server that speaks like it.

    Args:
        token_env: the environment variable that holds the token; it never reaches a message.
        base_url: up to and including the version.
        counts: which factors to ask for: ``life-cycle``, or ``direct`` for operation alone.
        freshest: a figure further than this from the moment asked for is out of date.
    """

    def __init__(
        self,
        token_env: str = "ELECTRICITY_MAPS_TOKEN",
        *,
        base_url: str = "https://api.electricitymaps.com/v3",
        counts: Counts = "life-cycle",
        freshest: timedelta = timedelta(hours=2),
    ) -> None:
        self._page = _JsonPage(base_url, {"auth-token": os.environ.get(token_env, "")})
        self._counts: Counts = counts
        self._freshest = freshest

    async def carbon(self, place: Place, at: datetime) -> GridFigure:
        """The hour's figure; the latest one for a moment of the last hour, as it is published.

        Raises:
            GridUnavailable: no figure that can be used; the message says why.
        """
        asked = {"zone": place.zone_name, "emissionFactorType": self._counts.replace("-", "")}
        hour = utc_hour(at)
        recent = abs(datetime.now(UTC) - at) < timedelta(hours=1)
        path = "carbon-intensity/latest" if recent else "carbon-intensity/past"
        if not recent:
            asked["datetime"] = f"{hour:%Y-%m-%dT%H:%MZ}"
        reply = await self._page.get(f"{path}?{urlencode(asked)}")
        if (zone := reply.get("zone")) != place.zone_name:
            raise GridUnavailable(f"{self._page.where} answered for zone {zone!r:.40}, not {place.zone_name}")
        hour = _fresh(self._page.where, _moment(self._page.where, reply.get("datetime")), at, self._freshest)
        kind = reply.get("emissionFactorType")
        counts = _COUNTS.get(str(kind), "not stated")
        if counts not in (self._counts, "not stated"):
            raise GridUnavailable(f"{self._page.where} answered with {counts} grams, not {self._counts}")
        estimated = reply.get("isEstimated") is not False
        return _figure(self._page.where, reply.get("carbonIntensity"), hour, counts, estimated=estimated)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._page.aclose()


class Neso:
    """Great Britain's national figure by the NESO carbon intensity API, half-hourly, free, without a token.

    It counts what generation burns (direct), imports included, and gives a forecast until the half-hour was metered.

    Args:
        base_url: of the API.
        freshest: a figure further than this from the moment asked for is out of date.
    """

    def __init__(
        self,
        *,
        base_url: str = "https://api.carbonintensity.org.uk",
        freshest: timedelta = timedelta(hours=1),
    ) -> None:
        self._page = _JsonPage(base_url, {"Accept": "application/json"})
        self._freshest = freshest

    async def carbon(self, place: Place, at: datetime) -> GridFigure:
        """The half-hour's figure: metered when it is there, else forecast, and said so.

        Raises:
            GridUnavailable: the place is not in Great Britain, or there is no figure that can be used.
        """
        if place.region.upper() != "GBR" and place.zone_name.upper() not in ("GB", "GBR"):
            raise GridUnavailable(f"{self._page.where} knows Great Britain alone, not {place.region}")
        utc_hour(at)
        reply = await self._page.get(f"intensity/{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}")
        entries = reply.get("data")
        entry = cast("list[Any]", entries)[0] if isinstance(entries, list) and entries else None
        intensity = cast("Mapping[str, Any]", entry).get("intensity") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(intensity, dict):
            raise GridUnavailable(f"{self._page.where} sent no intensity")
        start = cast("Mapping[str, Any]", entry).get("from")
        hour = _fresh(self._page.where, _moment(self._page.where, start), at, self._freshest)
        figures = cast("Mapping[str, Any]", intensity)
        metered = figures.get("actual")
        grams = figures.get("forecast") if metered is None else metered
        return _figure(self._page.where, grams, hour, "direct", estimated=metered is None)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._page.aclose()


def _figure(where: str, grams: object, hour: datetime, counts: Counts, *, estimated: bool) -> GridFigure:
    """A provider's grams as a figure, if they can be true."""
    if isinstance(grams, bool) or not isinstance(grams, int | float) or not math.isfinite(grams):
        raise GridUnavailable(f"{where} sent {grams!r:.40} where grams were due")
    if not 0 <= grams <= _MOST_G:
        raise GridUnavailable(f"{where} sent {grams:g} g/kWh, which no grid emits")
    notes = ("estimated or forecast by its provider",) if estimated else ()
    value = around(float(grams), _ESTIMATED if estimated else _OBSERVED)
    return GridFigure(value, "g/kWh", "hour", hour, counts, where, notes)


def _moment(where: str, text: object) -> datetime:
    """A provider's time; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise GridUnavailable(f"{where} sent {text!r:.40} where a time was due") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _fresh(where: str, moment: datetime, at: datetime, freshest: timedelta) -> datetime:
    """The moment, unless it is too far from the one asked for."""
    off = abs(moment - at.astimezone(UTC))
    if off > freshest:
        raise GridUnavailable(f"{where} gave a figure of {moment:%Y-%m-%d %H:%M} UTC, {off} from the time asked for")
    return moment
