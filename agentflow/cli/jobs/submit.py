"""``agentflow jobs submit``: a job's id at once; a worker does the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import click

from agentflow.budget.budget import Budget
from agentflow.cli.bounds import bounds_of, source_bounds
from agentflow.cli.jobs.opened import config_option, json_option, tell, with_jobs
from agentflow.jobs.job import Effort, ask_for, budget_for_job


@click.command("submit")
@click.argument("query")
@click.argument("sources", nargs=-1, metavar="[PATH|URL]...")
@click.option("--kind", default="research", show_default=True, help="What runs it.")
@click.option("--effort", type=click.Choice(get_args(Effort)), default="auto", help="See: agentflow efforts.")
@click.option("--max-usd", metavar="DOLLARS", help="Most dollars.")
@click.option("--max-joules", metavar="JOULES", help="Most joules.")
@click.option("--max-tokens", metavar="TOKENS", help="Most tokens.")
@click.option("--max-seconds", metavar="SECONDS", help="Most seconds of work.")
@click.option("--max-calls", metavar="CALLS", help="Most attempts.")
@click.option(
    "--on-limit", type=click.Choice(["answer", "pause", "fail"]), default="answer", help="When one is used up."
)
@click.option("--within", type=float, metavar="SECONDS", help="Deadline: so many seconds from now.")
@click.option("--delay", type=float, metavar="SECONDS", help="Start so many seconds from now, at the earliest.")
@click.option("--priority", type=int, default=0, help="Higher starts sooner (-100 to 100).")
@click.option("--queue", default="default", show_default=True)
@click.option("--tenant", metavar="NAME", help="Who pays, by its name in the configuration.")
@click.option("--dedup-key", metavar="KEY", help="While a job with this key has not ended, give that one back.")
@click.option("--previous", metavar="JOB", help="The job that this one follows; its sources, if you name none.")
@click.option("--approve-plan", is_flag=True, help="Wait for a person after planning.")
@click.option("--allow-private", is_flag=True, help="Fetch pages from private addresses too.")
@source_bounds
@config_option
@json_option
def command(query: str, sources: tuple[str, ...], config: Path | None, as_json: bool, **options: Any) -> None:
    """Submit QUERY over SOURCES, and print the job's id. ``agentflow worker`` must run somewhere for it to start."""
    now = datetime.now(UTC)
    given = {name.removeprefix("max_"): text for name, text in options.items() if name.startswith("max_") and text}
    # A worker may run in another folder.
    origins = tuple(s if s.startswith(("http://", "https://")) else str(Path(s).absolute()) for s in sources)
    spec = ask_for(
        kind=options["kind"],
        query=query,
        sources={"origins": origins, "allow_private": options["allow_private"], **bounds_of(options)},
        effort=options["effort"],
        budget=budget_for_job(Budget(**given), options["on_limit"]),
        deadline=None if options["within"] is None else now + timedelta(seconds=options["within"]),
        not_before=None if options["delay"] is None else now + timedelta(seconds=options["delay"]),
        priority=options["priority"],
        queue=options["queue"],
        tenant=options["tenant"],
        dedup_key=options["dedup_key"],
        plan_approval=options["approve_plan"],
        previous=options["previous"],
    )
    tell(with_jobs(config, lambda jobs: jobs.submit(spec)), as_json=as_json)
