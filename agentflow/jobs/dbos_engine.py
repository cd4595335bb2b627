"""The engine on DBOS: its durable queues carry the tickets. The only file that imports dbos, when an engine starts.

DBOS keeps its tables in the schema ``dbos`` of the same PostgreSQL, or in an SQLite file beside the jobs'. SQLite
serves one process at a time, which a lock on a file sees to. What DBOS is not used for, and why: docs/jobs.md.

DBOS replaces the thread pool of the event loop it is called from, and shares it with its own work; so it is only ever
called from a thread of this engine, and its workflows live on a loop of its own and wait for ours.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy import event

from agentflow.errors import JobStoreError, UsageError
from agentflow.jobs.database import Database
from agentflow.jobs.engine import Run, Ticket

if TYPE_CHECKING:
    from dbos import DBOSConfig

Value = TypeVar("Value")

_NAME: Final = "agentflow"
_WORKFLOW: Final = "agentflow.job"
# Tickets of one version are taken by workers of the same; raise it when a ticket's meaning changes.
_VERSION: Final = "agentflow-jobs-1"
_POLL_S: Final = 0.25
_THREADS: Final = 16


class DbosEngine:
    """Queues in DBOS.

    Args:
        database: of the jobs; DBOS gets a file beside it, or a schema in it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file = None if database.path is None else database.path.with_name(f"{database.path.stem}.engine.db")
        self._lock = None if self._file is None else FileLock(f"{self._file}.lock", thread_local=False)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agentflow-jobs-engine")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._run: Run | None = None
        self._launched = False

    async def start(self, run: Run, queues: Sequence[str], slots: int) -> None:
        """Launch DBOS, and begin to take tickets.

        Raises:
            UsageError: another process serves this SQLite database, or this process runs DBOS for something else.
            JobStoreError: the database cannot be used.
        """
        self._loop, self._run = asyncio.get_running_loop(), run
        self._take_lock()
        try:
            await self._call(lambda: self._launch(queues, slots))
        except BaseException:
            self._leave_lock()
            raise

    async def enqueue(self, tickets: Sequence[Ticket]) -> None:
        """Write tickets down; one that is known already is left as it is."""
        if tickets:
            await self._call(lambda: self._enqueue(tickets))

    async def forget(self, ids: Sequence[str]) -> None:
        """Delete the records of tickets that are done."""
        if ids:
            await self._call(lambda: _dbos().delete_workflows(list(ids)))

    async def aclose(self) -> None:
        """Take no more tickets, and let DBOS go."""
        if self._launched:
            self._launched = False
            await self._call(lambda: _dbos().destroy(destroy_registry=True))
        await asyncio.to_thread(self._thread.shutdown)
        self._leave_lock()

    def _launch(self, queues: Sequence[str], slots: int) -> None:
        DBOS = _dbos()
        me = f"agentflow-{secrets.token_hex(8)}"
        logging.getLogger("dbos").setLevel(logging.ERROR)
        DBOS(config=self._config(me))
        if DBOS.executor_id != me:
            raise UsageError(
                "This process runs DBOS for something else already, and DBOS can be had once in a process only. "
                "Run the jobs in a process of their own: agentflow worker."
            )
        loop, run = self._loop, self._run
        assert loop is not None and run is not None

        async def job(id: str, number: int) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(id, number), loop))

        DBOS.workflow(name=_WORKFLOW)(job)
        named = [_queue(queue) for queue in queues]
        DBOS.listen_queues(named)
        DBOS.launch()
        self._launched = True
        for name in named:
            DBOS.register_queue(
                name, worker_concurrency=slots, polling_interval_sec=_POLL_S, on_conflict="always_update"
            )

    def _config(self, me: str) -> DBOSConfig:
        from dbos import DBOSPortableJSONSerializer

        config: DBOSConfig = {
            "name": _NAME,
            "application_version": _VERSION,
            "executor_id": me,
            "max_executor_threads": _THREADS,
            "log_level": "ERROR",
            "serializer": DBOSPortableJSONSerializer(),
            "notification_listener_polling_interval_sec": 1.0,
        }
        if self._file is None:
            config["system_database_url"] = self._database.address
            config["sys_db_pool_size"] = 8
            config["sys_db_idle_transaction_timeout_sec"] = 3.0
        else:
            config["system_database_url"] = f"sqlite:///{self._file}"
            config["system_database_engine"] = _sqlite(self._file)
        return config

    def _enqueue(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            _dbos().enqueue_workflow_with_options(
                {
                    "workflow_name": _WORKFLOW, "queue_name": _queue(ticket.queue), "workflow_id": ticket.id,
                    "app_version": _VERSION, "priority": ticket.order,
                },
                ticket.job, ticket.number,
            )  # fmt: skip

    def _take_lock(self) -> None:
        if self._lock is None:
            return
        try:
            Path(self._lock.lock_file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"Another process works on the jobs of {self._database.path}. SQLite allows one at a time: leave the "
                "work to that one, or keep jobs in PostgreSQL (jobs.kind) for many."
            ) from None
        except OSError as error:
            raise JobStoreError(f"The lock {self._lock.lock_file} cannot be taken: {error.strerror}.") from error

    def _leave_lock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    async def _call(self, work: Callable[[], Value]) -> Value:
        assert self._loop is not None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (UsageError, JobStoreError):
            raise
        except Exception as error:
            said = " ".join(str(error).split())
            raise JobStoreError(f"The engine of the jobs failed: {type(error).__name__}: {said}.") from error


def _sqlite(path: Path) -> sa.Engine:
    """As DBOS expects its file, and in WAL, which it does not ask for itself.

    A loss of power may lose its last commits; tickets that are lost with them are written anew.
    """
    path.touch(mode=0o600)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), pool_size=_THREADS + 4, max_overflow=0)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = "IMMEDIATE"
        for pragma in (
            "busy_timeout=30000",
            "foreign_keys=ON",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "cache_size=-500",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _queue(name: str) -> str:
    return f"agentflow.{name}"


def _dbos() -> Any:
    from dbos import DBOS

    return DBOS
