"""Collections: files that a tenant uploads once and looks in with any job. Imports annex, tables, research.sources.

A file is read when it comes, in a process of its own as every source is: what cannot be read is refused then.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from agentflow.config import ServerSettings
from agentflow.errors import SourceError, UnknownJob, UsageError
from agentflow.jobs.annex import Annex
from agentflow.research.sources import ReadLimits, read_sources
from agentflow.server.problems import TOO_LARGE, Problem
from agentflow.server.research.models import Words
from agentflow.server.tables import collection as collections
from agentflow.server.tables import file as files

SUFFIXES: Final = (
    ".txt", ".md", ".markdown", ".rst", ".html", ".htm", ".pdf", ".docx", ".csv", ".tsv", ".json", ".jsonl",
)  # fmt: skip
_FILE_NAME: Final = re.compile(r"[\w(][\w .,()+-]{0,119}")
_MEGABYTE: Final = 1_000_000


class CollectionRequest(BaseModel):
    """A new collection."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "tide tables"}})

    name: Annotated[Words, Field(min_length=1, max_length=200)]


class FileView(BaseModel):
    """One file, as it was read. ``characters`` is the length of its text."""

    name: str
    media_type: str
    size: int
    sha256: str
    characters: int


class CollectionView(BaseModel):
    """A collection; name its ``id`` in ``sources.collections`` of a job."""

    id: str
    name: str
    created_ms: int = Field(description="milliseconds since 1970, UTC")
    files: list[FileView]


class CollectionList(BaseModel):
    """A tenant's collections, the newest first."""

    data: list[CollectionView]


