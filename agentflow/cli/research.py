"""``agentflow research``: a question and sources in, a cited report and the meter out."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from agentflow.budget.budget import Budget
from agentflow.budget.events import Question
from agentflow.cli.bounds import bounds_of, source_bounds
from agentflow.cli.output import output_of, output_options
from agentflow.cli.progress import show_progress
from agentflow.config import Settings, load_settings
from agentflow.errors import UsageError
from agentflow.jobs.effort import effort_of
from agentflow.jobs.job import Effort
from agentflow.jobs.research import FinishedJob, run_research
from agentflow.jobs.sources import bounds_for
from agentflow.research.pipeline import ResearchTask
from agentflow.runtime import Runtime
from agentflow.telemetry import export

_EXIT = {"budget": 3, "interrupted": 130, "error": 1}


@click.command("research")
@click.argument("question")
@click.argument("sources", nargs=-1, required=True, metavar="PATH|URL...")
@click.option("--effort", type=click.Choice(get_args(Effort)), default="auto", help="How deep to look.")
@click.option("--max-usd", metavar="DOLLARS", help="Most dollars the job may spend.")
@click.option("--max-joules", metavar="JOULES", help="Most joules the job may spend.")
@click.option("--max-tokens", metavar="TOKENS", help="Most tokens, input and output together.")
@click.option("--max-seconds", metavar="SECONDS", help="Most seconds of wall clock.")
@click.option("--max-grams-co2e", metavar="GRAMS", help="Most grams of CO2 equivalent.")
@click.option("--max-calls", metavar="CALLS", help="Most attempts, those of code included.")
@click.option("--on-exceed", type=click.Choice(["stop", "degrade", "ask"]), help="When a call does not fit.")
@click.option("--tenant", metavar="NAME", help="Who pays, by its name in the configuration.")
@output_options
@click.option("--allow-private", is_flag=True, help="Fetch pages from private, loopback and link-local addresses too.")
@source_bounds
@click.option("--max-file-mb", type=float, help="Largest file to read, in megabytes.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for this run; must not exist yet.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json alone.")
def command(question: str, sources: tuple[str, ...], **options: Any) -> int:
    """Answer QUESTION from files, folders and pages; every claim cites a verbatim span.

    A limit is enforced before each call. When one ends the job, what there is is delivered and the exit code is 3.
    """
    settings = _settings(options)
    allow_private = options["allow_private"] or settings.sources.allow_private
    profile = effort_of(options["effort"], settings)
    scope = bounds_for(**bounds_of(options)).scope(allow_private=allow_private)
    task = ResearchTask(question, sources, scope, profile.depth, output_of(options), options["verify"])
    budget = _budget(options, profile.budget)
    export.setup(capture_content=settings.telemetry.capture_content, compat=settings.telemetry.otel_compat)
    finished = asyncio.run(_run(settings, task, budget, options))
    if options["as_json"]:
        click.echo(finished.report.model_dump_json(indent=2))
    else:
        from rich.console import Console

        from agentflow.research.rendering.terminal import render

        render(finished.report, finished.folder.texts(finished.report), Console(highlight=False), finished.folder.path)
    ending = finished.report.ending
    return 0 if ending is None else _EXIT[ending.reason]


async def _run(settings: Settings, task: ResearchTask, budget: Budget, options: dict[str, Any]) -> FinishedJob:
    runtime = Runtime(settings)
    current = asyncio.current_task()
    assert current is not None
    # The first Ctrl-C ends the job with what it has; a second one ends the program.
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        current.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    asks = budget.on_exceed == "ask" and sys.stdin.isatty() and sys.stderr.isatty()
    ask = _ask if asks else None
    try:
        with show_progress(quiet=options["as_json"], lines=asks) as observe:
            return await run_research(
                runtime, task, budget, tenant=options["tenant"], ask=ask, out=options["out"], observe=observe
            )
    finally:
        await runtime.aclose()


async def _ask(question: Question) -> Budget | None:
    """Put a budget's question to whoever sits at the terminal; nothing, or no number, leaves the limit as it is."""
    refusal = question.refusal
    click.echo(f"{refusal.node} has spent {refusal.spent} of {refusal.limit}; a call needs {refusal.asked}.", err=True)
    text = f"New limit on {refusal.currency} (nothing: leave it)"
    given = await asyncio.to_thread(click.prompt, text, default="", show_default=False, err=True)
    try:
        limits: dict[str, Any] = {refusal.currency: given}
        return Budget(**limits) if given else None
    except UsageError as error:
        click.echo(str(error), err=True)
        return None


def _settings(options: dict[str, Any]) -> Settings:
    settings = load_settings(options["config"])
    if options["max_file_mb"] is not None:
        if options["max_file_mb"] <= 0:
            raise click.UsageError("--max-file-mb must be above 0.")
        bounds = settings.sources.model_copy(update={"max_file_mb": options["max_file_mb"]})
        settings = settings.model_copy(update={"sources": bounds})
    return settings


def _budget(options: dict[str, Any], configured: Budget) -> Budget:
    """The limits of the command line, each over that of the effort."""
    given = {name.removeprefix("max_"): options[name] for name in options if name.startswith("max_")}
    for other in ("file_mb", "words"):
        given.pop(other)
    given["on_exceed"] = options["on_exceed"]
    return replace(configured, **{name: value for name, value in given.items() if value is not None})
