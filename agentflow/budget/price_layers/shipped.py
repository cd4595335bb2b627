"""Prices that ship with agentflow: a small dated file for the models people use most. May import price.

The same file knows by which names a seller goes, and from when the prices of the packages below are.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from agentflow.budget.price import Price, Rates, Tier


def find(name: str, sellers: tuple[str, ...]) -> Price | None:
    """The price that our file states for this model."""
    row = _table()["models"].get(name)
    if row is None or (sellers and row["provider"] not in sellers):
        return None
    return _price(row, _table())


def names() -> tuple[str, ...]:
    """Every model of the file, as ``provider/name``."""
    return tuple(f"{row['provider']}/{name}" for name, row in _table()["models"].items())


def sellers(provider: str) -> tuple[str, ...]:
    """Every name by which this provider goes, the given one first."""
    for known, aliases in _table()["providers"].items():
        if provider == known or provider in aliases:
            return tuple(dict.fromkeys((provider, known, *aliases)))
    return (provider,)


def released(package: str, version: str) -> str | None:
    """From when the prices in this version of a package are, where our file says so."""
    return _table()["snapshots"].get(f"{package} {version}")


@functools.cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(resources.files("agentflow.budget").joinpath("data/prices.toml").read_text("utf-8"))


def _price(row: Mapping[str, Any], table: Mapping[str, Any]) -> Price:
    tiers = (Tier(0, _rates(row)), *(Tier(tier["above"], _rates(tier)) for tier in row.get("tiers", ())))
    batch = row.get("batch")
    longer = () if batch is None else tuple(Tier(tier["above"], _rates(tier)) for tier in batch.get("tiers", ()))
    return Price(
        tiers,
        () if batch is None else (Tier(0, _rates(batch)), *longer),
        f"agentflow {table['date']}",
        table["date"],
        table["note"],
    )


def _rates(row: Mapping[str, Any]) -> Rates:
    return Rates.dollars(**{unit: usd for unit, usd in row.items() if isinstance(usd, str) and unit != "provider"})
