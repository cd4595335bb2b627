"""``agentflow jobs show``: one job, its spend and its result."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agentflow.cli.jobs.opened import config_option, json_option, standing, with_jobs
from agentflow.jobs.job import JobView
from agentflow.jobs.service import Jobs


@click.command("show")
@click.argument("job")
@click.option("--file", "name", metavar="NAME", help="Print one of its files instead, as report.md or result.json.")
@config_option
@json_option
def command(job: str, name: str | None, config: Path | None, as_json: bool) -> None:
    """Show JOB: where it stands, what it has spent, and its report when there is one."""

    async def look(jobs: Jobs) -> tuple[JobView, bytes | None, list[str]]:
        view = await jobs.get(job)
        names = [one.name for one in await jobs.artifacts(job)]
        wanted = name or ("report.md" if "report.md" in names else "result.json" if view.has_result else None)
        return view, None if wanted is None or (as_json and not name) else await jobs.read(job, wanted), names

    view, content, names = with_jobs(config, look)
    if name is not None and content is not None:
        click.echo(content, nl=False)
    elif as_json:
        click.echo(json.dumps({**view.model_dump(mode="json"), "files": names}, indent=2, ensure_ascii=False))
    else:
        _print(view)
        if content is not None:
            click.echo()
            click.echo(content, nl=not content.endswith(b"\n"))


def _print(view: JobView) -> None:
    spend = view.spend
    click.echo(f"{view.id} {standing(view)}")
    click.echo(f"  asked    {view.spec.query}")
    for word, when in (("created", view.created), ("started", view.started), ("ended", view.ended)):
        if when is not None:
            click.echo(f"  {word:8} {when:%Y-%m-%d %H:%M:%S} UTC")
    click.echo(
        f"  spent    ${spend.usd}, {spend.joules:.3g} J, {spend.tokens:,} tokens, {spend.calls} calls, "
        f"{spend.seconds:.1f} s of work"
    )
    click.echo(f"  runs     {view.runs}, {view.failures} failures, {view.recoveries} recoveries, {view.events} events")
