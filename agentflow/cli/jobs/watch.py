"""``agentflow jobs watch``: what happens in a job, live."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from pathlib import Path

import click

from agentflow.cli.jobs.board import Board
from agentflow.cli.jobs.opened import config_option, json_option, standing, with_jobs
from agentflow.jobs.job import JobEvent
from agentflow.jobs.service import Jobs
from agentflow.research.rendering.numbering import clean


@click.command("watch")
@click.argument("job")
@click.option("--since", type=click.IntRange(min=0), default=0, help="Number of the last event that is known already.")
@click.option("--lines", is_flag=True, help="A line an event, also at a terminal.")
@config_option
@json_option
def command(job: str, since: int, lines: bool, config: Path | None, as_json: bool) -> None:
    """Follow what happens in JOB until it has ended or waits for a person. It may be left and taken up again.

    At a terminal it is a live view, elsewhere a line an event; the same for jobs here and behind --server.
    """
    live = not (lines or as_json or os.environ.get("CI")) and sys.stdout.isatty()

    async def follow(jobs: Jobs) -> None:
        with _board(job) if live else contextlib.nullcontext() as board:
            async for event in jobs.events(job, since=since):
                if board is not None:
                    board.told(event, _line(event))
                else:
                    click.echo(event.model_dump_json() if as_json else _line(event))
        if not as_json:
            click.echo(f"{job} {standing(await jobs.get(job))}")

    with_jobs(config, follow)


@contextlib.contextmanager
def _board(job: str) -> Generator[Board]:
    """A board that is drawn while it is told of events, and stays as it was last."""
    from rich.live import Live

    board = Board(job)
    with Live(get_renderable=board.view, refresh_per_second=5):
        yield board


def _line(event: JobEvent) -> str:
    data = event.data
    match event.kind:
        case "state":
            what = " ".join(str(data[key]) for key in ("state", "stop_reason", "note", "error") if data.get(key))
        case "plan":
            what = "; ".join(str(part) for part in data.get("plan", ()))
        case "task":
            what = f"{data.get('task')} {data.get('step')}"
        case "attempt":
            replayed = " (known already)" if data.get("replayed") else ""
            what = (
                f"{data.get('call')}: {data.get('rung')} {data.get('outcome')}{replayed}, {data.get('tokens')} tokens"
            )
        case "escalation":
            what = f"{data.get('call')}: {data.get('from')} to {data.get('to')}: {data.get('reason')}"
        case "source":
            what = str(data.get("origin"))
        case "claim":
            what = f"{'supported' if data.get('supported') else 'refused'}: {data.get('text')}"
        case _:
            what = str(data.get("message") or data.get("note") or data.get("change") or "")
    return clean(f"{event.number:5} {event.time:%H:%M:%S} {event.kind:10} {what}")
