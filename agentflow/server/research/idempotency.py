"""Idempotency keys that hold for 24 hours: a key used again after that names another request. Imports annex, tables.

Jobs keep a key as long as the job; here each is known by the moment of its first use, which is forgotten after a day.
"""

from __future__ import annotations

import hashlib
import time
from typing import Final

import sqlalchemy as sa

from agentflow.jobs.annex import Annex, insert_once
from agentflow.server.tables import idempotency

HOURS: Final = 24
_KEPT_MS: Final = HOURS * 3_600_000


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
            connection.execute(idempotency.delete().where(this, idempotency.c.since_ms < now - _KEPT_MS))
            insert_once(connection, idempotency, {"digest": digest, "generation": 1, "since_ms": now})
            return int(connection.execute(sa.select(idempotency.c.since_ms).where(this)).scalar_one())

        return f"{await self._annex.write(work)}:{digest}"

    async def sweep(self) -> None:
        """Forget the keys that hold no more.

        Raises:
            JobStoreError: it could not be written.
        """
        old = idempotency.c.since_ms < time.time_ns() // 1_000_000 - _KEPT_MS
        await self._annex.write(lambda c: c.execute(idempotency.delete().where(old)))
