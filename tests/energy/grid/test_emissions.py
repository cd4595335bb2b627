from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.energy.grid import (
    HourlyTable,
    Place,
    emissions,
    power_cost,
    pue,
    region,
    regions,
    water,
    wue,
    yearly_carbon,
)
from agentflow.energy.interval import Energy
from agentflow.errors import ConfigError
from tests.conftest import PROJECT

KWH = Energy(3.6e6, 1.8e6, 7.2e6, "modelled", "facility")
HOUR = datetime(2024, 5, 1, 13, tzinfo=UTC)


def table(tmp_path: Path, text: str, name: str = "hours.csv", **more: str) -> HourlyTable:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return HourlyTable.read(path, **more)  # pyright: ignore[reportArgumentType]


def test_a_kilowatt_hour_in_france_is_its_yearly_average():
    carbon = emissions(KWH, Place("fra"))
    assert carbon.location.mean == pytest.approx(56.0)
    assert carbon.location.low == pytest.approx(56.0 / 1.8 / 2)
    assert carbon.location.high == pytest.approx(56.0 * 1.8 * 2)
    assert (carbon.market, carbon.counts) == (None, "life-cycle")
    assert "year 2023" in carbon.assumed[-1]
    assert "CC BY 4.0" in carbon.assumed[-1]


def test_an_unknown_place_spans_from_the_cleanest_country_to_the_dirtiest():
    anywhere = region("WORLD").g_per_kwh
    for place in regions().values():
        if place.counts == "life-cycle":
            assert anywhere.low <= place.g_per_kwh.low < place.g_per_kwh.high <= anywhere.high
        assert 2019 < place.year < 2030
    assert "nobody said where" in emissions(KWH, Place()).assumed[-1]


def test_every_shipped_row_has_its_source_its_year_and_its_licence():
    data = resources.files("agentflow.energy").joinpath("data")
    rows = list(csv.DictReader(data.joinpath("carbon_yearly.csv").read_text("utf-8").splitlines()))
    assert len(rows) > 200
    assert len({row["code"] for row in rows}) == len(rows)
    for row in rows:
        assert row["source"]
        assert row["licence"] in ("CC BY 4.0", "Apache-2.0")
        assert row["counts"] in ("life-cycle", "direct")
        assert 0 < float(row["g_per_kwh"]) < 1500
    for row in csv.DictReader(data.joinpath("buildings.csv").read_text("utf-8").splitlines()):
        assert row["source"]
        assert int(row["year"]) > 2020
        assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])


def test_the_world_is_the_mean_of_its_countries_and_not_one_of_them():
    figures = [r.g_per_kwh.mean for r in regions().values() if r.counts == "life-cycle" and r.code != "WORLD"]
    assert min(figures) < yearly_carbon("WORLD").value.mean < max(figures)


def test_a_cloud_region_counts_operation_alone_and_is_not_added_to_a_life_cycle():
    iowa = emissions(KWH, Place("gcp:us-central1", provider="google"))
    assert (round(iowa.location.mean, 1), iowa.counts) == (412.7, "direct")
    with pytest.raises(ValueError, match="count other things"):
        _ = iowa + emissions(KWH, Place("USA"))


def test_a_contract_stands_beside_the_grid_and_never_in_it():
    plain, green = emissions(KWH, Place("DEU")), emissions(KWH, Place("DEU"), contract_g_per_kwh=0.0)
    assert green.location == plain.location
    assert green.market is not None
    assert green.market.high == 0.0
    assert (green + green).market is not None
    assert (green + green).location.mean == pytest.approx(2 * plain.location.mean)
    with pytest.raises(ValueError, match="market-based"):
        _ = plain + green


def test_the_building_is_counted_once():
    board = Energy(3.6e6, 3.6e6, 3.6e6, "measured", "board")
    assert emissions(board, Place("FRA")).location.mean == pytest.approx(56.0)
    assert emissions(board, Place("FRA", "aws")).location.mean == pytest.approx(56.0 * 1.17)
    assert emissions(KWH, Place("FRA", "aws")).location == emissions(KWH, Place("FRA")).location
    assert "left out" in " ".join(emissions(board, Place("FRA")).assumed)


def test_a_provider_that_is_not_listed_is_unknown_and_a_region_is_refused():
    assert pue("a friend's garage") == pue()
    assert wue("a friend's garage") == wue()
    with pytest.raises(ConfigError, match="code of three letters"):
        emissions(KWH, Place("Atlantis"))


@pytest.mark.parametrize(
    "text",
    [
        "hour,region,value\n2024-05-01T13:00Z,DE,300\n2024-05-01T14:00Z,DE,\n2024-05-01T13:00Z,FR,50\n",
        "datetime_utc,DE,FR\n2024-05-01 13:00:00+00:00,300,50\n2024-05-01 14:00:00+00:00,,50\n",
        "\ufeffhour,region,value\n2024-05-01 15:00+02:00,DE,300\n\n2024-05-01 13:00,FR,50\n",
    ],
)
def test_an_hour_of_a_table_serves_in_either_layout(tmp_path: Path, text: str):
    hours = table(tmp_path, text, counts="direct")
    germany = Place("DEU", zone="DE")
    paris = HOUR.astimezone(timezone(timedelta(hours=2))) + timedelta(minutes=59)
    carbon = emissions(KWH, germany, paris, carbon=hours)
    assert (carbon.location.mean, carbon.counts) == (300.0, "direct")
    assert carbon.location.high == pytest.approx(300 * 1.2 * 2)
    assert "2024-05-01 13:00 UTC" in carbon.assumed[-1]


