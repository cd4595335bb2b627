"""What a client's ``model`` names: a cascade, or one model of the configuration. Imports runtime, cascade."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from agentflow.cascade.cascade import Cascade
from agentflow.config import CODE, Settings
from agentflow.errors import UnknownModel
from agentflow.runtime import Runtime
from agentflow.server.access import AdmittingRoute, Reader
from agentflow.server.state import TheServer

router = APIRouter(prefix="/v1", tags=["openai"], route_class=AdmittingRoute)


class Model(BaseModel):
    """Something that can be asked: a cascade, or one of its models alone."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "agentflow"
    kind: Literal["cascade", "model"] = Field(description="a cascade climbs its rungs; a model is asked alone")
    rungs: list[str] = Field(description="models in the order they are tried, cheapest first")


class ModelList(BaseModel):
    """Everything that can be asked."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models", summary="List cascades and models")
async def list_models(server: TheServer, _: Reader) -> ModelList:
    """Every name that ``model`` may hold: cascades first."""
    return ModelList(data=list(_models(server.settings)))


@router.get("/models/{model}", summary="One cascade or model")
async def get_model(server: TheServer, _: Reader, model: str) -> Model:
    """What a name stands for."""
    found = next((one for one in _models(server.settings) if one.id == model), None)
    if found is None:
        raise _unknown(server.settings, model)
    return found


def target(runtime: Runtime, model: str) -> Cascade:
    """The rungs that a name stands for.

    Raises:
        UnknownModel: it stands for none.
        UnpricedModel: a model of them has no known price.
    """
    for known in _models(runtime.settings):
        if known.id == model and known.kind == "cascade":
            return runtime.cascade(model)
        if known.id == model:
            return Cascade(model, (runtime.rung(model),))
    raise _unknown(runtime.settings, model)


def _models(settings: Settings) -> Iterator[Model]:
    """Cascades that have a model rung, then the models that no cascade shares a name with."""
    names = list(dict.fromkeys(("default", *settings.cascades)))
    for name in names:
        rungs = [rung for rung in settings.cascade(name).rungs if rung != CODE]
        if rungs:
            yield Model(id=name, kind="cascade", rungs=rungs)
    for name in settings.models:
        if name not in names:
            yield Model(id=name, kind="model", rungs=[name])


def _unknown(settings: Settings, model: str) -> UnknownModel:
    known = ", ".join(one.id for one in _models(settings)) or "none: the configuration has no models"
    return UnknownModel(f"There is no cascade or model '{model[:80]}'; there are: {known}. See GET /v1/models.")
