"""``agentflow efforts``: what each effort may spend, and how deep it looks, as configured."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agentflow.config import load_settings
from agentflow.jobs.effort import EffortView, efforts


@click.command("efforts")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(config: Path | None, as_json: bool) -> None:
    """Say what each effort may spend where a job gives no limits of its own, and how deep it looks.

    [efforts.NAME] in the configuration changes any of it.
    """
    found = efforts(load_settings(config))
    if as_json:
        click.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return
    for one in found:
        click.echo(_line(one))


def _line(one: EffortView) -> str:
    budget = one.budget
    limits = [
        None if budget.usd is None else f"${budget.usd}",
        None if budget.tokens is None else f"{budget.tokens:,} tokens",
        None if budget.joules is None else f"{budget.joules:,.0f} J",
        None if budget.seconds is None else f"{budget.seconds:,.0f} s",
    ]
    spends = ", ".join(limit for limit in limits if limit) or "no limits"
    looks = f"{one.sub_questions} sub-questions, {one.most_passages} passages"
    rungs = " > ".join(one.rungs)
    return f"{click.style(f'{one.effort:5}', bold=True)} {spends}\n      {rungs}; {looks}"
