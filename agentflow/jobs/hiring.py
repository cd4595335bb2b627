"""A worker as the configuration asks for it. Imports all of this floor, and an engine when a worker is made."""

from __future__ import annotations

from functools import partial

from agentflow.config import Settings
from agentflow.errors import UsageError
from agentflow.jobs.collections.catalogue import Catalogue
from agentflow.jobs.collections.reader import edition
from agentflow.jobs.collections.shelf import Shelves
from agentflow.jobs.kinds import Kind, Kinds, load_kinds
from agentflow.jobs.opening import open_database, open_store
from agentflow.jobs.research import research_kind
from agentflow.jobs.runner import Tries
from agentflow.jobs.tenants import Tenants
from agentflow.jobs.tickets import QueueLimits
from agentflow.jobs.worker import Worker, WorkerOptions
from agentflow.research.retrieval_rung import embed_as_configured
from agentflow.runtime import Runtime


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
