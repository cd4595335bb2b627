"""``agentflow report``: print the report of an earlier job."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.config import load_settings
from agentflow.jobs.runs import RunStore


@click.command("report")
@click.argument("run", default="latest")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json alone.")
@click.option("--markdown", is_flag=True, help="Print report.md alone.")
def command(run: str, config: Path | None, as_json: bool, markdown: bool) -> None:
    """Print the report of RUN: a run folder, a job's id, or 'latest'.

    The stored sources are checked against their hashes first.
    """
    folder = RunStore(load_settings(config).stores.runs).find(run)
    report = folder.report()
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    texts = folder.texts(report)
    if markdown:
        from agentflow.research.rendering import to_markdown

        click.echo(to_markdown(report, texts), nl=False)
        return
    from rich.console import Console

    from agentflow.research.rendering.terminal import render

    render(report, texts, Console(highlight=False), folder.path)
