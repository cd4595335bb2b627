"""``agentflow budget``: what the ledger says, and how to put it right. One file a command."""

from __future__ import annotations

import click

from agentflow.cli.lazy import LazyGroup

_COMMANDS = {
    "report": "Tokens, dollars, joules, latency: by model, job, tenant, day ...",
    "accounts": "What each account may spend, has spent, holds and has left.",
    "reconcile": "List attempts whose cost is in doubt, or put the true cost of one in.",
    "verify": "Count every account again from the entries; exit code 1 when they differ.",
    "limits": "Give an account other limits, and open it again.",
}


@click.group(
    "budget",
    cls=LazyGroup,
    package="agentflow.cli.budget",
    summaries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """Read the ledger, and put it right."""
