"""Prices given in the configuration."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from agentflow.budget.price import Price
from agentflow.budget.price_layers import given
from agentflow.config import PriceSettings, load_settings
from agentflow.errors import ConfigError, UnpricedModel
from agentflow.messages import TokenUsage


def price(**table: object) -> Price:
    return given.price(PriceSettings.model_validate(table))


def test_every_key_of_the_table_counts() -> None:
    told = price(
        input=1, output="2", cache_read=0.1, cache_write=1.25, reasoning=3, image=0.04, audio_second=0.0001,
        request=0.005,
        tiers=[{"above": 500_000, "input": 4, "output": 8}, {"above": 100_000, "input": 2, "output": 4}],
        batch={"input": 0.5, "output": 1}, date="2026-11-01",
    )  # fmt: skip
    assert (told.source, told.date) == ("agentflow.toml", date(2026, 11, 1).isoformat())
    usage = TokenUsage(10_000, 1_000, 4_000, 1_000, 500)
    tokens = 5_000 * 1_000 + 4_000 * 100 + 1_000 * 1_250 + 500 * 2_000 + 500 * 3_000
    assert told.cost(usage, images=2, audio_ms=30_000) == tokens + 2 * 40_000_000 + 30 * 100_000 + 5_000_000
    assert [tier.above for tier in told.tiers] == [0, 100_000, 500_000]
    assert told.cost(TokenUsage(1_000, 0), batch=True) == 500_000 + 5_000_000


def test_nothing_but_zeros_is_free_in_every_unit() -> None:
    free = price(input=0, output=0)
    assert free.ceiling(10**9, 10**9, images=10**6, audio_ms=10**9, batch=True) == 0
    assert free.cost(TokenUsage(10, 10, 5, 5, 5), images=1, audio_ms=1) == 0


def test_zeros_beside_a_price_are_for_their_own_unit_alone() -> None:
    heard = price(input=0, output=0, audio_second=0.0001)
    assert heard.cost(TokenUsage(10, 10), audio_ms=60_000) == 6_000_000
    with pytest.raises(UnpricedModel, match="image"):
        heard.ceiling(10, 10, images=1)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("{ input = 1 }", "output"),
        ("{ input = -1, output = 1 }", "greater than or equal to 0"),
        ("{ input = nan, output = 1 }", "finite"),
        ("{ input = 1e300, output = 1 }", "less than or equal to 1000000"),
        ('{ input = "free", output = 1 }', "decimal"),
        ("{ input = 1, output = 1, inptu = 1 }", "there is no such key"),
        ("{ input = 1, output = 1, date = 'last week' }", "date"),
        ("{ input = 1, output = 1, tiers = [{ above = 0, input = 1, output = 1 }] }", "greater than 0"),
        ("{ input = 1, output = 1, tiers = [TIER, TIER] }", "the same number of tokens"),
    ],
)
def test_a_price_that_makes_no_sense_is_told_in_one_line(tmp_path: Path, table: str, told: str) -> None:
    tier = "{ above = 9, input = 1, output = 1 }"
    file = tmp_path / "agentflow.toml"
    file.write_text(f'[models.a]\nbackend = "litellm"\nprice = {table.replace("TIER", tier)}\n')
    with pytest.raises(ConfigError) as error:
        load_settings(file)
    assert told in str(error.value) and "\n" not in str(error.value)
