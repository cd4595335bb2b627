"""``agentflow jobs submit``: a job's id at once; a worker does the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from agentflow.cli.jobs.asking import asks_for_a_job, job_of
from agentflow.cli.jobs.opened import config_option, json_option, tell, with_jobs


@click.command("submit")
@click.argument("query")
@click.argument("sources", nargs=-1, metavar="[PATH|URL]...")
@asks_for_a_job
@click.option("--previous", metavar="JOB", help="The job that this one follows; its sources, if you name none.")
@click.option("--within", type=float, metavar="SECONDS", help="Deadline: so many seconds from now.")
@click.option("--delay", type=float, metavar="SECONDS", help="Start so many seconds from now, at the earliest.")
@config_option
@json_option
def command(query: str, sources: tuple[str, ...], config: Path | None, as_json: bool, **options: Any) -> None:
    """Submit QUERY over SOURCES, and print the job's id. ``agentflow worker`` must run somewhere for it to start."""
    now = datetime.now(UTC)
    spec = job_of(
        query,
        sources,
        options,
        previous=options["previous"],
        deadline=None if options["within"] is None else now + timedelta(seconds=options["within"]),
        not_before=None if options["delay"] is None else now + timedelta(seconds=options["delay"]),
    )
    tell(with_jobs(config, lambda jobs: jobs.submit(spec)), as_json=as_json)
