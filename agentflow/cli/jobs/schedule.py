"""``agentflow jobs schedule``: jobs again and again, at the times of a cron expression."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agentflow.cli.jobs.asking import asks_for_a_job, job_of
from agentflow.cli.jobs.opened import Elsewhere, config_option, json_option
from agentflow.config import load_settings
from agentflow.errors import UsageError
from agentflow.jobs.opening import open_database
from agentflow.jobs.schedules import Schedule, Schedules
from agentflow.research.rendering.numbering import clean

Value = TypeVar("Value")


@click.group("schedule")
def command() -> None:
    """Submit a job again and again. The workers do it: at least one must run when it is due."""


@command.command("add")
@click.argument("name")
@click.argument("cron")
@click.argument("query")
@click.argument("sources", nargs=-1, metavar="[PATH|URL]...")
@click.option("--timezone", default="UTC", show_default=True, metavar="NAME", help="Whose clock, as in Europe/Berlin.")
@click.option("--within", type=click.FloatRange(min=1), metavar="SECONDS", help="Deadline: so long after it was due.")
@asks_for_a_job
@config_option
def add(
    name: str, cron: str, query: str, sources: tuple[str, ...], timezone: str, within: float | None,
    config: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Submit QUERY over SOURCES at the times of CRON, and call this schedule NAME.

    CRON is minute, hour, day of month, month, day of week: '0 6 * * 1' is Mondays at six.
    """
    new = Schedule(name, cron, timezone, job_of(query, sources, options), within)
    added = _with_schedules(config, lambda schedules: schedules.add(new))
    click.echo(f"{added.name}: next {_when(added)}")


@command.command("list")
@config_option
@json_option
def list_(config: Path | None, as_json: bool) -> None:
    """List the schedules: when each is next due, and the latest job it gave."""
    found = _with_schedules(config, lambda schedules: schedules.list())
    if as_json:
        click.echo(json.dumps([_facts(one) for one in found], indent=2))
        return
    for one in found:
        last = "" if one.last_job is None else f"  last {one.last_job}"
        click.echo(f"{one.name}  {one.cron}  {one.timezone}  next {_when(one)}{last}  {clean(one.spec.query)[:60]}")
    if not found:
        click.echo("There is no schedule yet. Make one with: agentflow jobs schedule add NAME CRON QUERY SOURCES.")


@command.command("remove")
@click.argument("name")
@config_option
def remove(name: str, config: Path | None) -> None:
    """End the schedule called NAME; jobs that it gave go on."""
    _with_schedules(config, lambda schedules: schedules.remove(name))
    click.echo(f"Removed: {name}")


def _with_schedules(config: Path | None, work: Callable[[Schedules], Awaitable[Value]]) -> Value:
    context = click.get_current_context(silent=True)
    if context is not None and context.find_object(Elsewhere) is not None:
        raise UsageError("Schedules are made where the database is. Leave --server out, and run this on its machine.")

    async def run() -> Value:
        schedules = Schedules(open_database(load_settings(config).jobs))
        try:
            return await work(schedules)
        finally:
            await schedules.aclose()

    return asyncio.run(run())


def _when(schedule: Schedule) -> str:
    return "" if schedule.next_run is None else schedule.next_run.isoformat(timespec="minutes")


def _facts(schedule: Schedule) -> dict[str, Any]:
    return {
        "name": schedule.name, "cron": schedule.cron, "timezone": schedule.timezone, "next": _when(schedule),
        "last_job": schedule.last_job, "within_s": schedule.within_s,
        "job": schedule.spec.model_dump(mode="json", exclude_defaults=True),
    }  # fmt: skip
