"""``agentflow jobs``: submit durable jobs and look after them. One file a command."""

from __future__ import annotations

import click

from agentflow.cli.lazy import LazyGroup

_COMMANDS = {
    "submit": "Submit a research job: it has an id at once, and goes on by itself.",
    "schedule": "Have a job submitted again and again, at the times of a cron expression.",
    "list": "List jobs, newest first.",
    "show": "Show one job: its state, its spend, its result.",
    "watch": "Follow what happens in a job.",
    "cancel": "End a job, and discard what it found.",
    "stop": "Let a job finish early, with what it found.",
    "resume": "Go on with a job that failed or is paused.",
    "approve": "Let a job go on that waits for its plan to be approved.",
    "budget": "Give a job other limits.",
    "delete": "Remove a job that has ended, with everything it kept.",
}


@click.group(
    "jobs",
    cls=LazyGroup,
    package="agentflow.cli.jobs",
    summaries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--server", metavar="URL", envvar="AGENTFLOW_SERVER_URL", help="Jobs of a server there (agentflow serve), not here."
)
@click.option("--key", metavar="KEY", envvar="AGENTFLOW_KEY", help="Its key; better given as AGENTFLOW_KEY.")
@click.pass_context
def command(context: click.Context, server: str | None, key: str | None) -> None:
    """Submit durable jobs, and look after them. ``agentflow worker`` works on them."""
    if server is not None:
        from agentflow.cli.jobs.opened import Elsewhere

        context.obj = Elsewhere(server, key)
