"""``GET /v1/models``: what can be asked, by name. Imports targets."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from agentflow.server.access import AdmittingRoute, Reader
from agentflow.server.openai import targets
from agentflow.server.openai.targets import Model
from agentflow.server.state import TheServer

router = APIRouter(prefix="/v1", tags=["openai"], route_class=AdmittingRoute)


class ModelList(BaseModel):
    """Everything that can be asked."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models", summary="List cascades and models")
async def list_models(server: TheServer, _: Reader) -> ModelList:
    """Every name that ``model`` may hold: cascades first."""
    return ModelList(data=list(targets.models(server.settings)))


@router.get("/models/{model}", summary="One cascade or model")
async def get_model(server: TheServer, _: Reader, model: str) -> Model:
    """What a name stands for."""
    return targets.find(server.settings, model)
