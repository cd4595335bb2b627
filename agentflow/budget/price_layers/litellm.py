"""Prices of litellm's cost map, read as data: the package is found, never imported. May import price and package.

Keys of the map: a model alone, which its row says who sells, or ``seller/model``. Figures are dollars per token.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from agentflow.budget.price import Price, Rates, Tier
from agentflow.budget.price_layers.package import known_rates, snapshot

NAME = "litellm"
_FILE = "model_prices_and_context_window_backup.json"
# A reply that is an image or sound costs the token price of that; which it was, a count of tokens does not tell.
_TOKENS = {
    "input": ("input_cost_per_token",),
    "output": ("output_cost_per_token", "output_cost_per_image_token", "output_cost_per_audio_token"),
    "cache_read": ("cache_read_input_token_cost", "input_cost_per_token_cache_hit"),
    "cache_write": ("cache_creation_input_token_cost",),
    "reasoning": ("output_cost_per_reasoning_token",),
}
_AUDIO_MODES = ("audio_transcription", "audio_speech")
_AUDIO_SECONDS = ("input_cost_per_second", "output_cost_per_second")
# Also ``output_cost_per_image_4K``: the size of an image is not known beforehand, so the dearest counts.
_IMAGE = re.compile(r"(input|output)_cost_per_image(_[\d.]+K?)?")


def find(name: str, sellers: tuple[str, ...]) -> Price | None:
    """The map's price of this model."""
    rows = _map()
    for key in (*(f"{seller}/{name}" for seller in sellers), name):
        row = rows.get(key)
        if row is None or (key == name and sellers and not _sold_by(row, sellers)):
            continue
        usual = _tiers(row, "")
        if usual[0].rates.stated():
            found = snapshot(NAME)
            return Price(usual, _tiers(row, "_batches"), f"{NAME} {found.version} ({key})", found.date)
    return None


def row_of(model: str) -> Mapping[str, Any]:
    """What the map says of a model, by its whole id or the last part of it; empty when it is not there."""
    rows = _map()
    return rows.get(model) or rows.get(model.rsplit("/", 1)[-1]) or {}


def _sold_by(row: Mapping[str, Any], sellers: tuple[str, ...]) -> bool:
    """Whether a row without a seller in its key is of one of these: ``vertex_ai-language-models`` is vertex_ai's."""
    said = str(row.get("litellm_provider", ""))
    return any(said == seller or said.startswith(f"{seller}-") for seller in sellers)


@functools.cache
def _map() -> Mapping[str, Any]:
    spec = importlib.util.find_spec(NAME)
    if spec is None or not spec.submodule_search_locations:
        return {}
    return read(Path(spec.submodule_search_locations[0], _FILE))


def read(file: Path) -> Mapping[str, Any]:
    """A cost map; one that is not there or is no such map knows no model."""
    try:
        rows: dict[str, Any] | None = json.loads(file.read_text("utf-8"), parse_float=Decimal)
    except (OSError, ValueError):
        return {}
    return rows if isinstance(rows, dict) else {}


def _tiers(row: Mapping[str, Any], suffix: str) -> tuple[Tier, ...]:
    """The price lists by length of prompt; none when the row says nothing of this interface."""
    ranges = {int(each["range"][0]): each for each in row.get("tiered_pricing", ()) if "range" in each}
    if 0 in ranges and not suffix:
        return tuple(Tier(start, _rates(ranges[start], "", "")) for start in sorted(ranges))
    above = re.compile(rf"input_cost_per_token_above_(\d+)k_tokens{suffix}")
    starts = {int(found[1]) * 1_000 for key in row if (found := above.fullmatch(key))}
    tiers = [Tier(0, _rates(row, "", suffix))]
    tiers += [Tier(start, _rates(row, f"_above_{start // 1_000}k_tokens", suffix)) for start in sorted(starts)]
    return tuple(tiers) if tiers[0].rates.stated() or not suffix else ()


def _rates(row: Mapping[str, Any], above: str, suffix: str) -> Rates:
    stated = {unit: _dearest(row, [key + above + suffix for key in keys], 1_000_000) for unit, keys in _TOKENS.items()}
    return known_rates(stated if above or suffix else stated | _other_units(row))


def _other_units(row: Mapping[str, Any]) -> dict[str, Decimal | None]:
    """Images, audio and the fee of a request; an image sold by its pixels has no price that holds for all."""
    seconds = _AUDIO_SECONDS if row.get("mode") in _AUDIO_MODES else ()
    images = [] if any(key.endswith("_per_pixel") for key in row) else [key for key in row if _IMAGE.fullmatch(key)]
    return {
        "image": _dearest(row, images, 1),
        "audio": _dearest(row, ["input_cost_per_audio_per_second", *seconds], 1),
        "request": _dearest(row, ["input_cost_per_request"], 1),
    }


def _dearest(row: Mapping[str, Any], keys: list[str], per: int) -> Decimal | None:
    known = [Decimal(row[key]) * per for key in keys if row.get(key) is not None]
    return max(known, default=None)
