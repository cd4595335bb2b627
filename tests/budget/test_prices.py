from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budget.money import decimal_text, format_usd, nano_from_decimal
from agentflow.budget.prices import Price, PriceBook
from agentflow.errors import UnpricedModel
from agentflow.messages import TokenUsage

counts = st.integers(0, 500_000)
rates = st.integers(0, 100_000_000_000)


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


def test_every_shipped_price_has_a_source_and_a_date() -> None:
    price = PriceBook().require("openai/gpt-4o-mini")
    assert price.source.startswith("agentflow 20")
    assert price.date


def test_a_given_price_wins_and_genai_prices_is_the_last_layer() -> None:
    given_price = Price.per_million("1", "2", source="agentflow.toml")
    book = PriceBook({"gpt-4o": given_price})
    assert book.require("gpt-4o") is given_price
    assert book.require("groq/llama-3.3-70b-versatile").source.startswith("genai-prices")


def test_an_unknown_model_is_never_free() -> None:
    assert PriceBook().find("my-own-model") is None
    with pytest.raises(UnpricedModel, match="price = "):
        PriceBook().require("my-own-model")


@given(rates, rates, st.none() | rates, st.none() | rates, counts, counts, st.floats(0, 1), st.floats(0, 1))
def test_no_usage_within_the_bounds_costs_more_than_the_ceiling(
    i: int, o: int, read: int | None, write: int | None, prompt: int, reply: int, cached: float, written: float
) -> None:
    price = Price(i, o, read, write)
    r = int(prompt * cached)
    usage = TokenUsage(prompt, reply, r, int((prompt - r) * written))
    assert price.cost(usage) <= price.ceiling(prompt, reply)
    assert price.cost(usage) <= price.ceiling(prompt + 10, reply + 10)


@pytest.mark.parametrize(
    ("nano", "shown"),
    [(0, "$0"), (1, "$0.000000001"), (3_100_000, "$0.0031"), (250_000_000, "$0.25"), (12_400_000_000, "$12.40")],
)
def test_money_prints_for_people(nano: int, shown: str) -> None:
    assert format_usd(nano) == shown


@given(st.integers(0, 10**15))
def test_money_as_text_is_exact(nano: int) -> None:
    from decimal import Decimal

    assert nano_from_decimal(Decimal(decimal_text(nano))) == nano
    assert (format_usd(nano) == "$0") == (nano == 0)
