"""What a server opens besides jobs: its own tables, in the database of jobs. Imports jobs.opening, tables."""

from __future__ import annotations

from agentflow.config import Settings
from agentflow.jobs.annex import Annex
from agentflow.jobs.opening import open_database
from agentflow.server.tables import metadata


def open_annex(settings: Settings) -> Annex:
    """The server's tables.

    Raises:
        ConfigError: the variable with the address of PostgreSQL is not set.
    """
    return Annex(open_database(settings.jobs), metadata)
