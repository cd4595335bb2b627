"""``agentflow models --prices``: what each model costs, which layer says so, and what the other layers say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import click

from agentflow.budget.price import Difference, Price, Tier, in_dollars
from agentflow.budget.price_layers import given
from agentflow.budget.prices import FREE_LOCAL, PriceBook
from agentflow.config import Settings

_TOKENS = ("input", "output", "cache_read", "cache_write", "reasoning")
_OTHER = {"image": "an image", "audio": "a second of audio", "request": "a request"}
_LABEL, _CELL = 34, 12


@dataclass(frozen=True, slots=True)
class PricedModel:
    """A model, the price that serves it, if any, and what the other layers say of it."""

    name: str
    model: str
    price: Price | None
    others: tuple[Price, ...] = ()


def priced_models(settings: Settings, names: tuple[str, ...]) -> list[PricedModel]:
    """The models of these names: configured ones, or ids that the price book knows; without names, all configured ones.

    Raises:
        UnpricedModel: a name is neither configured nor known.
    """
    book = PriceBook()
    if not names:
        return [_configured(settings, name, book) for name in settings.models]
    return [_configured(settings, name, book) if name in settings.models else _known(name, book) for name in names]


def show_prices(models: list[PricedModel], *, as_json: bool) -> None:
    """Print them, as a table of at most 100 columns or as JSON."""
    if as_json:
        click.echo(json.dumps([_for_machines(model) for model in models], indent=2))
        return
    if not models:
        click.echo("No models are configured. Name some: agentflow models --prices gpt-4o claude-haiku-4-5")
        return
    heads = "".join(unit.replace("_", " ").rjust(_CELL) for unit in _TOKENS)
    click.echo(click.style("$ per million tokens".ljust(_LABEL) + heads, dim=True))
    for model in models:
        click.echo("\n".join(_for_people(model)))
    click.echo(
        click.style("* stated by nobody: the dearest that could apply counts.  - not sold by this unit.", dim=True)
    )


def _configured(settings: Settings, name: str, book: PriceBook) -> PricedModel:
    facts = settings.models[name]
    model = facts.model or name
    if facts.backend == "llamacpp":
        price = FREE_LOCAL if facts.price is None else given.price(facts.price)
        return PricedModel(name, model, price)
    said = book.answers(model)
    if facts.price is not None:
        return PricedModel(name, model, given.price(facts.price), said)
    return PricedModel(name, model, said[0] if said else None, said[1:])


def _known(name: str, book: PriceBook) -> PricedModel:
    book.require(name)
    served, *others = book.answers(name)
    return PricedModel(name, name, served, tuple(others))


def _for_people(model: PricedModel) -> Iterator[str]:
    called = "" if model.model == model.name else f"  {model.model}"
    yield click.style(model.name, bold=True) + called
    if model.price is None:
        yield "  no price is known: no cascade can use it. Give one in its table of agentflow.toml,"
        yield "  price = { input = 0.5, output = 1.5 }, or { input = 0, output = 0 } for a server of your own."
        return
    for batch in (False, True) if model.price.batch else (False,):
        for tier in model.price.in_force(batch=batch):
            yield _row(model.price, tier, batch)
    extra = [
        f"${_plain(in_dollars(unit, rate))} {of}" for unit, of in _OTHER.items() if (rate := _rate(model.price, unit))
    ]
    if extra:
        yield f"  {', '.join(extra)}"
    yield f"  by {_named(model.price)}" + (f": {model.price.note}" if model.price.note else "")
    for other in model.others:
        differences = model.price.differences(other)
        yield f"  {_named(other)}: " + ("otherwise" if differences else "the same")
        for difference in differences:
            yield f"    {_difference(difference)}"


def _row(price: Price, tier: Tier, batch: bool) -> str:
    stated = _stated(price, tier, batch)
    label = f"  {'batch' if batch else 'usual'}{f', above {tier.above:,} tokens' if tier.above else ''}"
    cells = [_cell(getattr(tier.rates, unit), unit, unit in stated) for unit in _TOKENS]
    return (label.ljust(_LABEL) + "".join(cells)).rstrip()


def _stated(price: Price, tier: Tier, batch: bool) -> dict[str, int]:
    """What a source itself states for this list."""
    lists = [each.rates for each in (price.batch if batch else price.tiers) if each.above == tier.above]
    return lists[0].stated() if lists else {}


def _cell(rate: int | None, unit: str, stated: bool) -> str:
    text = "- " if rate is None else f"{_plain(in_dollars(unit, rate))}{' ' if stated else '*'}"
    return text.rjust(_CELL)


def _rate(price: Price, unit: str) -> int | None:
    return getattr(price.in_force()[0].rates, unit)


def _difference(difference: Difference) -> str:
    where = f"{'batch ' if difference.batch else ''}{difference.unit.replace('_', ' ')}"
    if difference.above:
        where += f" above {difference.above:,} tokens"
    ours, theirs = (in_dollars(difference.unit, rate) for rate in (difference.ours, difference.theirs))
    share = f" ({(theirs - ours) / ours:+.0%})" if ours else ""
    return f"{where}: ${_plain(theirs)}, not ${_plain(ours)}{share}"


def _named(price: Price) -> str:
    return price.source if not price.date or price.date in price.source else f"{price.source}, {price.date}"


def _plain(dollars: Decimal) -> str:
    return f"{dollars.normalize():f}"


def _for_machines(model: PricedModel) -> dict[str, Any]:
    told: dict[str, Any] = {"name": model.name, "model": model.model, "price": None, "others": []}
    if model.price is None:
        return told
    told["price"] = _price(model.price)
    told["others"] = [
        _price(other) | {"differences": [_told(each) for each in model.price.differences(other)]}
        for other in model.others
    ]
    return told


def _price(price: Price) -> dict[str, Any]:
    batches = (False, True) if price.batch else (False,)
    lists = [_list(price, tier, batch) for batch in batches for tier in price.in_force(batch=batch)]
    return {"source": price.source, "date": price.date, "note": price.note, "lists": lists}


def _list(price: Price, tier: Tier, batch: bool) -> dict[str, Any]:
    known, stated = tier.rates.stated(), _stated(price, tier, batch)
    rates = {_key(unit): _plain(in_dollars(unit, rate)) for unit, rate in known.items()}
    assumed = [_key(unit) for unit in known if unit not in stated and unit != "request"]
    return {"batch": batch, "above": tier.above, **rates, "assumed": assumed}


def _told(difference: Difference) -> dict[str, Any]:
    ours, theirs = (_plain(in_dollars(difference.unit, rate)) for rate in (difference.ours, difference.theirs))
    where = {"unit": _key(difference.unit), "above": difference.above, "batch": difference.batch}
    return where | {"ours": ours, "theirs": theirs}


def _key(unit: str) -> str:
    return "audio_second" if unit == "audio" else unit
