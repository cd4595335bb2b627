"""``agentflow jobs approve``."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.cli.jobs.opened import config_option, json_option, tell, with_jobs


@click.command("approve")
@click.argument("job")
@click.option("--question", "questions", multiple=True, help="A sub-question instead of the planned ones; repeatable.")
@config_option
@json_option
def command(job: str, questions: tuple[str, ...], config: Path | None, as_json: bool) -> None:
    """Let JOB go on with its plan, or with other sub-questions."""
    tell(with_jobs(config, lambda jobs: jobs.approve(job, plan=questions or None)), as_json=as_json)
