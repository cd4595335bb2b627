"""``agentflow cascade``: what cascades have learned. One file a command."""

from __future__ import annotations

import click

from agentflow.cli.lazy import LazyGroup

_COMMANDS = {
    "export": "Write the calls that a small model failed and a larger one answered, for fine-tuning.",
    "calibration": "What each rung's confidence is worth, learned from scored replies.",
}


@click.group(
    "cascade",
    cls=LazyGroup,
    package="agentflow.cli.cascade",
    summaries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """What cascades have learned."""
