from __future__ import annotations

import pytest

from agentflow.energy.grid import grams, pue, region, regions
from agentflow.energy.interval import Energy
from agentflow.errors import ConfigError

KWH = Energy(3.6e6, 1.8e6, 7.2e6, "modelled", "facility")


def test_a_kilowatt_hour_in_france_is_its_yearly_average() -> None:
    carbon = grams(KWH, "fra")
    assert carbon.grams.mean == pytest.approx(56.0)
    assert carbon.grams.low == pytest.approx(56.0 / 1.5 / 2)
    assert carbon.grams.high == pytest.approx(56.0 * 1.5 * 2)
    assert "CC BY 4.0" in carbon.assumed[-1]


def test_an_unknown_place_spans_from_the_cleanest_to_the_dirtiest() -> None:
    anywhere = region("WORLD").g_per_kwh
    for place in regions().values():
        assert anywhere.low <= place.g_per_kwh.low < place.g_per_kwh.high <= anywhere.high
        assert 2019 < place.year < 2030


def test_the_building_is_counted_once() -> None:
    host = Energy(3.6e6, 3.6e6, 3.6e6, "modelled", "server")
    assert grams(host, "FRA").grams.mean == pytest.approx(56.0)
    assert grams(host, "FRA", provider="aws").grams.mean == pytest.approx(56.0 * 1.17)
    assert grams(KWH, "FRA", provider="aws") == grams(KWH, "FRA")


def test_energy_of_boards_alone_says_what_is_left_out() -> None:
    assert "left out" in grams(Energy(1, 1, 1, "modelled", "board"), "DEU").assumed[-1]


def test_a_provider_that_is_not_listed_is_unknown_and_a_region_is_refused() -> None:
    assert pue("a friend's garage") == pue()
    with pytest.raises(ConfigError, match="Known regions: AUS"):
        grams(KWH, "Atlantis")
