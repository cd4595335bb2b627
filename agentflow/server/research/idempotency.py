"""Idempotency keys that hold for 24 hours: a key used again after that names another request. Imports annex, tables.

Jobs keep a key as long as the job; here each key has a generation, which ends after a day.
"""

from __future__ import annotations

import hashlib
import time
from typing import Final

import sqlalchemy as sa

from agentflow.jobs.annex import Annex, insert_once
from agentflow.server.tables import idempotency

HOURS: Final = 24


class Idempotency:
    """The idempotency keys of one database."""

    def __init__(self, annex: Annex) -> None:
        self._annex = annex

    async def name(self, tenant: str, key: str) -> str:
        """What jobs know a tenant's key by now.

        Raises:
            JobStoreError: it could not be written.
        """
        now = time.time_ns() // 1_000_000
        digest = hashlib.sha256(f"{tenant}\n{key}".encode()).hexdigest()

        def work(connection: sa.Connection) -> int:
            this = idempotency.c.digest == digest
            insert_once(connection, idempotency, {"digest": digest, "generation": 1, "since_ms": now})
            row = connection.execute(sa.select(idempotency).where(this).with_for_update()).mappings().one()
            if now - row["since_ms"] < HOURS * 3_600_000:
                return int(row["generation"])
            generation = int(row["generation"]) + 1
            connection.execute(idempotency.update().where(this).values(generation=generation, since_ms=now))
            return generation

        return f"{await self._annex.write(work)}:{digest}"
