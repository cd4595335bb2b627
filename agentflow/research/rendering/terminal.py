"""A report in the terminal, by rich; plain lines where there is no terminal. Imports numbering, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentflow.energy.interval import format_joules
from agentflow.research.rendering.numbering import (
    LEFT_OUT,
    Section,
    all_citations,
    clean,
    limit_line,
    not_read,
    notes,
    sections,
    served,
    short,
    summary,
    usd,
)
from agentflow.research.report import NOT_ANSWERED, EnergyFigure, Report


def render(report: Report, texts: Mapping[str, str], console: Console, run_folder: Path | None = None) -> None:
    """Print a report.

    Args:
        report: the report.
        texts: the stored texts by source id, for line numbers.
        console: where to.
        run_folder: where the job is kept, named in the last line.
    """
    parts = sections(report, texts)
    console.print(Text(clean(report.question), style="bold"))
    console.print()
    _answer(report, parts, console)
    if report.basis is not None:
        console.print_json(data=report.data)
    if report.unsupported:
        console.print(Text("Unsupported (failed verification; no part of the answer)", style="bold yellow"))
        for unsupported in report.unsupported:
            console.print(Padding(Text(f"- {clean(unsupported.text)}: {clean(unsupported.reason)}"), (0, 0, 0, 2)))
    for numbered in all_citations(parts):
        line = Text(f"[{numbered.number}] ", style="cyan")
        line.append(clean(numbered.place), style="bold default")
        line.append(f'  "{short(numbered.citation.quote)}"', style="dim default")
        console.print(line)
    console.print()
    _meter(report, console)
    _footer(report, console, run_folder)


def _answer(report: Report, parts: Sequence[Section], console: Console) -> None:
    if not report.answered:
        console.print(Text(NOT_ANSWERED, style="bold yellow"))
        return
    for part in parts:
        _section(part, len(parts) > 1, console)
    for note in notes(report):
        console.print(Text(clean(note), style="italic"))


def _section(part: Section, headed: bool, console: Console) -> None:
    if headed:
        console.print(Text(clean(part.heading), style="bold cyan"))
        if not part.answered:
            console.print(Text(f"  {NOT_ANSWERED}", style="yellow"))
        elif not part.claims:
            console.print(Text(f"  {LEFT_OUT}", style="yellow"))
    for claim, cited in part.claims:
        line = Text(clean(claim.text))
        for numbered in cited:
            line.append(f" [{numbered.number}]", style="cyan")
        console.print(Padding(line, (0, 0, 1, 2), expand=False))


def _meter(report: Report, console: Console) -> None:
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True
    )
    total = report.meter.total
    columns = (
        ("meter", "whole job"),
        ("calls", str(total.calls)),
        ("tokens", f"{total.input_tokens + total.output_tokens:,}"),
        ("dollars", usd(total.usd)),
        ("joules", _interval(total.joules)),
        ("seconds", f"{total.seconds:.2f}"),
    )
    for header, footer in columns:
        table.add_column(header, footer, justify="left" if header in ("meter", "joules") else "right")
    for part in report.meter.parts:
        tokens = f"{part.input_tokens + part.output_tokens:,}"
        table.add_row(part.node, str(part.calls), tokens, usd(part.usd), _interval(part.joules), f"{part.seconds:.2f}")
    console.print(table)


def _interval(figure: EnergyFigure) -> str:
    """Joules in little room; the last lines say where they come from."""
    if figure.low == figure.high:
        return format_joules(figure.mean)
    return f"{format_joules(figure.mean)} ({format_joules(figure.low)}–{format_joules(figure.high)})"


def _footer(report: Report, console: Console, run_folder: Path | None) -> None:
    if report.meter.limits:
        console.print(Text("Limits: " + "; ".join(limit_line(limit) for limit in report.meter.limits)))
    if report.skipped:
        first = report.skipped[0]
        more = f" and {len(report.skipped) - 1} more" if len(report.skipped) > 1 else ""
        console.print(Text(f"{not_read(report)}. {clean(first.origin)} ({clean(first.reason)}){more}"))
    console.print(Text(f"Served by {clean(served(report))}. {summary(report)}", style="dim"))
    if run_folder is not None:
        console.print(Text(f"Kept in {run_folder} (report.html shows every citation in its source)", style="dim"))
    if report.ending is not None:
        undone = f" Left undone: {', '.join(report.ending.undone)}." if report.ending.undone else ""
        console.print(
            Text(f"Ended early ({report.ending.reason}): {clean(report.ending.message)}{undone}", style="bold yellow")
        )
