"""Catalogue: which collections there are, whose they are, and what is in them. Imports tables."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from pydantic import BaseModel, Field

from agentflow.errors import UnknownJob, UsageError
from agentflow.jobs.annex import Annex, insert_once
from agentflow.jobs.collections.tables import collection, metadata, upload, upload_index
from agentflow.jobs.database import Database

# An upload takes no longer than this.
_BEGUN_MS: Final = 3_600_000


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


class Upload(FileView):
    """A file and where it is kept. ``index`` is the hash of its index of the wanted edition, if there is one."""

    id: str
    collection: str
    created_ms: int = 0
    index: str | None = None

    @property
    def origin(self) -> str:
        """What reports call it."""
        return f"{self.collection}/{self.name}"


class Catalogue:
    """The collections of one database. Another tenant's and one that does not exist are the same ``UnknownJob``.

    Args:
        database: the one of jobs, or another of the same address.
    """

    def __init__(self, database: Database) -> None:
        self._annex = Annex(database, metadata)

    async def create(self, tenant: str, name: str, most: int) -> CollectionView:
        """Make an empty one.

        Raises:
            UsageError: the tenant has ``most`` already.
        """
        id, now = f"col_{secrets.token_hex(12)}", _now_ms()

        def work(connection: sa.Connection) -> None:
            count = sa.select(sa.func.count()).select_from(collection).where(collection.c.tenant == tenant)
            if int(connection.execute(count).scalar_one()) >= most:
                raise UsageError(f"There are {most} collections already, which is the most. Delete one first.")
            connection.execute(collection.insert().values(id=id, tenant=tenant, name=name, created_ms=now))

        await self._annex.write(work)
        return CollectionView(id=id, name=name, created_ms=now, files=[])

    async def list(self, tenant: str) -> list[CollectionView]:
        """All of a tenant's, the newest first."""
        wanted = sa.select(collection).where(collection.c.tenant == tenant).order_by(collection.c.created_ms.desc())
        return await self._annex.read(lambda c: [_view(c, row) for row in c.execute(wanted).mappings().all()])

    async def get(self, id: str, tenant: str) -> CollectionView:
        """One of a tenant's.

        Raises:
            UnknownJob: the tenant has none of this id.
        """
        return await self._annex.read(lambda c: _view(c, _find(c, id, tenant)))

    async def uploads(self, ids: Sequence[str], tenant: str, edition: str) -> list[Upload]:
        """The files of some collections, in the order of these and by name.

        Raises:
            UnknownJob: the tenant has none of such an id.
            UsageError: one is empty.
        """

        def work(connection: sa.Connection) -> list[Upload]:
            return [one for id in dict.fromkeys(ids) for one in _uploads(connection, id, tenant, edition)]

        return await self._annex.read(work)

    async def reserve(self, id: str) -> None:
        """Write down that files are about to be kept under this id, so that they are found if nothing comes of it."""
        row = dict.fromkeys(("collection", "media_type", "sha256"), "") | {"size": 0, "characters": 0}
        values = {**row, "id": id, "name": id, "created_ms": _now_ms()}
        await self._annex.write(lambda connection: insert_once(connection, upload, values))

    async def add(self, new: Upload, tenant: str, edition: str) -> None:
        """Write a file down whose id was reserved, in place of one of the same name.

        Raises:
            UnknownJob: the tenant has no such collection.
        """
        row = {**new.model_dump(exclude={"index"}), "created_ms": _now_ms()}

        def work(connection: sa.Connection) -> None:
            _find(connection, new.collection, tenant)
            here = (upload.c.collection == new.collection) & (upload.c.name == new.name) & (upload.c.id != new.id)
            _strike(connection, here)
            connection.execute(upload.update().where(upload.c.id == new.id).values(row))
            _note(connection, new.id, edition, new.index or "")

        await self._annex.write(work)

    async def indexed(self, id: str, edition: str, sha256: str) -> bool:
        """Note the index of an upload.

        Returns:
            Whether the upload is still there.
        """

        def work(connection: sa.Connection) -> bool:
            there = connection.execute(sa.select(upload.c.collection).where(upload.c.id == id)).scalar()
            if there:
                _note(connection, id, edition, sha256)
            return bool(there)

        return await self._annex.write(work)

    async def remove(self, id: str, tenant: str, name: str) -> None:
        """Strike out a file.

        Raises:
            UnknownJob: the tenant has no such collection, or it has no such file.
        """

        def work(connection: sa.Connection) -> int:
            _find(connection, id, tenant)
            return _strike(connection, (upload.c.collection == id) & (upload.c.name == name))

        if not await self._annex.write(work):
            raise UnknownJob(f"The collection '{id}' has no file '{name[:80]}'.")

    async def delete(self, id: str, tenant: str) -> None:
        """Strike out a collection with its files.

        Raises:
            UnknownJob: the tenant has none of this id.
        """

        def work(connection: sa.Connection) -> None:
            _find(connection, id, tenant)
            connection.execute(collection.delete().where(collection.c.id == id))
            _strike(connection, upload.c.collection == id)

        await self._annex.write(work)

    async def struck(self) -> Sequence[str]:
        """Uploads that are struck out, or were begun long ago and never came to anything: what they keep can go."""
        wanted = sa.select(upload.c.id).where(upload.c.collection == "", upload.c.created_ms < _now_ms() - _BEGUN_MS)
        return await self._annex.read(lambda connection: list(connection.execute(wanted).scalars()))

    async def forget(self, id: str) -> None:
        """Drop an upload whose files are gone."""

        def work(connection: sa.Connection) -> None:
            connection.execute(upload_index.delete().where(upload_index.c.upload == id))
            connection.execute(upload.delete().where(upload.c.id == id, upload.c.collection == ""))

        await self._annex.write(work)

    async def aclose(self) -> None:
        """Let go of the database. Closing twice changes nothing."""
        await self._annex.aclose()


