from __future__ import annotations

import importlib.util
import json
import tomllib
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budget.money import decimal_text, format_usd, nano_from_decimal
from agentflow.budget.prices import FREE_LOCAL, LongContext, Price, PriceBook
from agentflow.errors import UnpricedModel
from agentflow.messages import TokenUsage

counts = st.integers(0, 500_000)
rates = st.integers(0, 100_000_000_000)
long_contexts = st.builds(LongContext, counts, rates, rates, st.none() | rates, st.none() | rates)
prices = st.builds(Price, rates, rates, st.none() | rates, st.none() | rates, st.none() | long_contexts)


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    prompt = draw(counts)
    read = draw(st.integers(0, prompt))
    return TokenUsage(prompt, draw(counts), read, draw(st.integers(0, prompt - read)))


@pytest.mark.parametrize(
    ("model", "usage", "nano_usd"),
    [
        ("gpt-4o", TokenUsage(10_000, 1_000, cached_input=8_000), 25_000_000),
        ("claude-sonnet-4-5", TokenUsage(10_000, 1_000, cached_input=6_000, cache_write=2_000), 30_300_000),
        ("gpt-5", TokenUsage(1_000, 1_000, reasoning=800), 11_250_000),
        ("gemini-2.5-pro", TokenUsage(300_000, 1_000), 765_000_000),
    ],
)
def test_worked_cases_cost_what_a_calculator_says(model: str, usage: TokenUsage, nano_usd: int) -> None:
    assert PriceBook().require(model).cost(usage) == nano_usd


def test_a_cache_read_price_that_nobody_states_is_the_full_price() -> None:
    price = Price.per_million("2", "4", source="test")
    assert price.cost(TokenUsage(1_000_000, 0, cached_input=1_000_000)) == 2_000_000_000


def test_a_cache_write_price_that_is_given_is_taken_at_its_word() -> None:
    usage = TokenUsage(1_000_000, 0, cache_write=1_000_000)
    assert Price.per_million("3", "15", None, "3.75", source="test").cost(usage) == 3_750_000_000
    assert Price.per_million("3", "15", None, "0.5", source="test").cost(usage) == 500_000_000


def test_the_long_price_starts_one_token_above_its_threshold_and_covers_the_whole_call() -> None:
    price = PriceBook().require("gemini-2.5-pro")
    assert price.cost(TokenUsage(200_000, 1_000)) == 260_000_000
    assert price.cost(TokenUsage(200_001, 1_000)) == 515_002_500


def test_halves_of_a_nano_dollar_settle_upwards_and_any_part_of_one_is_held() -> None:
    assert Price(500_000, 0).cost(TokenUsage(1, 0)) == 1
    assert Price(499_999, 0).cost(TokenUsage(1, 0)) == 0
    assert Price(1, 0).ceiling(1, 0) == 1


def test_a_price_that_pays_the_caller_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Price(1, -1)
    with pytest.raises(ValueError, match="negative"):
        Price(1, 1, long=LongContext(10, 1, 1, cache_read=-5))


def test_every_shipped_price_has_a_source_a_date_and_a_caveat() -> None:
    price = PriceBook().require("openai/gpt-4o-mini")
    assert price.source.startswith("agentflow 20")
    assert price.date in price.source
    assert "not checked" in price.note


def shipped() -> dict[str, dict[str, Any]]:
    return tomllib.loads(resources.files("agentflow.budget").joinpath("data/prices.toml").read_text("utf-8"))["models"]


