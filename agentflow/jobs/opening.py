"""Jobs, their database and their store as the configuration asks for them. Imports service, the store. Next: hiring."""

from __future__ import annotations

import os
from collections.abc import Callable

from agentflow.budget.ledger import Ledger, open_ledger
from agentflow.config import JobSettings, JobStoreSettings, Settings
from agentflow.errors import ConfigError
from agentflow.jobs.database import Database
from agentflow.jobs.service import Jobs
from agentflow.jobs.store.base import BlobStore
from agentflow.jobs.store.disk import DiskStore


def open_jobs(settings: Settings, ledger: Ledger | None = None, nudge: Callable[[], None] | None = None) -> Jobs:
    """The configured jobs; nothing is opened or connected before they are first used.

    Args:
        settings: the configuration.
        ledger: which to use; the configured one when None. It is closed with the jobs.
        nudge: called after each submission: a worker of this process need not wait to see it.

    Raises:
        ConfigError: the variable with the address of PostgreSQL is not set.
    """
    database = open_database(settings.jobs)
    return Jobs(database, open_store(settings.jobs.store), ledger or open_ledger(settings.ledger), submitted=nudge)


def open_database(settings: JobSettings) -> Database:
    """The configured database.

    Raises:
        ConfigError: the variable with the address of PostgreSQL is not set.
    """
    if settings.kind == "sqlite":
        return Database(settings.path)
    url = os.environ.get(settings.url_env or "", "")
    if not url:
        raise ConfigError(
            f"jobs.url_env: the variable {settings.url_env} is not set. Put the address of PostgreSQL into it: "
            "postgresql://user:password@host/database."
        )
    return Database(url)


def open_store(settings: JobStoreSettings) -> BlobStore:
    """The configured store of files."""
    if settings.kind == "disk":
        return DiskStore(settings.path)
    from agentflow.jobs.store.s3 import S3Store

    return S3Store(settings.bucket, settings.prefix, settings.endpoint_url)
