"""Jobs and workers as the configuration asks for them. Imports all of this floor, an engine when a worker is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from agentflow.budget.ledger import Ledger, open_ledger
from agentflow.config import JobSettings, JobStoreSettings, Settings
from agentflow.errors import ConfigError, UsageError
from agentflow.jobs.collections.catalogue import Catalogue
from agentflow.jobs.collections.reader import edition
from agentflow.jobs.collections.shelf import Shelves
from agentflow.jobs.database import Database
from agentflow.jobs.kinds import Kind, Kinds, load_kinds
from agentflow.jobs.research import research_kind
from agentflow.jobs.runner import Tries
from agentflow.jobs.service import Jobs
from agentflow.jobs.store.base import BlobStore
from agentflow.jobs.store.disk import DiskStore
from agentflow.jobs.tenants import Tenants
from agentflow.jobs.tickets import QueueLimits
from agentflow.jobs.worker import Worker, WorkerOptions
from agentflow.research.retrieval_rung import embed_as_configured
from agentflow.runtime import Runtime


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


def open_worker(
    settings: Settings,
    runtime: Runtime,
    *,
    queues: tuple[str, ...] = ("default",),
    slots: int | None = None,
    kinds: Kinds | None = None,
) -> Worker:
    """A worker as configured.

    Args:
        settings: the configuration.
        runtime: its rungs, prices and ledger.
        queues: which it serves.
        slots: jobs at a time of each queue; as configured when None.
        kinds: what it can do besides research and what the configuration names.

    Raises:
        ConfigError: the variable with the address of PostgreSQL is not set.
        UsageError: a configured kind cannot be loaded, or the ledger would not survive the worker.
    """
    jobs = settings.jobs
    if settings.ledger.kind == "memory":
        raise UsageError(
            "Durable jobs need a durable ledger: with ledger.kind 'memory' a restart would pay for every call again. "
            "Leave it out, or set it to sqlite or postgres."
        )
    if jobs.kind == "postgres" and settings.ledger.kind != "postgres":
        raise UsageError(
            "Jobs in PostgreSQL may go on on any machine, so their calls must be recorded there too. "
            "Set ledger.kind to postgres."
        )
    database, store = open_database(jobs), open_store(jobs.store)
    shelves = Shelves(Catalogue(database), store, edition(settings), settings.research.chunk_chars)
    research = partial(research_kind, shelves=shelves)
    known: dict[str, Kind] = {"research": research, **load_kinds(jobs.kinds), **(kinds or {})}
    runtime.other_tenants = Tenants(database).limits
    embed_as_configured(runtime)
    options = WorkerOptions(
        queues=queues,
        slots=slots or jobs.slots,
        limits={name: QueueLimits(q.concurrency, q.tenant_concurrency) for name, q in jobs.queues.items()},
        lease_s=jobs.lease_s,
        drain_s=jobs.drain_s,
        tries=Tries(jobs.tries, jobs.retry_s),
        deaths=jobs.worker_deaths,
        keep_days=jobs.keep_days,
    )
    from agentflow.jobs.dbos_engine import DbosEngine

    return Worker(database, DbosEngine(database), runtime, known, store, options)


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