def _find(connection: sa.Connection, id: str, tenant: str) -> Any:
    wanted = sa.select(collection).where(collection.c.id == id, collection.c.tenant == tenant)
    row = connection.execute(wanted).mappings().first()
    if row is None:
        raise UnknownJob(f"There is no collection '{id[:80]}'. List yours with GET /v1/collections.")
    return row


def _strike(connection: sa.Connection, which: sa.ColumnElement[bool]) -> int:
    """Mark uploads as gone: their rows stay until their files are."""
    gone = upload.update().where(which).values(collection="", name=upload.c.id, created_ms=0)
    return connection.execute(gone).rowcount


def _note(connection: sa.Connection, id: str, edition: str, sha256: str) -> None:
    connection.execute(upload_index.delete().where(upload_index.c.upload == id, upload_index.c.edition == edition))
    insert_once(connection, upload_index, {"upload": id, "edition": edition, "sha256": sha256})


def _uploads(connection: sa.Connection, id: str, tenant: str, edition: str) -> list[Upload]:
    _find(connection, id, tenant)
    of_it = (upload_index.c.upload == upload.c.id) & (upload_index.c.edition == edition)
    wanted = (
        sa.select(upload, upload_index.c.sha256.label("index"))
        .join(upload_index, of_it, isouter=True)
        .where(upload.c.collection == id)
        .order_by(upload.c.name)
    )
    found = [Upload.model_validate(dict(row)) for row in connection.execute(wanted).mappings()]
    if not found:
        raise UsageError(f"sources.collections: '{id}' is empty. Upload files to it first.")
    return found


def _view(connection: sa.Connection, row: Any) -> CollectionView:
    wanted = sa.select(upload).where(upload.c.collection == row["id"]).order_by(upload.c.name)
    found = [FileView.model_validate(dict(one)) for one in connection.execute(wanted).mappings()]
    return CollectionView(id=row["id"], name=row["name"], created_ms=row["created_ms"], files=found)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
