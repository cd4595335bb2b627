"""What a job asks for, as options of the commands that submit one or schedule one. Imports jobs.job, click."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from agentflow.budget.budget import Budget
from agentflow.cli.bounds import bounds_of, source_bounds
from agentflow.cli.output import output_of, output_options
from agentflow.jobs.job import Effort, JobSpec, ask_for, budget_for_job

Command = TypeVar("Command", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--kind", default="research", show_default=True, help="What runs it."),
    click.option("--effort", type=click.Choice(get_args(Effort)), default="auto", help="See: agentflow efforts."),
    click.option("--max-usd", metavar="DOLLARS", help="Most dollars."),
    click.option("--max-joules", metavar="JOULES", help="Most joules."),
    click.option("--max-tokens", metavar="TOKENS", help="Most tokens."),
    click.option("--max-seconds", metavar="SECONDS", help="Most seconds of work."),
    click.option("--max-calls", metavar="CALLS", help="Most attempts."),
    click.option(
        "--on-limit", type=click.Choice(["answer", "pause", "fail"]), default="answer", help="When one is used up."
    ),
    click.option("--collection", "collections", multiple=True, metavar="ID", help="Look in its files too; repeatable."),
    click.option("--priority", type=int, default=0, help="Higher starts sooner (-100 to 100)."),
    click.option("--queue", default="default", show_default=True),
    click.option("--tenant", metavar="NAME", help="Who pays, by its name in the configuration."),
    click.option("--dedup-key", metavar="KEY", help="While a job with this key has not ended, give that one back."),
    click.option("--approve-plan", is_flag=True, help="Wait for a person after planning."),
    click.option("--allow-private", is_flag=True, help="Fetch pages from private addresses too."),
)


def asks_for_a_job(command: Command) -> Command:
    """Give a command the options that ``job_of`` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return output_options(source_bounds(command))


def job_of(query: str, sources: tuple[str, ...], options: dict[str, Any], **more: Any) -> JobSpec:
    """The job that the command line asks for.

    Raises:
        UsageError: it cannot be.
    """
    limits = ("usd", "joules", "tokens", "seconds", "calls")
    given = {name: options[f"max_{name}"] for name in limits if options[f"max_{name}"]}
    # A worker may run in another folder.
    origins = tuple(s if s.startswith(("http://", "https://")) else str(Path(s).absolute()) for s in sources)
    return ask_for(
        kind=options["kind"],
        query=query,
        sources={
            "origins": origins,
            "collections": options["collections"],
            "allow_private": options["allow_private"],
            **bounds_of(options),
        },
        output=output_of(options),
        verify=options["verify"],
        effort=options["effort"],
        budget=budget_for_job(Budget(**given), options["on_limit"]),
        priority=options["priority"],
        queue=options["queue"],
        tenant=options["tenant"],
        dedup_key=options["dedup_key"],
        plan_approval=options["approve_plan"],
        **more,
    )
