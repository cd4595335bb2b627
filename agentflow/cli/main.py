"""The ``agentflow`` command: loads a command's file only when it is run, so that --help is quick.

Exit codes: 0 done; 1 a run failed; 2 you asked for something that cannot be done; 3 the budget ended the job;
130 interrupted.
"""

from __future__ import annotations

import sys

import click

from agentflow.cli.lazy import LazyGroup
from agentflow.errors import AgentflowError, BudgetExceeded, UsageError

_COMMANDS = {
    "research": "Answer a question from sources, with citations that are verified.",
    "report": "Print the report of an earlier job.",
    "jobs": "Submit durable jobs, watch, stop and resume them.",
    "worker": "Work on durable jobs until told to end.",
    "models": "List the configured models: price, energy, latency, whether each can be reached.",
    "efforts": "What each effort may spend, and how deep it looks.",
    "budget": "Read the ledger: reports, accounts, attempts in doubt, a recount.",
    "cascade": "What cascades have learned: calibration, calls to learn from.",
    "energy": "Joules: explain a call line by line, measure this machine, draw a job.",
    "serve": "Serve the HTTP API: jobs, and any OpenAI client, over the cascade and the meter.",
    "keys": "Make, list and revoke the keys of the HTTP API.",
    "webhooks": "Try a receiver of webhooks, see what was delivered and what was not.",
    "doctor": "Say what is missing, and how to get it.",
}


@click.group(
    cls=LazyGroup,
    package="agentflow.cli",
    summaries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="agentflow")
def cli() -> None:
    """Agentic work on language models, with the bill in hand."""


def main() -> None:
    """Run the command line: every failure is one line and an exit code, never a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BudgetExceeded as error:
        _tell(error)
        sys.exit(3)
    except UsageError as error:
        _tell(error)
        sys.exit(2)
    except AgentflowError as error:
        _tell(error)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: AgentflowError) -> None:
    click.echo(f"agentflow: {error}", err=True)
