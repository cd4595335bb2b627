"""Shelf: the uploaded files that one job looks in, loaded with their indexes. Imports catalogue, reader.

An index that is missing, of another edition, or damaged is made anew from the file; whoever needs it first pays.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agentflow.errors import JobStoreError, SourceError
from agentflow.jobs.collections.catalogue import Catalogue, Upload
from agentflow.jobs.collections.reader import keep, read_anew
from agentflow.jobs.store.base import BlobStore
from agentflow.research.indexed import IndexedSource

# Files fetched at a time: a store elsewhere is slow to answer, and fast to deliver.
_AT_ONCE: Final = 8


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
        """All of them; their hashes are checked, and what has no index gets one."""
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            fetching = [group.create_task(self._fetch(upload, slots)) for upload in self.uploads]
        kept = await asyncio.to_thread(_decode, [task.result() for task in fetching])
        pairs = zip(self.uploads, kept, strict=True)
        return [(one or await self._make(upload)).named("", upload.origin) for upload, one in pairs]

    async def _fetch(self, upload: Upload, slots: asyncio.Semaphore) -> bytes | None:
        """The bytes of an index. If the store itself cannot be reached, reading the file will say so."""
        if upload.index is None:
            return None
        async with slots:
            with contextlib.suppress(JobStoreError):
                return await self.shelves.store.get(upload.id, upload.index)
        return None

    async def _make(self, upload: Upload) -> IndexedSource:
        shelves = self.shelves
        made = await read_anew(shelves.store, upload, shelves.chunk_chars)
        sha256 = await keep(shelves.store, upload.id, made)
        if not await shelves.catalogue.indexed(upload.id, shelves.edition, sha256):
            # It was deleted meanwhile, and its index with it.
            await shelves.store.delete(upload.id)
        return made


def _decode(kept: Sequence[bytes | None]) -> list[IndexedSource | None]:
    found: list[IndexedSource | None] = []
    for data in kept:
        one = None
        if data is not None:
            with contextlib.suppress(SourceError):
                one = IndexedSource.from_bytes(data)
        found.append(one)
    return found
