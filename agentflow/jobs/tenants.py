"""Tenants that were made by command, beside those of the configuration: their limits, and what signs their webhooks.

They are in the database of jobs, so that every worker knows them. Imports annex, config.
"""

from __future__ import annotations

import base64
import secrets
import time
from typing import Final

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, MetaData, Table, Text

from agentflow.config import TenantSettings
from agentflow.jobs.annex import Annex, insert_once
from agentflow.jobs.database import Database

_metadata: Final = MetaData()
_tenant: Final = Table(
    "agentflow_tenant",
    _metadata,
    Column("name", Text, primary_key=True),
    Column("limits", Text, nullable=False),
    Column("webhook_secret", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)


class Tenants:
    """The tenants of one database.

    Args:
        database: the one of jobs, or another of the same address.
    """

    def __init__(self, database: Database) -> None:
        self._annex = Annex(database, _metadata)

    async def limits(self, name: str) -> TenantSettings | None:
        """A tenant's limits, or None when it was never made.

        Raises:
            JobStoreError: they cannot be read.
        """
        wanted = sa.select(_tenant.c.limits).where(_tenant.c.name == name)
        found = await self._annex.read(lambda connection: connection.execute(wanted).scalar())
        return None if found is None else TenantSettings.model_validate_json(found)

    async def keep(self, name: str, limits: TenantSettings | None) -> None:
        """Make a tenant, or give it other limits; None leaves those it has. They hold from a process's next start.

        Raises:
            JobStoreError: it could not be written.
        """

        def work(connection: sa.Connection) -> None:
            self._make(connection, name)
            if limits is not None:
                text = limits.model_dump_json(exclude_none=True)
                connection.execute(_tenant.update().where(_tenant.c.name == name).values(limits=text))

        await self._annex.write(work)

    async def webhook_secrets(self, name: str) -> tuple[str, ...]:
        """What signs the webhooks of a tenant, the newest first: each ``whsec_`` and 256 random bits in base64.

        The first is made when it is first asked for. They are kept as they are, because signing needs them; they open
        nothing of ours.

        Raises:
            JobStoreError: they could not be read or written.
        """

        def work(connection: sa.Connection) -> tuple[str, ...]:
            self._make(connection, name)
            return _secrets_of(connection, name)

        return await self._annex.write(work)

    async def rotate_webhook_secret(self, name: str, *, keep_old: bool = True) -> str:
        """Give a tenant a new secret. The one before signs too until the next rotation, unless it is known to others.

        Returns:
            The new one.

        Raises:
            JobStoreError: it could not be written.
        """

        def work(connection: sa.Connection) -> str:
            self._make(connection, name)
            new = _new_secret()
            signing = (new, *_secrets_of(connection, name)[:1]) if keep_old else (new,)
            change = _tenant.update().where(_tenant.c.name == name).values(webhook_secret=" ".join(signing))
            connection.execute(change)
            return new

        return await self._annex.write(work)

    async def aclose(self) -> None:
        """Let go of the database. Closing twice changes nothing."""
        await self._annex.aclose()

    def _make(self, connection: sa.Connection, name: str) -> None:
        new = {"name": name, "limits": "{}", "webhook_secret": _new_secret(), "created_ms": time.time_ns() // 1_000_000}
        insert_once(connection, _tenant, new)


def _secrets_of(connection: sa.Connection, name: str) -> tuple[str, ...]:
    wanted = sa.select(_tenant.c.webhook_secret).where(_tenant.c.name == name).with_for_update()
    return tuple(str(connection.execute(wanted).scalar_one()).split())


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
