"""``agentflow jobs stop``."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.jobs.opened import config_option, json_option, tell, with_jobs


@click.command("stop")
@click.argument("job")
@config_option
@json_option
def command(job: str, config: Path | None, as_json: bool) -> None:
    """Let JOB finish early, with what it found."""
    tell(with_jobs(config, lambda jobs: jobs.stop(job)), as_json=as_json)