class Collections:
    """The collections of one database, with their files in a folder that workers see too.

    Args:
        annex: the server's tables.
        settings: folder and limits.
    """

    def __init__(self, annex: Annex, settings: ServerSettings) -> None:
        self._annex = annex
        self._settings = settings
        self._folder = settings.uploads.absolute()

    async def create(self, tenant: str, name: str) -> CollectionView:
        """Make an empty one.

        Raises:
            UsageError: the tenant has as many as it may.
        """
        id, now, most = f"col_{secrets.token_hex(12)}", time.time_ns() // 1_000_000, self._settings.max_collections

        def work(connection: sa.Connection) -> None:
            count = sa.select(sa.func.count()).select_from(collections).where(collections.c.tenant == tenant)
            if int(connection.execute(count).scalar_one()) >= most:
                raise UsageError(f"There are {most} collections already, which is the most. Delete one first.")
            connection.execute(collections.insert().values(id=id, tenant=tenant, name=name, created_ms=now))

        await self._annex.write(work)
        return CollectionView(id=id, name=name, created_ms=now, files=[])

    async def list(self, tenant: str) -> list[CollectionView]:
        """All of a tenant's."""
        wanted = sa.select(collections).where(collections.c.tenant == tenant).order_by(collections.c.created_ms.desc())
        return await self._annex.read(lambda c: [_view(c, row) for row in c.execute(wanted).mappings().all()])

    async def get(self, id: str, tenant: str) -> CollectionView:
        """One of a tenant's.

        Raises:
            UnknownJob: the tenant has none of this id.
        """
        return await self._annex.read(lambda c: _view(c, _find(c, id, tenant)))

    async def paths(self, id: str, tenant: str) -> Sequence[str]:
        """Where the files of a collection are, for a worker to read.

        Raises:
            UnknownJob: the tenant has none of this id.
            UsageError: it is empty.
        """
        found = await self.get(id, tenant)
        if not found.files:
            raise UsageError(f"sources.collections: '{id}' is empty. Upload files to it first.")
        return [str(self._folder / id / file.name) for file in found.files]

    async def add(self, id: str, tenant: str, name: str, pieces: AsyncIterator[bytes]) -> FileView:
        """Take in a file; one of the same name is replaced.

        Raises:
            Problem: it is too large.
            SourceError: no text can be read from it.
            UnknownJob: the tenant has no such collection.
            UsageError: its name or type cannot be, or the collection is full.
        """
        found = await self.get(id, tenant)
        name = _checked_name(name)
        if len(found.files) >= self._settings.max_files and name not in [file.name for file in found.files]:
            raise UsageError(f"The collection has {len(found.files)} files, which is the most. Make another.")
        folder = self._folder / id
        waiting = folder / f".{secrets.token_hex(8)}" / name
        try:
            await asyncio.to_thread(waiting.parent.mkdir, parents=True)
            size, digest = await self._write(waiting, pieces)
            limits = ReadLimits(max_file_bytes=size + 1)
            source = (await read_sources([str(waiting)], limits=limits)).sources[0]
            await asyncio.to_thread(waiting.replace, folder / name)
        except SourceError as error:
            raise SourceError(str(error).replace(str(waiting), name)) from error
        finally:
            await asyncio.to_thread(shutil.rmtree, waiting.parent, ignore_errors=True)
        row = {
            "collection": id, "name": name, "media_type": source.media_type, "size": size, "sha256": digest,
            "characters": len(source.text), "created_ms": time.time_ns() // 1_000_000,
        }  # fmt: skip

        def work(connection: sa.Connection) -> None:
            _find(connection, id, tenant)
            connection.execute(files.delete().where(files.c.collection == id, files.c.name == name))
            connection.execute(files.insert().values(row))

        await self._annex.write(work)
        return _file(row)

    async def remove(self, id: str, tenant: str, name: str) -> None:
        """Delete a file.

        Raises:
            UnknownJob: the tenant has no such collection, or it has no such file.
        """

        def work(connection: sa.Connection) -> int:
            _find(connection, id, tenant)
            return connection.execute(files.delete().where(files.c.collection == id, files.c.name == name)).rowcount

        if not await self._annex.write(work):
            raise UnknownJob(f"The collection '{id}' has no file '{name[:80]}'.")
        await asyncio.to_thread((self._folder / id / _checked_name(name)).unlink, missing_ok=True)

    async def delete(self, id: str, tenant: str) -> None:
        """Delete a collection with its files.

        Raises:
            UnknownJob: the tenant has none of this id.
        """

        def work(connection: sa.Connection) -> None:
            _find(connection, id, tenant)
            connection.execute(files.delete().where(files.c.collection == id))
            connection.execute(collections.delete().where(collections.c.id == id))

        await self._annex.write(work)
        await asyncio.to_thread(shutil.rmtree, self._folder / id, ignore_errors=True)

    async def _write(self, path: Path, pieces: AsyncIterator[bytes]) -> tuple[int, str]:
        most, size, digest = int(self._settings.max_upload_mb * _MEGABYTE), 0, hashlib.sha256()
        with await asyncio.to_thread(path.open, "wb") as file:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise Problem(TOO_LARGE, f"The file has more than {self._settings.max_upload_mb:g} MB.")
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
        return size, digest.hexdigest()


def _checked_name(name: str) -> str:
    if not _FILE_NAME.fullmatch(name) or name.endswith((".", " ")):
        raise UsageError(
            "The file's name cannot be: use letters, digits, spaces and .,()+-_ up to 120 characters, no folders."
        )
    if not name.lower().endswith(SUFFIXES):
        raise UsageError(f"Files of this type are not read here; those of these are: {', '.join(SUFFIXES)}.")
    return name


def _find(connection: sa.Connection, id: str, tenant: str) -> Any:
    wanted = sa.select(collections).where(collections.c.id == id, collections.c.tenant == tenant)
    row = connection.execute(wanted).mappings().first()
    if row is None:
        raise UnknownJob(f"There is no collection '{id}'. List yours with GET /v1/collections.")
    return row


def _view(connection: sa.Connection, row: Any) -> CollectionView:
    wanted = sa.select(files).where(files.c.collection == row["id"]).order_by(files.c.name)
    found = [_file(one) for one in connection.execute(wanted).mappings()]
    return CollectionView(id=row["id"], name=row["name"], created_ms=row["created_ms"], files=found)


def _file(row: Any) -> FileView:
    return FileView(**{name: row[name] for name in ("name", "media_type", "size", "sha256", "characters")})
