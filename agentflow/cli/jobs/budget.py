"""``agentflow jobs budget``: give a job other limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentflow.budget.budget import Budget
from agentflow.cli.jobs.opened import config_option, json_option, tell, with_jobs
from agentflow.jobs.job import JobView, budget_for_job
from agentflow.jobs.service import Jobs


@click.command("budget")
@click.argument("job")
@click.option("--usd", metavar="DOLLARS", help="Most dollars.")
@click.option("--joules", metavar="JOULES", help="Most joules.")
@click.option("--tokens", metavar="TOKENS", help="Most tokens.")
@click.option("--grams-co2e", metavar="GRAMS", help="Most grams of CO2 equivalent.")
@click.option("--calls", metavar="CALLS", help="Most attempts.")
@click.option("--seconds", metavar="SECONDS", help="Most seconds of work.")
@config_option
@json_option
def command(job: str, config: Path | None, as_json: bool, **given: str | None) -> None:
    """Give JOB the limits that are named; the others stay. A running job holds to them within a second."""
    named: dict[str, Any] = {currency: text for currency, text in given.items() if text is not None}
    if not named:
        raise click.UsageError("Name at least one limit, as in --usd 0.50.")
    changed = Budget(**named)

    async def change(jobs: Jobs) -> JobView:
        budget = (await jobs.get(job)).spec.budget
        return await jobs.set_budget(job, budget_for_job(budget.limits().with_limits(changed), budget.on_limit))

    tell(with_jobs(config, change), as_json=as_json)