@pytest.mark.parametrize("model", shipped())
def test_two_sources_agree_on_every_shipped_price(model: str) -> None:
    from genai_prices import Usage, calc_price

    ours = PriceBook().require(model)
    provider = shipped()[model]["provider"]
    usage = Usage(input_tokens=1_000_000, cache_read_tokens=400_000, output_tokens=100_000)
    theirs = calc_price(usage, model_ref=model, provider_id=provider).total_price
    if ours.long is None and model != "claude-sonnet-4-5":
        # (genai-prices keeps a price of sonnet's that ended with its long context.)
        assert ours.cost(TokenUsage(1_000_000, 100_000, 400_000)) == nano_from_decimal(theirs)
    spec = importlib.util.find_spec("litellm")
    assert spec is not None and spec.submodule_search_locations
    table = Path(spec.submodule_search_locations[0], "model_prices_and_context_window_backup.json")
    row = json.loads(table.read_text("utf-8"))[model]
    for field, key in (
        (ours.input, "input_cost_per_token"),
        (ours.output, "output_cost_per_token"),
        (ours.cache_read, "cache_read_input_token_cost"),
        (ours.cache_write, "cache_creation_input_token_cost"),
    ):
        if field is not None:
            assert field == pytest.approx(row[key] * 1e15)


def test_a_given_price_wins_for_exactly_its_name() -> None:
    free = Price.per_million("0", "0", source="agentflow.toml")
    book = PriceBook({"gpt-4o": free})
    assert book.require("gpt-4o") is free
    assert book.require("openai/gpt-4o").input == 2_500_000_000


def test_genai_prices_is_the_last_layer_and_brings_its_tiers_along() -> None:
    assert PriceBook().require("groq/llama-3.3-70b-versatile").source.startswith("genai-prices")
    assert PriceBook().require("gemini-1.5-pro").long is not None


def test_a_dated_id_is_an_id_of_its_own() -> None:
    book = PriceBook()
    assert book.require("gpt-4o-2024-05-13").input == 5_000_000_000
    assert book.require("gpt-4o").input == 2_500_000_000


@pytest.mark.parametrize(
    "model", ["my-own-model", "gpt-4o-mine", "gemini-2.5-pro-exp", "my-server/gpt-4o", "", "/", "gpt"]
)
def test_an_unknown_model_is_never_free_and_never_taken_for_a_relative(model: str) -> None:
    assert PriceBook().find(model) is None
    with pytest.raises(UnpricedModel, match="price = "):
        PriceBook().require(model)


def test_a_provider_is_understood_before_the_name_and_beside_it() -> None:
    book = PriceBook()
    assert book.find("gpt-4o", "openai") == book.find("openai/gpt-4o") == book.find("openai/gpt-4o", "openai")
    assert book.require("gemini/gemini-2.5-flash").source.startswith("agentflow")
    assert book.find("gpt-4o", "vllm") is None


def test_a_model_in_this_process_has_no_price_per_token() -> None:
    assert FREE_LOCAL.ceiling(10**9, 10**9) == 0


@given(prices, usages(), counts, counts)
def test_no_usage_within_the_bounds_costs_more_than_the_ceiling(
    price: Price, usage: TokenUsage, more: int, longer: int
) -> None:
    cost = price.cost(usage)
    assert isinstance(cost, int) and cost >= 0
    assert cost <= price.ceiling(usage.input, usage.output) <= price.ceiling(usage.input + more, usage.output + longer)


@given(rates, rates, st.none() | rates, usages(), counts, counts)
def test_more_tokens_never_cost_less(
    fresh: int, reply: int, read: int | None, usage: TokenUsage, more: int, longer: int
) -> None:
    grown = TokenUsage(usage.input + more, usage.output + longer, usage.cached_input, usage.cache_write)
    price = Price(fresh, reply, read)
    assert price.cost(grown) >= price.cost(usage)


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0"), (1, "$0.000000001"), (3_100_000, "$0.0031"), (250_000_000, "$0.25"), (999_999_999, "$1.00"),
        (12_400_000_000, "$12.40"), (1_234_567_890_000, "$1,234.57"),
    ],
)  # fmt: skip
def test_money_prints_for_people(nano: int, shown: str) -> None:
    assert format_usd(nano) == shown


@given(st.integers(0, 10**15))
def test_money_as_text_is_exact(nano: int) -> None:
    assert nano_from_decimal(Decimal(decimal_text(nano))) == nano
    assert (format_usd(nano) == "$0") == (nano == 0)
