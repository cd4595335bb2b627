"""A report as tables in the terminal, 100 columns wide at most. Imports report, rich."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentflow.budget.currency import MICRO, format_amount, format_grams
from agentflow.budget.ledger import EntryFilter
from agentflow.budget.money import format_usd
from agentflow.budget.report import Latency, ReportLine, SpendReport
from agentflow.energy.interval import format_joules
from agentflow.research.rendering.numbering import clean

_WIDTH, _NAME = 100, 26
UNKNOWN = "-"


def console() -> Console:
    """Standard output, 100 columns wide or as wide as the terminal: a figure is never cut short to fit."""
    narrow = Console(highlight=False)
    return narrow if narrow.width >= _WIDTH and narrow.is_terminal else Console(highlight=False, width=_WIDTH)


def table(*columns: str, words: int = 1) -> Table:
    """An empty table in the style of the command line.

    Args:
        columns: their headers. The first gives way when there is too little room.
        words: how many of them hold words; the others hold figures.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    made.add_column(columns[0], overflow="ellipsis", max_width=_NAME, vertical="bottom")
    for place, column in enumerate(columns[1:], start=1):
        made.add_column(column, justify="left" if place < words else "right", no_wrap=True, vertical="bottom")
    return made


def print_report(report: SpendReport, which: EntryFilter, console: Console) -> None:
    """Print what was spent, then the rates and latencies, then what needs a word.

    Args:
        report: the report.
        which: the entries it is of.
        console: where to.
    """
    attempts = sum(report.total.attempts.values())
    console.print(Text(f"Spend by {report.by}{_of(which)}: {attempts:,} attempts", style="bold"))
    if not attempts:
        console.print("The ledger has no such attempt.")
        return
    lines = [*report.lines, report.total] if len(report.lines) > 1 else [*report.lines]
    console.print()
    console.print(_spent(report, lines))
    console.print()
    if report.total.spent.tokens:
        console.print(_rates(report, lines))
        console.print()
    for note in _notes(report.total):
        console.print(Text(note, style="dim"))


def _spent(report: SpendReport, lines: list[ReportLine]) -> Table:
    made = table(report.by, "calls", "input", "output", "dollars", "joules", "CO2e")
    for line in lines:
        spent, usage = line.spent, line.spent.usage
        made.add_row(
            _name(line), f"{spent.calls:,}", _count(usage.input), _count(usage.output), format_usd(spent.nano_usd),
            _joules(line), _grams(line), style="bold" if line is report.total else "",
        )  # fmt: skip
    return made


def _rates(report: SpendReport, lines: list[ReportLine]) -> Table:
    made = table(
        report.by, "cached", "$/\nMtok", "kWh/\nMtok", "score\n/kJ",
        "first\np50 s", "token\np95 s", "\np99 s", "whole\np50 s", "call\np95 s", "\np99 s",
    )  # fmt: skip
    for line in lines:
        per_million, kwh, quality = line.nano_usd_per_million_tokens, line.kwh_per_million_tokens, line.quality
        made.add_row(
            _name(line),
            UNKNOWN if line.cache_hits is None else f"{line.cache_hits:.0%}",
            UNKNOWN if per_million is None else format_usd(per_million),
            UNKNOWN if kwh is None else f"{kwh:.3g}",
            UNKNOWN if quality is None else f"{quality.per_joule * 1000:.3g}",
            *_latency(line.first_token),
            *_latency(line.whole_call),
            style="bold" if line is report.total else "",
        )
    return made


def _notes(total: ReportLine) -> Iterator[str]:
    spent, joules = total.spent, total.joules
    if joules is not None and joules.high > 0.0:
        yield f"Joules are {joules.provenance}: mean (and the ends of a 90 % interval), scope {joules.scope}."
    if total.whole_call is not None:
        yield "Percentiles are of settled attempts at models, by nearest rank, from sending to the reply."
    if total.quality is not None:
        yield f"score/kJ: mean score over mean kJ of the {total.quality.scored:,} attempts that checks scored."
    if spent.in_doubt:
        calls = format_amount("calls", spent.in_doubt)
        yield f"In doubt: {calls}, charged at the worst case. List them: agentflow budget reconcile."
    if spent.overruns:
        yield f"Overruns: {format_amount('calls', spent.overruns)} came back dearer than held."
    if spent.estimated:
        yield f"Estimated: tokens of {format_amount('calls', spent.estimated)} are our own count."
    yield from _unpaid(total)
    if released := total.attempts.get("released", 0):
        yield f"Released: {released:,} attempts that were not sent, at no cost."
    if holding := total.attempts.get("held", 0):
        tokens, nano_usd, microjoules, _, _ = total.held
        yield (
            f"Still held for {holding:,} attempts: {tokens:,} tokens, {format_usd(nano_usd)}, "
            f"{format_joules(microjoules / MICRO)}."
        )


def _unpaid(total: ReportLine) -> Iterator[str]:
    if total.replays:
        yield f"Replays: {total.replays:,} replies given again from the ledger, at no cost."
    if total.reused:
        yield f"Reused: {total.reused:,} calls answered by the reply of an earlier one, at no cost."


def _of(which: EntryFilter) -> str:
    """The filter in words."""
    parts = [
        f" of {name} {shown(value)}"
        for name in ("tenant", "job", "chain", "agent", "model")
        if (value := getattr(which, name)) is not None
    ]
    for word, ms in (("since", which.since_ms), ("until", which.until_ms)):
        if ms is not None:
            parts.append(f" {word} {moment(ms)}")
    return "".join(parts)


def shown(text: str) -> str:
    """A label as a terminal may show it: in one line, without control characters."""
    return " ".join(clean(text).split())


def moment(ms: int) -> str:
    """Milliseconds since 1970 for people, UTC."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%d %H:%M:%SZ}"


def _name(line: ReportLine) -> Text:
    return Text(shown(line.group) or "(none)")


def _count(tokens: int) -> str:
    return f"{tokens:,}" if tokens < 100_000_000 else f"{tokens / 1e6:,.0f} M"


def _joules(line: ReportLine) -> str:
    joules = line.joules
    if joules is None:
        return UNKNOWN
    if joules.low == joules.high:
        return format_joules(joules.mean)
    return f"{format_joules(joules.mean)} ({format_joules(joules.low)}–{format_joules(joules.high)})"


def _grams(line: ReportLine) -> str:
    if line.co2e is None:
        return UNKNOWN
    # Counted in whole micrograms: less than half of one is not nothing.
    least = line.co2e.mean == 0 and line.co2e.high > 0
    return "<1 µg" if least else format_grams(line.co2e.mean / MICRO).removesuffix(" CO2e")


def _latency(latency: Latency | None) -> tuple[str, str, str]:
    if latency is None:
        return (UNKNOWN, UNKNOWN, UNKNOWN)
    p50, p95, p99 = (f"{seconds:.3g}" for seconds in (latency.p50, latency.p95, latency.p99))
    return (p50, p95, p99)
