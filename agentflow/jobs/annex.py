"""Annex: further tables in the database of jobs, made when they are first used. Imports database.

``tenants`` has some, and the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from agentflow.jobs.database import Database

Value = TypeVar("Value")
# The lock under which PostgreSQL makes tables: two servers may start at once.
_MAKING: Final = 0x616773727665


class Annex:
    """Tables beside those of jobs.

    Args:
        database: the one of jobs, or another of the same address.
        tables: what is to be there.
    """

    def __init__(self, database: Database, tables: sa.MetaData) -> None:
        self._database = database
        self._tables = tables
        self._making = asyncio.Lock()
        self._made = False

    @property
    def shared(self) -> bool:
        """Whether processes on other machines may use the same tables."""
        return self._database.path is None

    async def write(self, work: Callable[[sa.Connection], Value]) -> Value:
        """Run work that writes, in one transaction.

        Raises:
            JobStoreError: it could not be done; nothing of it was.
        """
        await self._make()
        return await self._database.write(work)

    async def read(self, work: Callable[[sa.Connection], Value]) -> Value:
        """Run work that only reads.

        Raises:
            JobStoreError: it could not be done.
        """
        await self._make()
        return await self._database.read(work)

    async def aclose(self) -> None:
        """Let go of the database. Closing twice changes nothing."""
        await self._database.aclose()

    async def _make(self) -> None:
        async with self._making:
            if not self._made:
                await self._database.write(self._make_tables)
                self._made = True

    def _make_tables(self, connection: sa.Connection) -> None:
        if connection.dialect.name != "sqlite":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
        self._tables.create_all(connection)


def insert_once(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Insert a row unless one of its key is there, also when somebody else inserts it at this moment."""
    made = postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
    connection.execute(made.values(dict(values)).on_conflict_do_nothing())
