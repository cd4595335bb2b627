"""Prices: dollars per token, exact, each with its source and date. Unknown is never free.

Layers, the first that knows a model serves: prices given in the configuration, a small dated file of ours,
the genai-prices package. A model that none of them knows has no price. May import money, errors, messages.
"""

from __future__ import annotations

import functools
import importlib.metadata
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any

from agentflow.budget.money import nano_from_decimal
from agentflow.errors import UnpricedModel
from agentflow.messages import TokenUsage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class LongContext:
    """Prices that apply to a whole call once its prompt is longer than ``above`` tokens."""

    above: int
    input: int
    output: int
    cache_read: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, in nano-dollars per million tokens.

    ``cache_read`` and ``cache_write`` price prompt tokens read from and written to the provider's cache; None
    means that nothing is known of a rebate, so they cost the full input price.

    Example:
        >>> gpt_4o = Price.per_million("2.5", "10", "1.25", source="docs", date="2026-07-01")
        >>> gpt_4o.cost(TokenUsage(input=10_000, cached_input=8_000, output=1_000))
        25000000
    """

    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None
    long: LongContext | None = None
    source: str = "given"
    date: str = ""

    @classmethod
    def per_million(
        cls,
        input: Decimal | str,
        output: Decimal | str,
        cache_read: Decimal | str | None = None,
        cache_write: Decimal | str | None = None,
        *,
        source: str,
        date: str = "",
    ) -> Price:
        """A price from dollars per million tokens, as price lists state them."""
        return cls(_nano(input), _nano(output), _maybe(cache_read), _maybe(cache_write), source=source, date=date)

    def cost(self, usage: TokenUsage) -> int:
        """Nano-dollars of ``usage``, half a nano-dollar up.

        ``(input - read - write) * input + read * cache_read + write * cache_write + output * output``.
        """
        total = self._millionths(usage)
        return (2 * total + _MILLION) // (2 * _MILLION)

    def ceiling(self, input_tokens: int, output_tokens: int) -> int:
        """The most nano-dollars a call within these counts can cost, rounded up: what a hold reserves."""
        dearest = [
            self._millionths(TokenUsage(input=input_tokens, output=output_tokens)),
            self._millionths(TokenUsage(input=input_tokens, output=output_tokens, cache_write=input_tokens)),
            self._millionths(TokenUsage(input=input_tokens, output=output_tokens, cached_input=input_tokens)),
        ]
        return -(-max(dearest) // _MILLION)

    def _millionths(self, usage: TokenUsage) -> int:
        rates = self.long if self.long is not None and usage.input > self.long.above else self
        read = rates.input if rates.cache_read is None else rates.cache_read
        write = rates.input if self.cache_write is None else max(self.cache_write, rates.input)
        fresh = max(0, usage.input - usage.cached_input - usage.cache_write)
        return fresh * rates.input + usage.cached_input * read + usage.cache_write * write + usage.output * rates.output


FREE_LOCAL = Price(0, 0, 0, 0, source="local: no price per token")


class PriceBook:
    """Finds the price of a model.

    Args:
        given: prices by model name that win over every table.

    Example:
        >>> PriceBook().require("openai/gpt-4o").source
        'agentflow 2026-07-01'
    """

    def __init__(self, given: Mapping[str, Price] | None = None) -> None:
        self._given = dict(given or {})

    def find(self, model: str, provider: str | None = None) -> Price | None:
        """The price of exactly this model (a ``provider/`` before its name is understood), or None."""
        bare = model.rsplit("/", 1)[-1]
        if provider is None and "/" in model:
            provider = model.split("/", 1)[0]
        for name in (model, bare):
            if name in self._given:
                return self._given[name]
        return _shipped().get(bare) or _from_genai_prices(bare, provider)

    def require(self, model: str, provider: str | None = None) -> Price:
        """The price of a model.

        Raises:
            UnpricedModel: no table knows it.
        """
        price = self.find(model, provider)
        if price is None:
            raise UnpricedModel(
                f"No price is known for model '{model}'. Give one in agentflow.toml, in dollars per million tokens: "
                "price = { input = 0.5, output = 1.5 }; for a server of your own, price = { input = 0, output = 0 }."
            )
        return price


@functools.cache
def _shipped() -> Mapping[str, Price]:
    table = tomllib.loads(resources.files("agentflow.budget").joinpath("data/prices.toml").read_text("utf-8"))
    return {name: _row(row, table["source"], table["date"]) for name, row in table["models"].items()}


def _row(row: Mapping[str, Any], source: str, date: str) -> Price:
    long = None
    if "long_above" in row:
        long = LongContext(
            row["long_above"], _nano(row["long_input"]), _nano(row["long_output"]), _maybe(row.get("long_cache_read"))
        )
    return Price(
        _nano(row["input"]),
        _nano(row["output"]),
        _maybe(row.get("cache_read")),
        _maybe(row.get("cache_write")),
        long,
        source,
        date,
    )


def _from_genai_prices(model: str, provider: str | None) -> Price | None:
    """The genai-prices package's figure. Its tiered prices are not carried over: the dearest tier is taken."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
        prices = found.get_prices(_now())
    except LookupError:
        return None
    if prices.input_mtok is None or prices.output_mtok is None:
        return None
    version = importlib.metadata.version("genai-prices")
    return Price(
        _dearest(prices.input_mtok),
        _dearest(prices.output_mtok),
        None if prices.cache_read_mtok is None else _dearest(prices.cache_read_mtok),
        None if prices.cache_write_mtok is None else _dearest(prices.cache_write_mtok),
        source=f"genai-prices {version}",
    )


def _dearest(price: Any) -> int:
    tiers = getattr(price, "tiers", ())
    return max([_nano(getattr(price, "base", price)), *(_nano(tier.price) for tier in tiers)])


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _nano(dollars: Decimal | str | float) -> int:
    return nano_from_decimal(Decimal(str(dollars)))


def _maybe(dollars: Decimal | str | None) -> int | None:
    return None if dollars is None else _nano(dollars)
