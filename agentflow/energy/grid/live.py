"""Live providers over HTTP: carbon and prices by the Electricity Maps API, carbon by Great Britain's NESO API.

Whatever they send is checked before it is believed. When one fails, is slow or out of date, a yearly average serves
for carbon, and says why; for a price there is none, and it stays unknown. aiohttp is imported on first use. May import
the grid's files.
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
_MOST_G, _MOST_USD = 2_500.0, 100.0
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


class LivePrice(Protocol):
    """A provider of the price of power by place and hour."""

    async def price(self, place: Place, at: datetime) -> GridFigure:
        """US dollars per kilowatt-hour of a place in the hour of a moment; may be below zero.

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
    """The Electricity Maps API, version 3, or a server that speaks like it: carbon, and day-ahead prices.

    Args:
        token_env: the environment variable that holds the token; it never reaches a message.
        base_url: up to and including the version.
        counts: which factors to ask for: ``life-cycle``, or ``direct`` for operation alone.
        freshest: a figure further than this from the moment asked for is out of date.
        usd_per: US dollars of one unit of each currency that prices come in; no rate is guessed.
    """

    def __init__(
        self,
        token_env: str = "ELECTRICITY_MAPS_TOKEN",
        *,
        base_url: str = "https://api.electricitymaps.com/v3",
        counts: Counts = "life-cycle",
        freshest: timedelta = timedelta(hours=2),
        usd_per: Mapping[str, float] | None = None,
    ) -> None:
        self._page = _JsonPage(base_url, {"auth-token": os.environ.get(token_env, "")})
        self._counts: Counts = counts
        self._freshest = freshest
        self._usd_per = {"USD": 1.0, **(usd_per or {})}

    async def carbon(self, place: Place, at: datetime) -> GridFigure:
        """The hour's figure; the latest one for a moment of the last hour, as it is published.

        Raises:
            GridUnavailable: no figure that can be used; the message says why.
        """
        reply, hour = await self._ask("carbon-intensity", place, at, emissionFactorType=self._counts.replace("-", ""))
        counts = _COUNTS.get(str(reply.get("emissionFactorType")), "not stated")
        if counts not in (self._counts, "not stated"):
            raise GridUnavailable(f"{self._page.where} answered with {counts} grams, not {self._counts}")
        estimated = reply.get("isEstimated") is not False
        return _grams(self._page.where, reply.get("carbonIntensity"), hour, counts, estimated=estimated)

    async def price(self, place: Place, at: datetime) -> GridFigure:
        """The hour's day-ahead price in US dollars.

        Raises:
            GridUnavailable: no figure that can be used, or one in a currency without a rate; the message says why.
        """
        reply, hour = await self._ask("price-day-ahead", place, at)
        currency, _, per = str(reply.get("unit")).partition("/")
        if per != "MWh" or currency not in self._usd_per:
            raise GridUnavailable(
                f"{self._page.where} gave a price in {reply.get('unit')!r:.40}, for which usd_per has no rate"
            )
        usd = _number(self._page.where, reply.get("value")) * self._usd_per[currency] / 1000
        if abs(usd) > _MOST_USD:
            raise GridUnavailable(f"{self._page.where} gave {usd:g} usd/kWh, which no market has paid")
        notes = () if currency == "USD" else (f"at {self._usd_per[currency]:g} USD per {currency}",)
        return GridFigure(around(usd, 1.0), "usd/kWh", "hour", hour, "not stated", self._page.where, notes)

    async def _ask(self, what: str, place: Place, at: datetime, **asked: str) -> tuple[Mapping[str, Any], datetime]:
        """A reply for this zone, and the hour that it is of."""
        asked |= {"zone": place.zone_name}
        hour = utc_hour(at)
        recent = abs(datetime.now(UTC) - at) < timedelta(hours=1)
        if not recent:
            asked["datetime"] = f"{hour:%Y-%m-%dT%H:%MZ}"
        reply = await self._page.get(f"{what}/{'latest' if recent else 'past'}?{urlencode(asked)}")
        if (zone := reply.get("zone")) != place.zone_name:
            raise GridUnavailable(f"{self._page.where} answered for zone {zone!r:.40}, not {place.zone_name}")
        moment = _moment(self._page.where, reply.get("datetime"))
        return reply, _fresh(self._page.where, moment, at, self._freshest)

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
        return _grams(self._page.where, grams, hour, "direct", estimated=metered is None)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._page.aclose()


def _grams(where: str, told: object, hour: datetime, counts: Counts, *, estimated: bool) -> GridFigure:
    """A provider's grams as a figure, if they can be true."""
    grams = _number(where, told)
    if not 0 <= grams <= _MOST_G:
        raise GridUnavailable(f"{where} sent {grams:g} g/kWh, which no grid emits")
    notes = ("estimated or forecast by its provider",) if estimated else ()
    value = around(grams, _ESTIMATED if estimated else _OBSERVED)
    return GridFigure(value, "g/kWh", "hour", hour, counts, where, notes)


def _number(where: str, told: object) -> float:
    try:
        number = float(told) if isinstance(told, int | float) and not isinstance(told, bool) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise GridUnavailable(f"{where} sent {told!r:.40} where a number was due")
    return number


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
