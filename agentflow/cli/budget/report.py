"""``agentflow budget report``: what was spent, by whom, on what, and how fast replies came."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agentflow.budget.ledger import EntryFilter
from agentflow.budget.report import GROUPS, GroupBy, SpendReport, spend_report
from agentflow.cli.budget.ledger import ledger_options, recorded
from agentflow.cli.budget.moments import milliseconds
from agentflow.errors import UsageError


@click.command("report")
@click.option(
    "--by", type=click.Choice(GROUPS), default="model", help="What a line of the report is.", show_default=True
)
@click.option("--tenant", metavar="NAME", help="Only this tenant's.")
@click.option("--job", metavar="ID", help="Only this job's.")
@click.option("--chain", metavar="NAME", help="Only those of chains of this name.")
@click.option("--agent", metavar="NAME", help="Only this agent's.")
@click.option("--model", metavar="NAME", help="Only this model's, by its provider's name of it.")
@click.option("--since", metavar="WHEN", help="From then on: 2026-11-21, 2026-11-21T08:30, 2026-11, 24h, 7d, 2w. UTC.")
@click.option("--until", metavar="WHEN", help="Before then.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it too, as .png or .svg.")
@ledger_options
def command(
    by: GroupBy, since: str | None, until: str | None, form: str, plot: Path | None, config: Path | None,
    file: Path | None, **labels: str | None,
) -> None:  # fmt: skip
    """Add up what the ledger has: tokens, dollars, joules, grams of CO2e, latency.

    An attempt belongs to the time at which it was sent.
    """
    which = _filter(since, until, labels)
    if plot is not None:
        from agentflow.budget.plots import check_plot

        check_plot(plot)
    report = asyncio.run(_report(config, file, which, by))
    _print(report, which, form)
    if plot is not None:
        from agentflow.budget.plots import plot_report

        plot_report(report, plot)
        click.echo(f"Drawn in {plot}", err=True)


async def _report(config: Path | None, file: Path | None, which: EntryFilter, by: GroupBy) -> SpendReport:
    async with recorded(config, file) as ledger:
        return spend_report(await ledger.entries(which), by)


def _filter(since: str | None, until: str | None, labels: dict[str, str | None]) -> EntryFilter:
    now = datetime.now(UTC)
    since_ms = None if since is None else milliseconds(since, now)
    until_ms = None if until is None else milliseconds(until, now)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UsageError(f"--since {since} is not before --until {until}: no attempt can lie between. Swap them.")
    return EntryFilter(
        labels["tenant"], labels["job"], labels["chain"], labels["agent"], labels["model"],
        since_ms=since_ms, until_ms=until_ms,
    )  # fmt: skip


def _print(report: SpendReport, which: EntryFilter, form: str) -> None:
    if form == "table":
        from agentflow.cli.budget.tables import console, print_report

        print_report(report, which, console())
        return
    from agentflow.budget.report_formats import to_csv, to_json

    if form == "csv":
        click.echo(to_csv(report), nl=False)
    else:
        click.echo(json.dumps({**_asked(which), **to_json(report)}, indent=2, ensure_ascii=False))


def _asked(which: EntryFilter) -> dict[str, Any]:
    """The filter, as it goes before the figures."""
    labels = {name: getattr(which, name) for name in ("tenant", "job", "chain", "agent", "model")}
    moments = {"since": which.since_ms, "until": which.until_ms}
    return {
        "filter": {name: value for name, value in labels.items() if value is not None},
        **{
            name: None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat()
            for name, ms in moments.items()
        },
    }
