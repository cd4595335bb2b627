from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from agentflow.energy.grid import ElectricityMaps, Neso, Place, emissions, live, live_or_average, power_cost
from agentflow.energy.interval import Energy
from agentflow.errors import ConfigError, GridUnavailable
from tests.servers.openai_server import ServerProcess

KWH = Energy(3.6e6, 3.6e6, 3.6e6, "measured", "facility")
PAST = datetime(2020, 1, 1, 12, 40, tzinfo=UTC)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process = ServerProcess("tests.servers.grid")
    yield process.address
    process.stop()


@pytest.fixture
def asked(address: str):
    return lambda: json.loads(urllib.request.urlopen(f"{address}/asked").read())


async def carbon(provider: live.LiveCarbon, place: Place, at: datetime):
    try:
        return await provider.carbon(place, at)
    finally:
        await provider.aclose()
        await provider.aclose()


async def test_the_latest_figure_of_a_zone(address: str, asked, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAPS_TOKEN", "a-token")
    now = datetime.now(UTC)
    maps = ElectricityMaps("MAPS_TOKEN", base_url=f"{address}/v3")
    figure = await carbon(maps, Place("DEU", zone="DE"), now)
    assert (figure.value.mean, figure.counts, figure.of) == (302.0, "life-cycle", "hour")
    assert figure.value.high == pytest.approx(302 * 1.4)
    assert "estimated" in figure.notes[0]
    assert asked()["path"].endswith("/latest")
    assert asked()["token"] == "a-token"
    assert emissions(KWH, Place("DEU"), now, carbon=figure).location.mean == 302.0


async def test_a_figure_of_the_past_asks_for_its_hour(address: str, asked):
    maps = ElectricityMaps(base_url=f"{address}/v3", counts="direct")
    figure = await carbon(maps, Place("DEU", zone="SURE"), PAST)
    assert (figure.at, figure.counts, figure.notes) == (PAST.replace(minute=0), "direct", ())
    assert figure.value.high == pytest.approx(302 * 1.2)
    assert asked()["query"] == {"zone": "SURE", "emissionFactorType": "direct", "datetime": "2020-01-01T12:00Z"}


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("DOWN", "answered 503"),
        ("MOVED", "answered 302"),
        ("HTML", "not JSON"),
        ("DEEP", "not JSON|over"),
        ("LIST", "other than an object"),
        ("LONG", "over 1,000,000 bytes"),
        ("TEXT", "'many' where a number was due"),
        ("TRUE", "where a number was due"),
        ("NEGATIVE", "no grid emits"),
        ("ENDLESS", "where a number was due"),
        ("HUGE", "no grid emits"),
        ("NOWHEN", "where a time was due"),
        ("NOTIME", "where a time was due"),
        ("STALE", "from the time asked for"),
        ("ELSEWHERE", "for zone 'FR'"),
        ("DIRECT", "direct grams, not life-cycle"),
    ],
)
async def test_what_cannot_be_used_falls_back_to_the_year_and_says_why(address: str, zone: str, words: str):
    place, now = Place("DEU", zone=zone), datetime.now(UTC)
    with pytest.raises(GridUnavailable, match=words):
        await carbon(ElectricityMaps(base_url=f"{address}/v3"), place, now)
    maps = ElectricityMaps(base_url=f"{address}/v3")
    figure = await live_or_average(maps, place, now)
    await maps.aclose()
    assert (figure.of, figure.value.mean) == ("year", 380.9)
    grams = emissions(KWH, place, now, carbon=figure)
    assert grams.location.mean == pytest.approx(380.9)
    assert "yearly average, because 127.0.0.1" in grams.assumed[-1]


async def test_a_slow_provider_is_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "_WAIT_S", 0.05)
    with pytest.raises(GridUnavailable, match=r"no answer within 0\.05 s"):
        await carbon(ElectricityMaps(base_url=f"{address}/v3"), Place("DEU", zone="SLOW"), PAST)


async def test_a_provider_that_is_not_there_falls_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAPS_TOKEN", "a-secret")
    maps = ElectricityMaps("MAPS_TOKEN", base_url="http://127.0.0.1:9/v3")
    figure = await live_or_average(maps, Place("FRA", zone="FR"), PAST)
    await maps.aclose()
    assert "does not answer" in figure.notes[-1]
    assert "a-secret" not in str(figure) + str(figure.notes)


async def test_a_region_nobody_knows_and_a_time_without_a_zone_are_mistakes_not_fallbacks(address: str):
    maps = ElectricityMaps(base_url=f"{address}/v3")
    with pytest.raises(ConfigError, match="no time zone"):
        await live_or_average(maps, Place("DEU", zone="DE"), datetime(2024, 1, 1))
    with pytest.raises(ConfigError, match="No carbon intensity"):
        await live_or_average(maps, Place("Atlantis", zone="DOWN"), PAST)
    await maps.aclose()


async def test_a_metered_half_hour_of_great_britain(address: str, asked):
    figure = await carbon(Neso(base_url=address), Place("GBR"), PAST)
    assert (figure.value.mean, figure.counts, figure.notes) == (263.0, "direct", ())
    assert asked()["path"] == "/intensity/2020-01-01T12:40Z"


async def test_a_half_hour_that_is_not_metered_yet_is_a_forecast(address: str):
    figure = await carbon(Neso(base_url=address), Place("GBR"), PAST + timedelta(days=1))
    assert (figure.value.mean, figure.value.high) == (200.0, pytest.approx(280.0))
    assert "forecast" in figure.notes[0]


@pytest.mark.parametrize(("day", "words"), [(2, "no intensity"), (3, "no intensity"), (4, "answered 400")])
async def test_what_neso_does_not_know_falls_back(address: str, day: int, words: str):
    neso = Neso(base_url=address)
    figure = await live_or_average(neso, Place("GBR"), PAST + timedelta(days=day))
    await neso.aclose()
    assert figure.value.mean == 237.6
    assert words in figure.notes[-1]


async def test_neso_knows_great_britain_alone():
    with pytest.raises(GridUnavailable, match="Great Britain alone"):
        await carbon(Neso(), Place("FRA"), PAST)


async def test_a_day_ahead_price_is_in_dollars_at_the_rate_given(address: str, asked):
    maps = ElectricityMaps(base_url=f"{address}/v3", usd_per={"EUR": 1.1})
    figure = await maps.price(Place("DEU", zone="DE"), PAST)
    negative = await maps.price(Place("DEU", zone="PAID"), PAST)
    await maps.aclose()
    assert (figure.unit, figure.value.mean) == ("usd/kWh", pytest.approx(0.088))
    assert figure.notes == ("at 1.1 USD per EUR",)
    assert asked()["path"] == "/v3/price-day-ahead/past"
    cost = power_cost(KWH, Place("DEU"), PAST, price=negative)
    assert cost is not None
    assert cost.mean == -22_000_000


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("DE", "in 'EUR/MWh', for which usd_per has no rate"),
        ("NOUNIT", "has no rate"),
        ("DEAR", "which no market has paid"),
        ("NOVALUE", "where a number was due"),
        ("DOWN", "answered 503"),
    ],
)
async def test_a_price_that_cannot_be_used_stays_unknown(address: str, zone: str, words: str):
    maps = ElectricityMaps(base_url=f"{address}/v3")
    with pytest.raises(GridUnavailable, match=words):
        await maps.price(Place("DEU", zone=zone), PAST)
    await maps.aclose()
