"""The jobs that a command works with, and how a command shows one. Imports jobs, click."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from agentflow.config import load_settings
from agentflow.jobs.job import JobView
from agentflow.jobs.opening import open_jobs
from agentflow.jobs.service import Jobs
from agentflow.research.rendering.numbering import clean

Value = TypeVar("Value")
Command = TypeVar("Command", bound=Callable[..., Any])

config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A server whose jobs a command works with, and the key for it."""

    url: str
    key: str | None


def with_jobs(config: Path | None, work: Callable[[Jobs], Awaitable[Value]]) -> Value:
    """Do something with the configured jobs, which are closed at the end."""

    async def run() -> Value:
        async with _jobs(config) as jobs:
            return await work(jobs)

    return asyncio.run(run())


def _jobs(config: Path | None) -> Jobs:
    """Those of the server that ``--server`` names, else those of the configured database."""
    context = click.get_current_context(silent=True)
    there = None if context is None else context.find_object(Elsewhere)
    if there is None:
        return open_jobs(load_settings(config))
    from agentflow.client import AsyncClient
    from agentflow.client.remote import RemoteJobs

    return RemoteJobs(AsyncClient(there.url, there.key))


def tell(view: JobView, *, as_json: bool) -> None:
    """Print how a job stands: a line for people, or all of it as JSON."""
    click.echo(view.model_dump_json(indent=2) if as_json else f"{view.id} {standing(view)}")


def standing(view: JobView) -> str:
    """The state of a job in words."""
    words = [str(view.state)]
    if view.stop_reason is not None and view.stop_reason != view.state:
        words.append(f"({view.stop_reason})")
    if view.partial:
        words.append("partial")
    if view.error is not None:
        words.append(f"- {clean(view.error.message)}")
    return " ".join(words)
