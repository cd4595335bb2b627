"""Which ledger a command reads: the configured one, or a file that is named. A ledger that is not there is not made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from agentflow.budget.ledger.durable import DurableLedger
from agentflow.budget.ledger.opening import open_ledger
from agentflow.config import LedgerSettings, load_settings
from agentflow.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])


def ledger_options(command: Command) -> Command:
    """Add ``--config`` and ``--ledger`` to a command."""
    command = click.option(
        "--ledger",
        "file",
        type=click.Path(path_type=Path),
        help="A ledger's SQLite file instead of the configured one.",
    )(command)
    return click.option(
        "--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml."
    )(command)


@asynccontextmanager
async def recorded(config: Path | None, file: Path | None) -> AsyncGenerator[DurableLedger]:
    """The ledger to read, closed at the end.

    Args:
        config: the configuration file, as given.
        file: a ledger's file, as given; it wins.

    Raises:
        UsageError: nothing is recorded, or it ended with the process that recorded it.
    """
    settings = LedgerSettings(kind="sqlite", path=file) if file is not None else load_settings(config).ledger
    if settings.kind == "memory":
        raise UsageError(
            "There is nothing to report: the configured ledger is in memory and ends with its process. "
            "Set ledger.kind to sqlite or postgres, and what is spent from then on is kept."
        )
    if settings.kind != "postgres" and not settings.path.is_file():
        raise UsageError(
            f"Nothing is recorded yet: there is no ledger {settings.path}. The first job makes the configured one; "
            "name another with --ledger."
        )
    ledger = cast("DurableLedger", open_ledger(settings))
    try:
        yield ledger
    finally:
        await ledger.aclose()
