"""``agentflow jobs delete``."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.jobs.opened import config_option, with_jobs


@click.command("delete")
@click.argument("job")
@config_option
def command(job: str, config: Path | None) -> None:
    """Remove JOB, which has ended: its events, files, and the replies the ledger kept. What it cost stays there."""
    with_jobs(config, lambda jobs: jobs.delete(job))
    click.echo(f"{job} is deleted.")
