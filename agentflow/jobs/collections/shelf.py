"""Shelf: the uploaded files that one job looks in, loaded with their indexes. Imports catalogue, reader.

An index that is missing, of another edition, or damaged is made anew from the file; whoever needs it first pays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentflow.errors import JobStoreError, SourceError
from agentflow.jobs.collections.catalogue import Catalogue, Upload
from agentflow.jobs.collections.reader import keep, read_anew
from agentflow.jobs.store.base import BlobStore
from agentflow.research.indexed import IndexedSource


@dataclass(frozen=True, slots=True)
class Shelves:
    """Where jobs find the files of collections.

    Args:
        catalogue: which there are.
        store: where they are.
        edition: of the indexes, see ``reader.edition``.
        chunk_chars: of an index that has to be made.
    """

    catalogue: Catalogue
    store: BlobStore
    edition: str
    chunk_chars: int

    async def open(self, collections: Sequence[str], tenant: str) -> JobShelf:
        """The files of some collections as they are now.

        Raises:
            UnknownJob: the tenant has none of such an id.
            UsageError: one is empty.
        """
        return JobShelf(self, await self.catalogue.uploads(collections, tenant, self.edition))


@dataclass(slots=True)
class JobShelf:
    """Files of one job; what ``agentflow.research.indexed.Shelf`` asks."""

    shelves: Shelves
    uploads: Sequence[Upload]
    names: tuple[str, ...] = field(init=False)
    unread_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """See what there is to do."""
        self.names = tuple(upload.origin for upload in self.uploads)
        self.unread_bytes = sum(upload.size for upload in self.uploads if upload.index is None)

    async def load(self) -> Sequence[IndexedSource]:
        """All of them, one after the other: their hashes are checked, and what has no index gets one."""
        return [(await self._load(upload)).named("", upload.origin) for upload in self.uploads]

    async def _load(self, upload: Upload) -> IndexedSource:
        if upload.index is not None:
            try:
                data = await self.shelves.store.get(upload.id, upload.index)
                return await asyncio.to_thread(IndexedSource.from_bytes, data)
            except (SourceError, JobStoreError):
                # Damaged, or gone. If the store itself cannot be reached, reading the file says so.
                pass
        return await self._make(upload)

    async def _make(self, upload: Upload) -> IndexedSource:
        shelves = self.shelves
        made = await read_anew(shelves.store, upload, shelves.chunk_chars)
        sha256 = await keep(shelves.store, upload.id, made)
        if not await shelves.catalogue.indexed(upload.id, shelves.edition, sha256):
            # It was deleted meanwhile, and its index with it.
            await shelves.store.delete(upload.id)
        return made
