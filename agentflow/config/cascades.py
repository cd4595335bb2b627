"""``[cascades.NAME]``: rungs in their order, and when to climb."""

from __future__ import annotations

from pydantic import Field, field_validator

from agentflow.config.table import Share, Table


class CascadeSettings(Table):
    """An ordered set of rungs."""

    rungs: tuple[str, ...] = Field(min_length=1)
    """Names of models, cheapest first; ``code`` is the step's own code."""
    accept: Share = 0.7
    """Confidence a reply needs while a dearer rung is left."""
    repairs: int = Field(default=1, ge=0, le=5)
    """How often a model is told what was wrong and asked again."""
    min_output: int = Field(default=64, gt=0)
    """Tokens below which a reply is not worth asking for."""

    @field_validator("rungs")
    @classmethod
    def _are_different(cls, rungs: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(rungs)) < len(rungs):
            raise ValueError("names a rung twice; each may stand once, cheapest first")
        return rungs
