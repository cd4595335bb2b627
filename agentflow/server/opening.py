"""What a server opens besides jobs: its own tables, in the database of jobs. Imports jobs.opening, store."""

from __future__ import annotations

from agentflow.config import Settings
from agentflow.jobs.opening import open_database
from agentflow.server.store import Store


def open_store(settings: Settings) -> Store:
    """The server's tables.

    Raises:
        ConfigError: the variable with the address of PostgreSQL is not set.
    """
    return Store(open_database(settings.jobs))
