"""Which ledger the configuration asks for. Imports all kinds; a database's library is imported when one is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from agentflow.budget.ledger.base import Ledger
from agentflow.budget.ledger.memory import MemoryLedger
from agentflow.errors import ConfigError


class LedgerFacts(Protocol):
    """What the configuration says of the ledger."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def url_env(self) -> str | None: ...  # noqa: D102


def open_ledger(facts: LedgerFacts) -> Ledger:
    """The configured ledger; nothing is opened or connected before it first records.

    Raises:
        ConfigError: the variable with the address of PostgreSQL is not set.
    """
    match facts.kind:
        case "memory":
            return MemoryLedger()
        case "postgres":
            from agentflow.budget.ledger.postgres import postgres_ledger

            url = os.environ.get(facts.url_env or "", "")
            if not url:
                raise ConfigError(
                    f"ledger.url_env: the variable {facts.url_env} is not set. Put the address of PostgreSQL into it: "
                    "postgresql://user:password@host/database."
                )
            return postgres_ledger(url)
        case _:
            from agentflow.budget.ledger.sqlite import sqlite_ledger

            return sqlite_ledger(facts.path)
