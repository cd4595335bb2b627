"""The API of collections. Imports jobs.collections, access, state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Path, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from agentflow.jobs.collections.catalogue import CollectionView, FileView
from agentflow.server.access import AdmittingRoute, Reader, Submitter
from agentflow.server.problems import TOO_LARGE, Problem
from agentflow.server.research.models import Words
from agentflow.server.state import TheServer

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=AdmittingRoute)
_PIECE: Final = 1 << 20
_MEGABYTE: Final = 1_000_000
CollectionId = Annotated[str, Path(max_length=40, pattern=r"^col_[0-9a-f]{1,36}$")]


class CollectionRequest(BaseModel):
    """A new collection."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "tide tables"}})

    name: Annotated[Words, Field(min_length=1, max_length=200)]


class CollectionList(BaseModel):
    """A tenant's collections, the newest first."""

    data: list[CollectionView]


@router.post("", status_code=201, summary="Make a collection")
async def create_collection(server: TheServer, caller: Submitter, request: CollectionRequest) -> CollectionView:
    """Empty; upload files to it next."""
    return await server.catalogue.create(caller.tenant or "", request.name, server.settings.server.max_collections)


@router.get("", summary="List collections")
async def list_collections(server: TheServer, caller: Reader) -> CollectionList:
    """The newest first, with their files."""
    return CollectionList(data=await server.catalogue.list(caller.tenant or ""))


@router.get("/{id}", summary="One collection and its files")
async def get_collection(server: TheServer, caller: Reader, id: CollectionId) -> CollectionView:
    """Its files, as they were read."""
    return await server.catalogue.get(id, caller.tenant or "")


@router.post("/{id}/files", status_code=201, summary="Upload a file")
async def add_file(server: TheServer, caller: Submitter, id: CollectionId, file: UploadFile) -> FileView:
    """A text, page, PDF or Word document. It is read and indexed at once, at the caller's cost, or refused."""
    pays = server.local if caller.tenant is None else await server.runtime.tenant(caller.tenant)
    pieces = _pieces(file, server.settings.server.max_upload_mb)
    return await server.uploads.add(id, caller.tenant or "", file.filename or "", pieces, pays)


@router.delete("/{id}/files/{name}", status_code=204, summary="Delete a file")
async def remove_file(server: TheServer, caller: Submitter, id: CollectionId, name: str) -> Response:
    """The file and its index. Jobs that have read it keep what they read."""
    await server.uploads.remove(id, caller.tenant or "", name)
    return Response(status_code=204)


@router.delete("/{id}", status_code=204, summary="Delete a collection with its files")
async def delete_collection(server: TheServer, caller: Submitter, id: CollectionId) -> Response:
    """The files and their indexes. Jobs that have read them keep what they read."""
    await server.uploads.delete(id, caller.tenant or "")
    return Response(status_code=204)


async def _pieces(file: UploadFile, most_mb: float) -> AsyncIterator[bytes]:
    size = 0
    while piece := await file.read(_PIECE):
        size += len(piece)
        if size > most_mb * _MEGABYTE:
            raise Problem(TOO_LARGE, f"The file has more than {most_mb:g} MB.")
        yield piece
