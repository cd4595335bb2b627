"""A report for machines: JSON with exact figures, CSV for a spreadsheet. Imports report.

What is not known is null in JSON and an empty cell in CSV, never 0.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast, get_args

from agentflow.budget.currency import MICRO
from agentflow.budget.ledger.base import State
from agentflow.budget.money import decimal_text
from agentflow.budget.report import Latency, ReportLine, SpendReport

# A spreadsheet takes a cell that begins so for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_json(report: SpendReport) -> dict[str, Any]:
    """The report as plain values.

    Dollars are exact decimal text (``usd``) and exact integers (``nano_usd``); joules, grams and seconds are numbers.
    """
    return {
        "by": report.by,
        "groups": [_line(line) for line in report.lines],
        "total": _line(report.total),
    }


def to_csv(report: SpendReport) -> str:
    """The report as CSV with a header: one row a group, no row of totals, so that a column may be summed.

    A group whose name a spreadsheet would take for a formula gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # The header is that of any line; the total's names are those of the groups.
    writer.writerow([report.by, *(name for name, _ in _cells(_line(report.total)))])
    for line in report.lines:
        cells = ("" if value is None else value for _, value in _cells(_line(line)))
        writer.writerow([_safe(line.group), *cells])
    return text.getvalue()


def _line(line: ReportLine) -> dict[str, Any]:
    spent, usage, per_million = line.spent, line.spent.usage, line.nano_usd_per_million_tokens
    return {
        "group": line.group or None,
        "calls": spent.calls,
        "attempts": {state: line.attempts.get(state, 0) for state in get_args(State)},
        "tokens": {
            "total": usage.total,
            "input": usage.input,
            "cached_input": usage.cached_input,
            "cache_write": usage.cache_write,
            "output": usage.output,
            "reasoning": usage.reasoning,
        },
        "images": usage.images,
        "audio_seconds": usage.audio_ms / 1000,
        "usd": decimal_text(spent.nano_usd),
        "nano_usd": spent.nano_usd,
        "joules": _joules(line),
        "grams_co2e": _grams(line),
        "seconds": round(spent.seconds, 6),
        "estimated": spent.estimated,
        "overruns": spent.overruns,
        "in_doubt": spent.in_doubt,
        "replays": line.replays,
        "reused": line.reused,
        "cache_hits": line.cache_hits,
        "usd_per_million_tokens": None if per_million is None else decimal_text(per_million),
        "kwh_per_million_tokens": line.kwh_per_million_tokens,
        "first_token_seconds": _latency(line.first_token),
        "whole_call_seconds": _latency(line.whole_call),
        "quality": _quality(line),
        "held": {
            "tokens": line.held[0],
            "usd": decimal_text(line.held[1]),
            "nano_usd": line.held[1],
            "joules": line.held[2] / MICRO,
            "grams_co2e": line.held[3] / MICRO,
            "calls": line.held[4],
        },
    }


def _joules(line: ReportLine) -> dict[str, Any]:
    joules = line.joules
    if joules is None:
        return dict.fromkeys(("mean", "low", "high", "provenance", "scope"))
    known = joules.high > 0.0
    return {
        "mean": joules.mean,
        "low": joules.low,
        "high": joules.high,
        "provenance": joules.provenance if known else None,
        "scope": joules.scope if known else None,
    }


def _grams(line: ReportLine) -> dict[str, float | None]:
    grams = line.co2e
    ends = (None, None, None) if grams is None else (grams.mean, grams.low, grams.high)
    return {name: None if end is None else end / MICRO for name, end in zip(("mean", "low", "high"), ends, strict=True)}


def _latency(latency: Latency | None) -> dict[str, float | int | None]:
    if latency is None:
        return {"p50": None, "p95": None, "p99": None, "replies": 0}
    return {"p50": latency.p50, "p95": latency.p95, "p99": latency.p99, "replies": latency.replies}


def _quality(line: ReportLine) -> dict[str, float | int | None]:
    quality = line.quality
    if quality is None:
        return {"scored": 0, "mean_score": None, "mean_joules": None, "per_joule": None}
    return {
        "scored": quality.scored,
        "mean_score": quality.mean_score,
        "mean_joules": quality.mean_joules,
        "per_joule": quality.per_joule,
    }


def _cells(line: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The figures of a line as one row: ``joules.mean`` becomes ``joules_mean``."""
    for name, value in line.items():
        if name == "group":
            continue
        if isinstance(value, Mapping):
            yield from _cells(cast("Mapping[str, Any]", value), f"{above}{name}_")
        else:
            yield above + name, value


def _safe(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
