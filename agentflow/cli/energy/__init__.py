"""``agentflow energy``: joules, explained and measured. One file a command."""

from __future__ import annotations

import click

from agentflow.cli.lazy import LazyGroup

_COMMANDS = {
    "explain": "Say where a call's joules come from, line by line.",
    "probe": "Measure this machine for some seconds, and say what can be measured here.",
    "plot": "Draw the joules of an earlier job by stage.",
}


@click.group("energy", cls=LazyGroup, package="agentflow.cli.energy", summaries=_COMMANDS)
def command() -> None:
    """Joules: what was used, how that is known, what can be measured here."""
