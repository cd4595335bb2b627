"""Uploads: files taken in, read at once, kept with their index, and removed without a trace. Imports catalogue, reader.

A file is read when it comes, so what cannot be read is refused then, and whoever uploads it pays for reading it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from agentflow.budget.meter import Meter
from agentflow.cascade.rung import Answer
from agentflow.config import ServerSettings
from agentflow.errors import JobStoreError, UsageError
from agentflow.jobs.collections.catalogue import Catalogue, FileView, Upload
from agentflow.jobs.collections.reader import edition, keep, read_and_index
from agentflow.jobs.store.base import BlobStore
from agentflow.messages import Message, Request
from agentflow.research.indexed import IndexedSource
from agentflow.research.pipeline import reading_cpu_s
from agentflow.runtime import Runtime

_LOG = logging.getLogger(__name__)
SUFFIXES: Final = (
    ".txt", ".md", ".markdown", ".rst", ".html", ".htm", ".pdf", ".docx", ".csv", ".tsv", ".json", ".jsonl",
)  # fmt: skip
_FILE_NAME: Final = re.compile(r"[\w(][\w .,()+-]{0,119}")


class Uploads:
    """The files of the collections of one database.

    Args:
        catalogue: where they are listed.
        store: where they are kept.
        runtime: what reading them is metered with.
        bounds: how many files a collection may have.
    """

    def __init__(self, catalogue: Catalogue, store: BlobStore, runtime: Runtime, bounds: ServerSettings) -> None:
        self._catalogue = catalogue
        self._store = store
        self._runtime = runtime
        self._most = bounds.max_files
        # Reading takes a core: one file at a time leaves the others to whoever else calls.
        self._turn = asyncio.Lock()

    async def add(self, id: str, tenant: str, name: str, pieces: AsyncIterator[bytes], pays: Meter) -> FileView:
        """Take in a file; one of the same name is replaced.

        Args:
            id: of the collection.
            tenant: whose it is.
            name: of the file.
            pieces: its content.
            pays: for reading and indexing it.

        Raises:
            BudgetExceeded: there is no room for reading it.
            JobStoreError: it cannot be kept.
            SourceError: no text can be read from it.
            UnknownJob: the tenant has no such collection.
            UsageError: its name or type cannot be, or the collection is full.
        """
        found = await self._catalogue.get(id, tenant)
        _check_name(name)
        if len(found.files) >= self._most and name not in [file.name for file in found.files]:
            raise UsageError(f"The collection has {len(found.files)} files, which is the most. Make another.")
        with tempfile.TemporaryDirectory(prefix="agentflow-upload-") as folder:
            path = Path(folder) / name
            size = await _write(path, pieces)
            async with self._turn:
                indexed = await self._read(path, size, pays)
            data = await asyncio.to_thread(path.read_bytes)
        new = Upload(
            id=f"upload_{secrets.token_hex(12)}", collection=id, name=name, media_type=indexed.source.media_type,
            size=len(data), sha256=hashlib.sha256(data).hexdigest(), characters=len(indexed.source.text),
        )  # fmt: skip
        try:
            await self._catalogue.reserve(new.id)
            await self._store.put(new.id, new.sha256, data)
            new = new.model_copy(update={"index": await keep(self._store, new.id, indexed)})
            await self._catalogue.add(new, tenant, edition(self._runtime.settings))
        except BaseException:
            await asyncio.shield(self._drop(new.id))
            raise
        try:
            await self.sweep()
        except JobStoreError as error:
            _LOG.warning("%s What was replaced is removed later.", error)
        return FileView.model_validate(new.model_dump())

    async def remove(self, id: str, tenant: str, name: str) -> None:
        """Delete a file, and its index.

        Raises:
            JobStoreError: not all of it could be removed; deleting anything later removes the rest.
            UnknownJob: the tenant has no such collection, or it has no such file.
        """
        await self._catalogue.remove(id, tenant, name)
        await self.sweep()

    async def delete(self, id: str, tenant: str) -> None:
        """Delete a collection with its files and their indexes.

        Raises:
            JobStoreError: not all of it could be removed; deleting anything later removes the rest.
            UnknownJob: the tenant has none of this id.
        """
        await self._catalogue.delete(id, tenant)
        await self.sweep()

    async def sweep(self) -> None:
        """Remove the files of uploads that are struck out."""
        for id in await self._catalogue.struck():
            await self._drop(id)

    async def _drop(self, id: str) -> None:
        await self._store.delete(id)
        await self._catalogue.forget(id)

    async def _read(self, path: Path, size: int, pays: Meter) -> IndexedSource:
        """Read and index a file in a chain of its own."""
        made = list[IndexedSource]()

        async def work(path: Path) -> Answer:
            made.append(await read_and_index(path, self._runtime.settings.research.chunk_chars))
            return Answer(True)

        rung = self._runtime.code_rung("reader and BM25 index", work, max_cpu_s=reading_cpu_s(size))
        request = Request((Message("user", path.name),), inputs=path)
        async with self._runtime.chain("upload", parent=pays) as chain:
            await chain.call(request, output=object, name="read", cascade=self._runtime.code(rung))
        return made[0]


async def _write(path: Path, pieces: AsyncIterator[bytes]) -> int:
    size = 0
    with await asyncio.to_thread(path.open, "wb") as file:
        async for piece in pieces:
            size += await asyncio.to_thread(file.write, piece)
    return size


def _check_name(name: str) -> None:
    if not _FILE_NAME.fullmatch(name) or name.endswith((".", " ")):
        raise UsageError(
            "The file's name cannot be: use letters, digits, spaces and .,()+-_ up to 120 characters, no folders."
        )
    if not name.lower().endswith(SUFFIXES):
        raise UsageError(f"Files of this type are not read here; those of these are: {', '.join(SUFFIXES)}.")
