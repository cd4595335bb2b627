"""Prices: dollars per token, exact, each with its source and date. Unknown is never free.

Layers, the first that knows a model serves: prices given in the configuration, a small dated file of ours,
the genai-prices package. A model that none of them knows has no price. May import money, errors, messages.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from typing import Any

from agentflow.budget.money import nano_from_decimal
from agentflow.errors import UnpricedModel
from agentflow.messages import TokenUsage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class LongContext:
    """Prices that apply to a whole call, prompt and reply, once its prompt is longer than ``above`` tokens.

    ``cache_read`` None is the full input price; ``cache_write`` None is the dearer of the input price and the
    write price of shorter prompts.
    """

    above: int
    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, in nano-dollars per million tokens.

    ``cache_read`` and ``cache_write`` price prompt tokens read from and written to the provider's cache; None
    means that nothing is known of a rebate, so they cost the full input price. ``source`` and ``date`` say who
    states the price and when it was looked up, ``note`` what to keep in mind.

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
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse prices that would pay the caller: a budget would grow by spending."""
        tiers = [self] if self.long is None else [self, self.long]
        rates = [r for t in tiers for r in (t.input, t.output, t.cache_read, t.cache_write) if r is not None]
        if min(rates) < 0:
            raise ValueError(f"a price cannot be negative, got {min(rates)} nano-dollars per million tokens")

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
        rates = self._short()
        if self.long is not None and usage.input > self.long.above:
            rates = self._long(self.long)
        fresh = max(0, usage.input - usage.cached_input - usage.cache_write)
        total = fresh * rates.input + usage.cached_input * rates.cache_read
        total += usage.cache_write * rates.cache_write + usage.output * rates.output
        return (2 * total + _MILLION) // (2 * _MILLION)

    def ceiling(self, input_tokens: int, output_tokens: int) -> int:
        """The most nano-dollars a call of at most these counts can cost, rounded up: what a hold reserves.

        Every prompt token is taken at the dearest of fresh, read and written; with a long-context price, the
        dearer of the two price lists counts.
        """
        totals = [self._short().most(input_tokens, output_tokens)]
        if self.long is not None and input_tokens > self.long.above:
            shorter = self._short().most(self.long.above, output_tokens)
            totals = [shorter, self._long(self.long).most(input_tokens, output_tokens)]
        return -(-max(totals) // _MILLION)

    def _short(self) -> _Rates:
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        return _Rates(self.input, self.output, read, write)

    def _long(self, long: LongContext) -> _Rates:
        read = long.input if long.cache_read is None else long.cache_read
        write = max(long.input, self._short().cache_write) if long.cache_write is None else long.cache_write
        return _Rates(long.input, long.output, read, write)


@dataclass(frozen=True, slots=True)
class _Rates:
    """One price list with every gap filled."""

    input: int
    output: int
    cache_read: int
    cache_write: int

    def most(self, input_tokens: int, output_tokens: int) -> int:
        return input_tokens * max(self.input, self.cache_read, self.cache_write) + output_tokens * self.output


FREE_LOCAL = Price(0, 0, 0, 0, source="local: no price per token")


class PriceBook:
    """Finds the price of a model by its exact id.

    A ``provider/`` before the name is understood: ``openai/gpt-4o`` is OpenAI's gpt-4o, and ``my-server/gpt-4o``
    is not. A dated id (``gpt-4o-2024-05-13``) is an id of its own, never cut down to the undated one, because
    providers have priced them apart; a table that lists only the undated id may serve a dated one of it.

    Args:
        given: prices by model name that win over every table. They are for exactly these names: a free
            ``gpt-4o`` of your own server does not make ``openai/gpt-4o`` free.

    Example:
        >>> PriceBook().require("openai/gpt-4o").source
        'agentflow 2026-11-21'
    """

    def __init__(self, given: Mapping[str, Price] | None = None) -> None:
        self._given = dict(given or {})

    def find(self, model: str, provider: str | None = None) -> Price | None:
        """The price of exactly this model, or None when nobody states one."""
        if model in self._given:
            return self._given[model]
        name = model
        if provider is None and "/" in model:
            provider, name = model.split("/", 1)
        elif provider is not None:
            name = model.removeprefix(f"{provider}/")
        shipped = _shipped().get(name)
        if shipped is not None and (provider is None or provider in shipped.providers):
            return shipped.price
        return _from_genai_prices(name, provider)

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


@dataclass(frozen=True, slots=True)
class _Shipped:
    price: Price
    providers: tuple[str, ...]


@functools.cache
def _shipped() -> Mapping[str, _Shipped]:
    table = tomllib.loads(resources.files("agentflow.budget").joinpath("data/prices.toml").read_text("utf-8"))
    return {
        name: _Shipped(_row(row, table), tuple(table["providers"][row["provider"]]))
        for name, row in table["models"].items()
    }


def _row(row: Mapping[str, Any], table: Mapping[str, Any]) -> Price:
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
        f"agentflow {table['date']}",
        table["date"],
        table["note"],
    )


# What may follow an undated id for the same model: a date, or a version of a provider's release.
_DATED = re.compile(r"[-@](?:20\d\d-\d\d-\d\d|20\d{6}|00\d)")


def _from_genai_prices(model: str, provider: str | None) -> Price | None:
    """The genai-prices package's figure, when it lists this id and does not merely take it for a relative."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        seller, found = get_snapshot().find_provider_model(model, None, provider, None)
        prices = found.get_prices(datetime.now(UTC))
    except LookupError:
        return None
    if not _is_listed(model.lower(), found.id.lower(), found.match):
        return None
    if prices.input_mtok is None or prices.output_mtok is None:
        return None
    rows = [prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok]
    version = importlib.metadata.version("genai-prices")
    source = f"genai-prices {version} ({seller.id})"
    starts = {tier.start for row in rows for tier in getattr(row, "tiers", ())}
    if len(starts) != 1:
        # No tiers, or more of them than a Price tells apart: then the dearest one counts.
        return Price(*_rates(max, rows), source=source)
    long = LongContext(starts.pop(), *_rates(_last, rows))
    return Price(*_rates(_first, rows), long, source)


def _is_listed(model: str, listed: str, match: Any) -> bool:
    if model.startswith(listed) and (model == listed or _DATED.fullmatch(model[len(listed) :])):
        return True
    equals = getattr(match, "equals", None)
    if equals is not None:
        return equals.lower() == model
    return any(_is_listed(model, listed, part) for part in getattr(match, "or_", ()))


def _first(figures: list[int]) -> int:
    return figures[0]


def _last(figures: list[int]) -> int:
    return figures[-1]


def _rates(choose: Callable[[list[int]], int], rows: Sequence[Any]) -> tuple[int, int, int | None, int | None]:
    """Input, output, cache read and cache write of one tier; a row without tiers is the same in each."""
    chosen = [
        None if row is None else choose([_nano(getattr(row, "base", row)), *(_nano(t.price) for t in _tiers(row))])
        for row in rows
    ]
    fresh, reply, read, write = chosen
    assert fresh is not None and reply is not None
    return fresh, reply, read, write


def _tiers(row: Any) -> Sequence[Any]:
    return getattr(row, "tiers", ())


def _nano(dollars: Decimal | str | float) -> int:
    return nano_from_decimal(Decimal(str(dollars)))


def _maybe(dollars: Decimal | str | None) -> int | None:
    return None if dollars is None else _nano(dollars)
