"""Where the tables of prices agree: ``python -m benchmarks.price_tables [--every] [--json]``

Compares our file with genai-prices and with litellm's cost map, model by model, as they are installed; no network.
With --every also every model that both packages list. Exit code 1 when a price of ours is one that no other table
states, or is lower than one that another states.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from agentflow.budget.price import Difference, Price, in_dollars
from agentflow.budget.price_layers import genai, litellm, shipped
from benchmarks.table import Figure, show

Compared = tuple[str, Price, Price]


def main() -> int:
    """Compare and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--every", action="store_true", help="compare all models that both packages list")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    figures = list(ours())
    if asked.every:
        figures += every()
    return show("Prices, table against table", figures, as_json=asked.json)


def ours() -> Iterator[Figure]:
    """Our file against each package, and a line for each rate on which they differ."""
    models = shipped.names()
    lines = [line for model in models for line in _against_others(model)]
    alike = len(models) - len({line.what for line in lines})
    yield Figure("models in our file", str(len(models)), f"{alike} alike in every table")
    yield from lines


def _against_others(model: str) -> list[Figure]:
    seller, name = model.split("/", 1)
    sellers = shipped.sellers(seller)
    price = shipped.find(name, sellers)
    assert price is not None
    others = [other for layer in (genai, litellm) if (other := layer.find(name, sellers)) is not None]
    told = [(other, price.differences(other)) for other in others]
    if all(differences for _, differences in told):
        return [Figure(model, "as no other table states it", passed=False)]
    return [
        Figure(model, _told(each), other.source, passed=each.ours > each.theirs)
        for other, differences in told
        for each in differences
    ]


def every() -> Iterator[Figure]:
    """Models that both packages list with the same seller."""
    from genai_prices.data import providers

    pairs: list[Compared] = []
    for provider in providers:
        sellers = shipped.sellers(provider.id)
        for model in provider.models:
            one, other = genai.find(model.id, (provider.id,)), litellm.find(model.id, sellers)
            if one is not None and other is not None:
                pairs.append((f"{provider.id}/{model.id}", one, other))
    differing = {name: one.differences(other) for name, one, other in pairs if one.differences(other)}
    share = len(differing) / max(1, len(pairs))
    yield Figure("models in both packages", str(len(pairs)), f"{len(differing)} of them differ ({share:.0%})")
    for name, differences in differing.items():
        yield from (Figure(name, _told(each), "genai-prices, not litellm") for each in differences)


def _told(difference: Difference) -> str:
    batch = "batch " if difference.batch else ""
    above = f" above {difference.above:,}" if difference.above else ""
    ours, theirs = (in_dollars(difference.unit, rate) for rate in (difference.ours, difference.theirs))
    return f"{batch}{difference.unit}{above}: ${ours:f}, not ${theirs:f}"


if __name__ == "__main__":
    sys.exit(main())
