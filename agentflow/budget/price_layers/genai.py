"""Prices of the genai-prices package, read from the data that it was installed with. May import price and package.

A model is served only when the package lists exactly this id, or its undated form: relatives have prices of their own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from agentflow.budget.price import Price, Rates, Tier
from agentflow.budget.price_layers.package import known_rates, snapshot

NAME = "genai-prices"
# A reply that is an image or sound costs the token price of that; which it was, a count of tokens does not tell.
_SOURCES = {
    "input": ("input_mtok",),
    "output": ("output_mtok", "output_image_mtok", "output_audio_mtok", "output_video_mtok"),
    "cache_read": ("cache_read_mtok",),
    "cache_write": ("cache_write_mtok",),
    "reasoning": ("output_reasoning_mtok",),
    "audio": ("audio_hours", "input_audio_hours", "output_audio_hours"),
    "request": ("requests_kcount",),
}
_PER = {"audio": 3_600, "request": 1_000}
# What may follow an undated id for the same model: a date, or a version of a provider's release.
_DATED = re.compile(r"[-@](?:20\d\d-\d\d-\d\d|20\d{6}|00\d)")


def find(name: str, sellers: tuple[str, ...]) -> Price | None:
    """The package's price of today."""
    return _find(name, sellers, datetime.now(UTC).date())


@functools.lru_cache(maxsize=4096)
def _find(name: str, sellers: tuple[str, ...], day: date) -> Price | None:
    for seller, model in _listed(name, sellers):
        found = snapshot(NAME)
        usual = _tiers(_in_force(model, day, None))
        if not usual[0].rates.stated():
            continue
        # Who resells another's model may not offer its batch interface.
        own = any(model is listed for listed in seller.models)
        batch = _tiers(_in_force(model, day, {"processing": "batch"})) if own else usual
        return Price(usual, () if batch == usual else batch, f"{NAME} {found.version} ({seller.id})", found.date)
    return None


def _listed(name: str, sellers: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """The sellers that list exactly this model, each with its entry; without a seller, its maker."""
    from genai_prices.data_snapshot import get_snapshot

    data = get_snapshot()
    asked = [provider for seller in sellers for provider in data.providers if provider.id == seller]
    if not sellers:
        try:
            asked = [data.find_provider(name, None, None)]
        except LookupError:
            return
    for provider in asked:
        model = provider.find_model(name, all_providers=data.providers)
        if model is not None and _is_listed(name.lower(), model.id.lower(), model.match):
            yield provider, model


def _is_listed(name: str, listed: str, match: Any) -> bool:
    if name.startswith(listed) and (name == listed or _DATED.fullmatch(name[len(listed) :])):
        return True
    equals = getattr(match, "equals", None)
    if equals is not None:
        return equals.lower() == name
    return any(_is_listed(name, listed, part) for part in getattr(match, "or_", ()))


def _in_force(model: Any, day: date, context: dict[str, str] | None) -> list[Any]:
    """The prices that apply at some time of this day: a few sellers have cheap hours, and the dearest counts."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    changes = 48 if isinstance(model.prices, list) else 1
    hours = [midnight + timedelta(minutes=30 * half) for half in range(changes)]
    found = [model.get_prices(hour, context) for hour in hours]
    return [prices for at, prices in enumerate(found) if prices not in found[:at]]


def _tiers(prices: list[Any]) -> tuple[Tier, ...]:
    """The price lists by length of prompt: one per threshold that any figure of the package has."""
    keys = [key for sources in _SOURCES.values() for key in sources]
    figures = [getattr(one, key) for one in prices for key in keys]
    starts = {0} | {tier.start for figure in figures for tier in getattr(figure, "tiers", ())}
    return tuple(Tier(start, _rates(prices, start)) for start in sorted(starts))


def _rates(prices: list[Any], start: int) -> Rates:
    stated: dict[str, Decimal] = {}
    for unit, keys in _SOURCES.items():
        figures = [getattr(one, key) for one in prices for key in keys]
        known = [_above(figure, start) for figure in figures if figure is not None]
        if known:
            stated[unit] = max(known) / _PER.get(unit, 1)
    return known_rates(stated)


def _above(figure: Any, start: int) -> Decimal:
    """A figure for prompts longer than ``start`` tokens."""
    passed = [tier.price for tier in getattr(figure, "tiers", ()) if tier.start <= start]
    return passed[-1] if passed else getattr(figure, "base", figure)
