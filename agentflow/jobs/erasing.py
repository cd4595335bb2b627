"""Erasing a job that has ended: whatever it kept, wherever it kept it. Imports commands, the store's protocol."""

from __future__ import annotations

import contextlib

from agentflow.budget.ledger import Ledger
from agentflow.errors import UnknownJob
from agentflow.jobs import commands
from agentflow.jobs.database import Database
from agentflow.jobs.store.base import BlobStore


async def erase(database: Database, store: BlobStore, ledger: Ledger, id: str) -> None:
    """Remove a job's files, the replies in the ledger, and last its rows; what it cost stays in the books.

    While the row stands, whoever is interrupted here can erase the rest.

    Raises:
        JobStateConflict: it has not ended.
        JobStoreError, LedgerError: not all of it could be removed; erase it again.
    """
    await database.write(lambda c: commands.doom(c, id))
    await store.delete(id)
    await ledger.erase(id)
    with contextlib.suppress(UnknownJob):
        await database.write(lambda c: commands.delete(c, id))