@pytest.mark.parametrize(
    ("at", "words"), [(HOUR + timedelta(hours=1), "no DE at 2024-05-01 14:00 UTC"), (None, "nobody said when")]
)
def test_an_hour_that_a_table_does_not_know_is_the_yearly_average_and_says_so(
    tmp_path: Path, at: datetime | None, words: str
):
    hours = table(tmp_path, "hour,region,value\n2024-05-01T13:00Z,DE,300\n")
    carbon = emissions(KWH, Place("DEU", zone="DE"), at, carbon=hours)
    assert carbon.location == emissions(KWH, Place("DEU")).location
    assert words in carbon.assumed[-1]


def test_a_price_may_be_below_zero_and_costs_whole_nano_dollars(tmp_path: Path):
    prices = table(tmp_path, "hour,DE,FR\n2024-05-01T13:00Z,80,-20\n", unit="usd/MWh")
    cost = power_cost(KWH, Place("DEU", zone="DE"), HOUR, price=prices)
    assert cost is not None
    assert (cost.low, cost.mean, cost.high) == (40_000_000, 80_000_000, 160_000_000)
    paid = power_cost(KWH, Place("FRA", zone="FR"), HOUR, price=prices)
    assert paid is not None
    assert (paid.low, paid.mean, paid.high) == (-40_000_000, -20_000_000, -10_000_000)
    assert power_cost(KWH, Place("FRA", zone="FR"), HOUR + timedelta(days=1), price=prices) is None


def test_prices_are_not_grams_and_grams_are_not_prices(tmp_path: Path):
    hours = "hour,region,value\n2024-05-01T13:00Z,DE,30\n"
    germany = Place("DEU", zone="DE")
    with pytest.raises(ConfigError, match="not carbon"):
        emissions(KWH, germany, HOUR, carbon=table(tmp_path, hours, unit="usd/MWh"))
    with pytest.raises(ConfigError, match="not a price"):
        power_cost(KWH, germany, HOUR, price=table(tmp_path, hours))
    with pytest.raises(ConfigError, match="needs a time"):
        power_cost(KWH, germany, price=table(tmp_path, hours))


def test_a_time_without_a_zone_is_refused(tmp_path: Path):
    hours = table(tmp_path, "hour,region,value\n2024-05-01T13:00Z,DE,30\n")
    with pytest.raises(ConfigError, match="no time zone"):
        emissions(KWH, Place("DEU", zone="DE"), datetime(2024, 5, 1, 13), carbon=hours)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no figures"),
        ("hour,region,value\n", "no figures"),
        ("hour,region,value\nnoon,DE,3\n", "line 2: 'noon' is not a time"),
        ("hour,region,value\n2024-05-01T13:30Z,DE,3\n", "not the start of an hour"),
        ("hour,region,value\n2024-05-01T13:00Z,DE,nan\n", "is not a number"),
        ("hour,region,value\n2024-05-01T13:00Z,DE,lots\n", "is not a number"),
        ("hour,region,value\n2024-05-01T13:00Z,DE,-3\n", "cannot be true"),
        ("hour,region,value\n2024-05-01T13:00Z,DE,300000\n", "Check the unit"),
        ("hour,region,value\n2024-05-01T13:00Z,DE\n", "2 cells where the header has 3"),
        ("hour,region,value\n2024-05-01T13:00Z,DE,3\n2024-05-01T13:00Z,DE,4\n", "two figures"),
        ('hour,region,value\n2024-05-01T13:00Z,"DE,3\n', "not a CSV"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        table(tmp_path, text)


def test_a_table_that_is_not_there_or_in_another_unit_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        HourlyTable.read(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="Unit 'lb/MWh' is not known"):
        HourlyTable.read(tmp_path / "none.csv", unit="lb/MWh")


def test_water_is_of_the_machines_and_not_of_the_building():
    litres = water(KWH, Place("USA", "aws")).litres
    assert litres.mean == pytest.approx(0.2 / 1.17)
    machines = Energy(3.6e6, 3.6e6, 3.6e6, "measured", "board")
    assert water(machines, Place("USA", "aws")).litres.mean == pytest.approx(0.2)
    assert water(machines, Place("USA", "a garage")).litres.low == 0.0


@given(st.floats(0, 1e12), st.floats(1, 3), st.floats(1, 3), st.sampled_from(sorted(regions())))
def test_grams_are_an_interval_around_their_mean(mean: float, low: float, high: float, code: str):
    energy = Energy(mean, mean / low, mean * high, "modelled", "board")
    grams = emissions(energy, Place(code, "unknown")).location
    assert 0 <= grams.low <= grams.mean * (1 + 1e-12)
    assert grams.mean <= grams.high * (1 + 1e-12)


def test_nine_hours_in_ten_lie_within_the_factor_of_a_yearly_average():
    folder = PROJECT.parent / "shared" / "data" / "grid" / "sustain_cluster"
    if not folder.is_dir():
        pytest.skip("the table of hours is not on this machine")
    inside = all_hours = 0
    for year in (2023, 2024):
        hours = HourlyTable.read(folder / f"carbon_direct_{year}.csv", counts="direct")
        for values in hours.values.values():
            mean = sum(values.values()) / len(values)
            inside += sum(mean / 1.8 <= value <= mean * 1.8 for value in values.values())
            all_hours += len(values)
    assert inside / all_hours == pytest.approx(0.90, abs=0.01)
