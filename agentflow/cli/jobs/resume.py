"""``agentflow jobs resume``."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.jobs.opened import config_option, json_option, tell, with_jobs


@click.command("resume")
@click.argument("job")
@config_option
@json_option
def command(job: str, config: Path | None, as_json: bool) -> None:
    """Go on with JOB after a failure or a pause; what it paid for already is not paid again."""
    tell(with_jobs(config, lambda jobs: jobs.resume(job)), as_json=as_json)
