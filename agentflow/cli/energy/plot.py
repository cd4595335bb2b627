"""``agentflow energy plot``: a picture of an earlier job's joules by stage."""

from __future__ import annotations

from pathlib import Path

import click

from agentflow.config import load_settings
from agentflow.energy.interval import Energy
from agentflow.energy.plots import joules_by_stage
from agentflow.jobs.runs import RunStore
from agentflow.research.report import Report


@click.command("plot")
@click.argument("run", default="latest")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("joules.svg"), show_default=True, help=".svg, .png or .pdf"
)
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
def command(run: str, out: Path, config: Path | None) -> None:
    """Draw the joules of RUN by stage: a run folder, a job's id, or 'latest'. Needs the extra 'plots'."""
    report = RunStore(load_settings(config).stores.runs).find(run).report()
    joules_by_stage(out, stages(report), title=f"Joules by stage of job {report.job}")
    click.echo(f"Wrote {out}.")


def stages(report: Report) -> dict[str, Energy]:
    """The joules of each part of a job, in the order of its bill."""
    return {
        part.node: Energy(part.joules.mean, part.joules.low, part.joules.high, part.joules.provenance)
        for part in report.meter.parts
    }
