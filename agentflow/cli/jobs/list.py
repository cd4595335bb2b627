"""``agentflow jobs list``: jobs, newest first."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.jobs.opened import config_option, json_option, standing, with_jobs
from agentflow.jobs.job import JobFilter, JobState
from agentflow.research.rendering.numbering import clean


@click.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice([str(s) for s in JobState]), help="Repeatable.")
@click.option("--tenant", metavar="NAME")
@click.option("--queue", metavar="NAME")
@click.option("--dead-letter", is_flag=True, help="Only those that failed as often as is allowed.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--cursor", help="Of the page before.")
@config_option
@json_option
def command(
    states: tuple[str, ...],
    tenant: str | None,
    queue: str | None,
    dead_letter: bool,
    limit: int,
    cursor: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    which = JobFilter(
        tenant=tenant, queue=queue, states=tuple(JobState(s) for s in states), dead_letter=True if dead_letter else None
    )
    page = with_jobs(config, lambda jobs: jobs.list(which, cursor=cursor, limit=limit))
    if as_json:
        click.echo(page.model_dump_json(indent=2))
        return
    for view in page.jobs:
        click.echo(f"{view.id}  {standing(view)}  ${view.spend.usd}  {clean(view.spec.query)[:60]}")
    if page.cursor is not None:
        click.echo(f"More: --cursor {page.cursor}", err=True)
