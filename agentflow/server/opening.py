"""What a server opens: the database of jobs, its own tables beside it, the runtime. Imports jobs, runtime, store."""

from __future__ import annotations

from agentflow.config import Settings
from agentflow.jobs.database import Database
from agentflow.jobs.service import Jobs
from agentflow.runtime import Runtime
from agentflow.server.store import Store


def open_store(settings: Settings) -> Store:
    """The server's tables, in the database of jobs."""
    return Store(Database(".agentflow/jobs.db"))


def open_jobs(settings: Settings) -> Jobs:
    """The jobs of the database."""
    return Jobs()


def open_runtime(settings: Settings) -> Runtime:
    """Opens chains, for requests that are answered at once."""
    return Runtime(settings)
