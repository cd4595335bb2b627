"""What the server remembers: its tables in the database of jobs, made when first used. Imports jobs.database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from agentflow.jobs.database import Database
from agentflow.server import tables

Value = TypeVar("Value")


class Store:
    """The server's tables.

    Args:
        database: the one of jobs, or another of the same address.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._making = asyncio.Lock()
        self._made = False

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
                await self._database.write(_make_tables)
                self._made = True


def _make_tables(connection: sa.Connection) -> None:
    if connection.dialect.name != "sqlite":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(tables.MAKING)))
    tables.metadata.create_all(connection)


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
