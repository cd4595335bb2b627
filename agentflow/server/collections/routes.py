"""The API of collections. Imports shelf, access, state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Response, UploadFile

from agentflow.server.access import AdmittingRoute, Reader, Submitter
from agentflow.server.collections.shelf import (
    CollectionList,
    CollectionRequest,
    Collections,
    CollectionView,
    FileView,
)
from agentflow.server.state import TheServer

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=AdmittingRoute)
_PIECE: Final = 1 << 20
CollectionId = Annotated[str, Path(max_length=40, pattern=r"^col_[0-9a-f]{1,36}$")]


async def _the_collections(server: TheServer) -> Collections:
    return server.collections


TheCollections = Annotated[Collections, Depends(_the_collections)]


@router.post("", status_code=201, summary="Make a collection")
async def create_collection(kept: TheCollections, caller: Submitter, request: CollectionRequest) -> CollectionView:
    """Empty; upload files to it next."""
    return await kept.create(caller.tenant or "", request.name)


@router.get("", summary="List collections")
async def list_collections(kept: TheCollections, caller: Reader) -> CollectionList:
    """The newest first, with their files."""
    return CollectionList(data=await kept.list(caller.tenant or ""))


@router.get("/{id}", summary="One collection and its files")
async def get_collection(kept: TheCollections, caller: Reader, id: CollectionId) -> CollectionView:
    """Its files, as they were read."""
    return await kept.get(id, caller.tenant or "")


@router.post("/{id}/files", status_code=201, summary="Upload a file")
async def add_file(kept: TheCollections, caller: Submitter, id: CollectionId, file: UploadFile) -> FileView:
    """A text, page, PDF or Word document; its text is read at once, and refused if there is none."""
    return await kept.add(id, caller.tenant or "", file.filename or "", _pieces(file))


@router.delete("/{id}/files/{name}", status_code=204, summary="Delete a file")
async def remove_file(kept: TheCollections, caller: Submitter, id: CollectionId, name: str) -> Response:
    """Jobs that have read it keep what they read."""
    await kept.remove(id, caller.tenant or "", name)
    return Response(status_code=204)


@router.delete("/{id}", status_code=204, summary="Delete a collection with its files")
async def delete_collection(kept: TheCollections, caller: Submitter, id: CollectionId) -> Response:
    """Jobs that have read it keep what they read."""
    await kept.delete(id, caller.tenant or "")
    return Response(status_code=204)


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE):
        yield piece
