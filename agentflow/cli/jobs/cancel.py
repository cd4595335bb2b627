"""``agentflow jobs cancel``."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.jobs.opened import config_option, json_option, tell, with_jobs


@click.command("cancel")
@click.argument("job")
@config_option
@json_option
def command(job: str, config: Path | None, as_json: bool) -> None:
    """End JOB, and discard what it found."""
    tell(with_jobs(config, lambda jobs: jobs.cancel(job)), as_json=as_json)
