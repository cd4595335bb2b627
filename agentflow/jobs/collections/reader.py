"""Reader: one uploaded file read, cut and counted, and whoever needed it pays. Imports runtime, research."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from agentflow.config import Settings
from agentflow.errors import SourceError
from agentflow.jobs.collections.catalogue import Upload
from agentflow.jobs.store.base import BlobStore
from agentflow.research.indexed import VERSION, IndexedSource
from agentflow.research.sources import ReadLimits, read_sources


def edition(settings: Settings) -> str:
    """What an index is made with: another program or another length of chunks makes another one."""
    return f"{VERSION}.{settings.research.chunk_chars}"


async def read_and_index(path: Path, chunk_chars: int) -> IndexedSource:
    """Read a file, in a process of its own where its format needs a parser, and index it.

    Raises:
        SourceError: no text can be read from it.
    """
    # Its size was bounded when it was uploaded.
    limits = ReadLimits(max_file_bytes=sys.maxsize)
    try:
        source = (await read_sources([str(path)], limits=limits)).sources[0]
    except SourceError as error:
        raise SourceError(str(error).replace(str(path), path.name)) from error
    return await asyncio.to_thread(IndexedSource.of, source, chunk_chars)


async def read_anew(store: BlobStore, upload: Upload, chunk_chars: int) -> IndexedSource:
    """Make the index of a file that has none, or one that cannot be used.

    Raises:
        SourceError: no text can be read from it any more.
        JobStoreError: it cannot be reached.
    """
    data = await store.get(upload.id, upload.sha256)
    with tempfile.TemporaryDirectory(prefix="agentflow-upload-") as folder:
        path = Path(folder) / upload.name
        await asyncio.to_thread(path.write_bytes, data)
        # The day of a file that tells none itself is the one on which it came.
        os.utime(path, (upload.created_ms / 1_000, upload.created_ms / 1_000))
        return await read_and_index(path, chunk_chars)


async def keep(store: BlobStore, id: str, indexed: IndexedSource) -> str:
    """Put an index where the upload's other files are; gives its hash."""
    data = await asyncio.to_thread(indexed.to_bytes)
    sha256 = hashlib.sha256(data).hexdigest()
    await store.put(id, sha256, data)
    return sha256
