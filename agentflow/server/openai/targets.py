"""What a client's ``model`` names: a cascade, or one model of the configuration. Imports runtime, cascade.

No web framework: workers read it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, Field

from agentflow.cascade.cascade import Cascade
from agentflow.config import CODE, Settings
from agentflow.errors import UnknownModel
from agentflow.runtime import Runtime


class Model(BaseModel):
    """Something that can be asked: a cascade, or one of its models alone."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "agentflow"
    kind: Literal["cascade", "model", "embedder"] = Field(
        description="a cascade climbs its rungs; a model is asked alone; an embedder is for /v1/embeddings"
    )
    rungs: list[str] = Field(description="models in the order they are tried, cheapest first")


def target(runtime: Runtime, model: str) -> Cascade:
    """The rungs that a name stands for.

    Raises:
        UnknownModel: it stands for none.
        UnpricedModel: a model of them has no known price.
    """
    known = find(runtime.settings, model)
    if known.kind == "embedder":
        raise UnknownModel(f"'{model}' embeds texts and writes none. Send it to /v1/embeddings, or name another model.")
    return runtime.cascade(model) if known.kind == "cascade" else Cascade(model, (runtime.rung(model),))


def find(settings: Settings, model: str) -> Model:
    """What a name stands for.

    Raises:
        UnknownModel: it stands for nothing.
    """
    found = next((one for one in models(settings) if one.id == model), None)
    if found is None:
        known = ", ".join(one.id for one in models(settings)) or "none: the configuration has no models"
        raise UnknownModel(f"There is no cascade or model '{model[:80]}'; there are: {known}. See GET /v1/models.")
    return found


def models(settings: Settings) -> Iterator[Model]:
    """Cascades that have a model rung, then the models that no cascade shares a name with."""
    names = list(dict.fromkeys(("default", *settings.cascades)))
    for name in names:
        rungs = [rung for rung in settings.cascade(name).rungs if rung != CODE]
        if rungs:
            yield Model(id=name, kind="cascade", rungs=rungs)
    for name in settings.models:
        if name not in names:
            yield Model(id=name, kind="model", rungs=[name])
    embedder = embedder_name(settings)
    if embedder is not None and embedder not in (*names, *settings.models):
        yield Model(id=embedder, kind="embedder", rungs=[])


def embedder_name(settings: Settings) -> str | None:
    """What the configured embedder is called; None where there is none."""
    facts = settings.research.embedder
    if facts is None:
        return None
    return facts.model or (facts.path.stem if facts.path is not None else facts.kind)
