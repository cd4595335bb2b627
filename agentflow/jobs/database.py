"""The database of jobs: one SQLite file for a machine, or PostgreSQL for many. Imports tables, SQLAlchemy.

Work is a function that gets a connection in a transaction. It runs on a thread of this database's own, so that nothing
waits for the program's other threads, and runs again from its start when the connection broke or locks crossed: it must
bear that. SQLite has one writing thread, because two would wait for each other's lock by sleeping.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
import tenacity
from sqlalchemy import event, exc

from agentflow.errors import AgentflowError, JobStoreError
from agentflow.jobs import tables

Value = TypeVar("Value")
Work = Callable[[sa.Connection], Value]

# How long a database that restarts, or locks that cross, are waited for.
_PATIENCE_S: Final = 40.0
_BUSY_MS: Final = 30_000
_WRITERS: Final = 4
_CLASHES: Final = 5
_READERS: Final = 3
# A worker that is frozen in the middle of a transaction keeps its locks from all others for no longer than this.
_FROZEN: Final = "set idle_in_transaction_session_timeout = '3s'"
_AGAIN: Final = frozenset({"40001", "40P01"})
# What a server says of an address that no waiting will mend.
_NEVER: Final = ("does not exist", "authentication failed", "no pg_hba.conf entry")
_MAKING: Final = 0x61676A6F6273
_DISPATCHING: Final = 0x61676A6F6274
# A server that is gone without a word is noticed within half a minute.
_KEEPALIVE: Final = {
    "connect_timeout": 10, "application_name": "agentflow jobs", "keepalives_idle": 10, "keepalives_interval": 5,
    "keepalives_count": 3, "tcp_user_timeout": 25_000,
}  # fmt: skip


class Database:
    """One database, its threads, and its patience.

    Args:
        address: the path of an SQLite file, or an address that begins with ``postgresql://``.
    """

    def __init__(self, address: str | Path) -> None:
        self.path = None if str(address).startswith("postgres") else Path(address).absolute()
        self.address = str(address) if self.path is None else str(self.path)
        self._made = False
        self._sa: sa.Engine | None = None
        writers = _WRITERS if self.path is None else 1
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="agentflow-jobs-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="agentflow-jobs-read")

    @property
    def url(self) -> sa.URL:
        """The address as SQLAlchemy reads it."""
        if self.path is not None:
            return sa.URL.create("sqlite", database=str(self.path))
        return sa.make_url(self.address).set(drivername="postgresql+psycopg")

    async def write(self, work: Work[Value]) -> Value:
        """Run work that writes, in one transaction.

        Raises:
            JobStoreError: it could not be done; nothing of it was.
        """
        return await asyncio.get_running_loop().run_in_executor(self._writers, self.write_here, work)

    async def read(self, work: Work[Value]) -> Value:
        """Run work that only reads; what it sees is of one moment in SQLite, and of each statement in PostgreSQL.

        Raises:
            JobStoreError: it could not be done.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._patiently, work, False)

    def write_here(self, work: Work[Value]) -> Value:
        """The same as ``write``, on the thread that calls."""
        return self._patiently(work, True)

    async def aclose(self) -> None:
        """Finish what was begun, and close every connection."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """The same, for a program without an event loop."""
        self._writers.shutdown()
        self._readers.shutdown()
        engine, self._sa = self._sa, None
        if engine is not None:
            engine.dispose()

    def _patiently(self, work: Work[Value], writes: bool) -> Value:
        patient = tenacity.stop_after_delay(_PATIENCE_S)
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_be_repeated),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
            stop=lambda state: _stop_clashing(state) or patient(state),
            reraise=True,
        )
        try:
            return again(self._once, work, writes)
        except AgentflowError:
            raise
        except (exc.SQLAlchemyError, OSError) as error:
            raise self._failed(error) from error

    def _once(self, work: Work[Value], writes: bool) -> Value:
        with self._engine().connect() as connection:
            connection = connection.execution_options(agentflow_writes=writes)
            with connection.begin():
                return work(connection)

    def _engine(self) -> sa.Engine:
        if self._sa is None:
            self._sa = sqlite_engine(self.path) if self.path is not None else self._postgres_engine()
        if not self._made:
            self._make(self._sa)
            self._made = True
        return self._sa

    def _postgres_engine(self) -> sa.Engine:
        engine = sa.create_engine(self.url, pool_size=_WRITERS + _READERS, max_overflow=4, connect_args=_KEEPALIVE)

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
            connection.execute(_FROZEN)
            connection.commit()

        return engine

    def _make(self, engine: sa.Engine) -> None:
        """Make the tables, or refuse those of another version."""
        with engine.connect().execution_options(agentflow_writes=True) as connection, connection.begin():
            if self.path is None:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
            tables.metadata.create_all(connection)
            for table in tables.metadata.tables.values():
                for index in table.indexes:
                    # A database that was made before has those of then.
                    index.create(connection, checkfirst=True)
            version = connection.execute(sa.select(tables.about.c.version)).scalar()
            if version is None:
                connection.execute(tables.about.insert().values(version=tables.VERSION))
            elif version != tables.VERSION:
                raise JobStoreError(
                    f"The jobs in {self._name} are of version {version}, this program writes version "
                    f"{tables.VERSION}. Use the program that made them, or another database."
                )

    def _may_be_repeated(self, error: BaseException) -> bool:
        if isinstance(error, exc.IntegrityError):
            # Two wrote the same at the same moment: whoever comes second finds it when it looks again.
            return True
        if not isinstance(error, exc.DBAPIError) or self.path is not None:
            return False
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if state in _AGAIN:
            return True
        broken = isinstance(error, (exc.OperationalError, exc.InterfaceError)) or error.connection_invalidated
        return broken and not any(words in str(error.orig) for words in _NEVER)

    def _failed(self, error: Exception) -> JobStoreError:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        return JobStoreError(
            f"The jobs in {self._name} cannot be read or written: {said}. Nothing is half written. "
            "Check that the database runs, the disk's space, and the rights."
        )

    @property
    def _name(self) -> str:
        return str(self.path) if self.path is not None else "PostgreSQL"


def _stop_clashing(state: tenacity.RetryCallState) -> bool:
    """A clash that looking again does not mend is a defect."""
    error = state.outcome.exception() if state.outcome is not None else None
    return isinstance(error, exc.IntegrityError) and state.attempt_number >= _CLASHES


def sqlite_engine(path: Path) -> sa.Engine:
    """An engine for this file: its owner's alone, WAL, full syncs, writers in turn."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)), pool_size=_READERS + 2, max_overflow=8,
        connect_args={"check_same_thread": False},
    )  # fmt: skip

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.isolation_level = None
        for pragma in (f"busy_timeout={_BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "cache_size=-1000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        writes = connection.get_execution_options().get("agentflow_writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def now_ms(connection: sa.Connection) -> int:
    """The time by the database's clock, which all workers share."""
    if connection.dialect.name == "sqlite":
        return time.time_ns() // 1_000_000
    return int(
        connection.execute(sa.text("select (extract(epoch from clock_timestamp()) * 1000)::bigint")).scalar_one()
    )


def take_turns(connection: sa.Connection) -> bool:
    """Whether this transaction is the only one that hands out tickets now; SQLite has one writer anyway."""
    if connection.dialect.name == "sqlite":
        return True
    return bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(_DISPATCHING))).scalar_one())
