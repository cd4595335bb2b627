"""What the layers read from an installed package share: its version and date, and distrust of its zeros."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from agentflow.budget.price import Rates
from agentflow.budget.price_layers.shipped import released


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The installed version of a package of prices, and from when its prices are."""

    version: str
    date: str


@functools.cache
def snapshot(package: str) -> Snapshot:
    """From when a package's prices are: as our file says, else no later than it was installed."""
    version = importlib.metadata.version(package)
    return Snapshot(version, released(package, version) or f"by {_installed(package)}")


def known_rates(dollars: Mapping[str, Decimal | None]) -> Rates:
    """Rates of a table that writes 0 for what it does not know: such a zero promises nothing.

    Only a reply may cost nothing, of a model whose prompts do not: an embedding. What else is free is said in the
    configuration.
    """
    kept = {unit: usd for unit, usd in dollars.items() if usd}
    if "input" in kept and dollars.get("output") == 0:
        kept["output"] = Decimal(0)
    return Rates.dollars(**kept)


def _installed(package: str) -> str:
    record = next(file for file in importlib.metadata.files(package) or () if file.name == "METADATA")
    return datetime.fromtimestamp(Path(str(record.locate())).stat().st_mtime, UTC).date().isoformat()
