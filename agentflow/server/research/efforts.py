"""What each effort may spend, and how deep it looks. Imports jobs.effort, state."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from agentflow.jobs.effort import EffortView, efforts
from agentflow.server.access import Reader
from agentflow.server.state import TheServer

router = APIRouter(prefix="/v1", tags=["research"])


class EffortList(BaseModel):
    """Every effort, the least first."""

    data: tuple[EffortView, ...]


@router.get("/efforts", summary="What each effort may spend, and how deep it looks")
async def list_efforts(server: TheServer, _: Reader) -> EffortList:
    """As configured here: `auto` is the configuration itself, and each of the others can be changed in it."""
    return EffortList(data=efforts(server.settings))
