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
    """The price that our file states for this model of one of these sellers."""
    sold = next((seller for seller in sellers if name in _table()["models"].get(seller, {})), None)
    return None if sold is None else _price(sold, name)


def seller(name: str) -> str | None:
    """Who sells a model of this name, when our file knows exactly one."""
    sold = [seller for seller, rows in _table()["models"].items() if name in rows]
    return sold[0] if len(sold) == 1 else None


def names() -> tuple[str, ...]:
    """Every model of the file, as ``provider/name``."""
    return tuple(f"{seller}/{name}" for seller, rows in _table()["models"].items() for name in rows)


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


def _price(seller: str, name: str) -> Price:
    table = _table()
    batch = table["batch"].get(seller, {}).get(name)
    source, date = f"agentflow {table['date']}", table["date"]
    return Price(
        _tiers(table["models"][seller][name]), () if batch is None else _tiers(batch), source, date, table["note"]
    )


def _tiers(row: Mapping[str, Any]) -> tuple[Tier, ...]:
    return (Tier(0, _rates(row)), *(Tier(tier["above"], _rates(tier)) for tier in row.get("tiers", ())))


def _rates(row: Mapping[str, Any]) -> Rates:
    return Rates.dollars(**{unit: usd for unit, usd in row.items() if unit not in ("above", "tiers")})
