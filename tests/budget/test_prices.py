"""Which layer states what a model costs, and that none of them is ever free, wrong or asked over the network."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from agentflow.budget import price, prices
from agentflow.budget.price import in_dollars
from agentflow.budget.price_layers import genai, litellm, package, shipped
from agentflow.budget.prices import Price, PriceBook
from agentflow.errors import UnpricedModel
from agentflow.messages import TokenUsage
from tests.conftest import PROJECT


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


def test_the_long_price_starts_one_token_above_its_threshold_and_covers_the_whole_call() -> None:
    price = PriceBook().require("gemini-2.5-pro")
    assert price.cost(TokenUsage(200_000, 1_000)) == 260_000_000
    assert price.cost(TokenUsage(200_001, 1_000)) == 515_002_500


def test_every_shipped_price_has_a_source_a_date_and_a_caveat() -> None:
    for model in shipped.names():
        price = PriceBook().require(model)
        assert price.source.startswith("agentflow 20")
        assert price.date in price.source
        assert "not checked" in price.note


@pytest.mark.parametrize("model", shipped.names())
def test_both_tables_agree_with_a_shipped_price_or_state_a_lower_one(model: str) -> None:
    ours, *others = PriceBook().answers(model)
    assert [other.source.split()[0] for other in others] == ["genai-prices", "litellm"]
    told = [ours.differences(other) for other in others]
    assert () in told
    assert all(each.ours > each.theirs and each.above for differences in told for each in differences)


@pytest.mark.parametrize("model", shipped.names())
def test_no_change_of_a_shipped_price_is_announced(model: str) -> None:
    seller, name = model.split("/", 1)
    later = genai._find(name, shipped.sellers(seller), date(2030, 1, 1))
    assert later is not None and later == genai.find(name, shipped.sellers(seller))


def test_a_given_price_wins_for_exactly_its_name() -> None:
    free = Price.per_million("0", "0", source="agentflow.toml")
    book = PriceBook({"gpt-4o": free})
    assert book.require("gpt-4o") is free
    assert book.require("openai/gpt-4o").rates.input == 2_500_000_000
    assert book.answers("gpt-4o")[0] is free and len(book.answers("gpt-4o")) == 4


def test_a_model_outside_our_file_is_priced_by_a_package_with_its_version_and_date() -> None:
    groq = PriceBook().require("groq/gemma2-9b-it")
    assert groq.source.startswith("genai-prices ") and groq.date.removeprefix("by ").startswith("20")
    qwen = PriceBook().require("dashscope/qwen3-max")
    assert qwen.source.startswith("litellm ") and qwen.date.removeprefix("by ").startswith("20")
    assert [tier.above for tier in qwen.tiers] == [0, 32_000, 128_000]


def test_the_packages_bring_their_tiers_batch_audio_and_request_prices_along() -> None:
    book = PriceBook()
    assert [tier.above for tier in book.require("gemini-1.5-pro").tiers] == [0, 128_000]
    dated = book.require("gpt-4o-2024-05-13")
    assert dated.cost(TokenUsage(1_000_000, 0), batch=True) * 2 == dated.cost(TokenUsage(1_000_000, 0))
    assert book.require("whisper-1").cost(TokenUsage(), audio_ms=60_000) == 6_000_000
    assert book.require("perplexity/sonar").cost(TokenUsage()) == 12_000_000


def test_an_hour_that_is_cheaper_is_not_counted_on() -> None:
    (told, *_) = PriceBook().answers("deepseek/deepseek-reasoner")
    assert told.rates.stated() == {"input": 550_000_000, "output": 2_190_000_000, "cache_read": 140_000_000}


def test_a_dated_id_is_an_id_of_its_own() -> None:
    book = PriceBook()
    assert book.require("gpt-4o-2024-05-13").rates.input == 5_000_000_000
    assert book.require("gpt-4o").rates.input == 2_500_000_000


@pytest.mark.parametrize(
    "model",
    [
        "my-own-model",
        "gpt-4o-mine",
        "gemini-2.5-pro-exp",
        "my-server/gpt-4o",
        "my-openai/gpt-4o",
        "",
        "/",
        "gpt",
        "a/b/c",
    ],
)
def test_an_unknown_model_is_never_free_and_never_taken_for_a_relative(model: str) -> None:
    assert PriceBook().find(model) is None
    with pytest.raises(UnpricedModel, match="price = "):
        PriceBook().require(model)


def test_a_provider_is_understood_before_the_name_beside_it_and_by_all_its_names() -> None:
    book = PriceBook()
    assert book.find("gpt-4o", "openai") == book.find("openai/gpt-4o") == book.find("openai/gpt-4o", "openai")
    assert book.require("gemini/gemini-2.5-flash") == book.require("google/gemini-2.5-flash")
    assert book.find("gpt-4o", "vllm") is None


def test_a_zero_in_a_package_is_no_price() -> None:
    rows = [name for name, row in litellm._map().items() if row.get("input_cost_per_token") == 0]
    assert len(rows) > 50
    for name in rows:
        price = litellm.find(name, ())
        assert price is None or not price.rates.stated().get("input"), name


def test_every_row_of_both_packages_is_priced_or_unknown_and_never_free() -> None:
    from genai_prices.data import providers

    asked = [(model.id, (provider.id,)) for provider in providers for model in provider.models]
    known = [price for name, sellers in asked if (price := genai.find(name, sellers))]
    known += [price for name in litellm._map() if (price := litellm.find(name, ()))]
    assert len(known) > 4_000
    for price in known:
        assert any(price.rates.stated().values()), price.source
        if price.rates.input is not None and price.rates.output is not None:
            assert price.ceiling(10**6, 10**6) >= price.cost(TokenUsage(10**6, 10**6)) > 0, price.source
            assert price.ceiling(10**6, 10**6, batch=True) >= price.cost(TokenUsage(10**6, 10**6), batch=True) > 0


def dollars(price: Price | None, *, batch: bool = False) -> list[tuple[int, dict[str, str]]]:
    assert price is not None
    lists = price.batch if batch else price.tiers
    return [
        (each.above, {unit: f"{in_dollars(unit, rate):f}" for unit, rate in each.rates.stated().items()})
        for each in lists
    ]


def test_litellms_map_brings_tiers_batch_thought_images_and_audio_along() -> None:
    long = litellm.find("gpt-5.6", ("openai",))
    assert dollars(long) == [
        (0, {"input": "4", "output": "20", "cache_read": "0.4", "cache_write": "5"}),
        (272_000, {"input": "8", "output": "30", "cache_read": "0.8", "cache_write": "10"}),
    ]
    assert dollars(long, batch=True) == [
        (0, {"input": "2", "output": "10", "cache_read": "0.2", "cache_write": "2.5"}),
        (272_000, {"input": "4", "output": "15", "cache_read": "0.4", "cache_write": "5"}),
    ]
    assert dollars(litellm.find("qwen-turbo", ("dashscope",))) == [
        (0, {"input": "0.05", "output": "0.2", "reasoning": "0.5"})
    ]
    assert dollars(litellm.find("whisper-1", ("openai",))) == [(0, {"audio": "0.0001"})]
    assert dollars(litellm.find("dall-e-3", ("aiml",))) == [(0, {"image": "0.052"})]


def test_a_reply_of_an_image_is_priced_at_its_dearest_token_and_its_largest_size() -> None:
    for layer in (genai, litellm):
        price = layer.find("gpt-image-1", ("openai",))
        assert price is not None and price.rates.output == 40_000_000_000
    assert dollars(litellm.find("fal-ai/nano-banana-2", ("fal_ai",))) == [(0, {"image": "0.16"})]
    assert litellm.find("fal-ai/flux/dev", ("fal_ai",)) is None  # sold by the pixel


def test_litellms_map_is_read_to_the_last_digit() -> None:
    row = litellm._map()["gpt-4o"]
    assert isinstance(row["cache_read_input_token_cost"], Decimal)
    price = litellm.find("gpt-4o", ("openai",))
    assert price is not None and price.rates.cache_read == row["cache_read_input_token_cost"] * 10**15


@pytest.mark.parametrize("content", [None, b"", b"[1, 2]", b"{", b"\xff\xfe"])
def test_a_cost_map_that_is_none_knows_no_model(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "map.json"
    if content is not None:
        file.write_bytes(content)
    assert litellm.read(file) == {}


def test_a_package_of_a_version_that_we_do_not_know_is_dated_by_when_it_was_installed() -> None:
    found = package.snapshot("pytest")
    assert found.version == pytest.__version__
    assert (
        found.date.startswith("by 20")
        and date.fromisoformat(found.date.removeprefix("by ")) <= datetime.now(UTC).date()
    )


def test_looking_prices_up_never_imports_litellm_nor_opens_a_connection() -> None:
    program = """
import json, socket, sys
def refuse(*_): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
import agentflow.budget.prices
early = [name for name in ("genai_prices", "litellm") if name in sys.modules]
answers = agentflow.budget.prices.PriceBook().answers("gpt-4o")
print(json.dumps([early, [answer.source for answer in answers], "litellm" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    early, sources, imported = json.loads(done.stdout)
    assert early == [] and not imported
    assert [source.split()[0] for source in sources] == ["agentflow", "genai-prices", "litellm"]


def test_the_examples_of_the_documentation_are_true() -> None:
    page = doctest.testfile(str(PROJECT / "docs/prices.md"), module_relative=False)
    assert page.attempted == 6 and page.failed == 0
    for module in (price, prices):
        tried = doctest.testmod(module)
        assert tried.attempted and not tried.failed
