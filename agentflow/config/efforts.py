"""``[efforts.NAME]``: what an effort may spend, and how deep it looks. Imports table."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from agentflow.config.table import Table

EffortName = Literal["lite", "base", "core", "pro", "ultra"]


class EffortSettings(Table):
    """What is other than shipped for one effort: ``agentflow efforts`` prints the whole."""

    usd: Annotated[Decimal, Field(gt=0, max_digits=18, decimal_places=9)] | None = None
    """Dollars of a job that has no limits of its own."""
    tokens: int | None = Field(default=None, gt=0)
    """Input and output tokens together."""
    joules: float | None = Field(default=None, gt=0)
    """Joules."""
    seconds: float | None = Field(default=None, gt=0)
    """Seconds of work."""
    cascade: str | None = None
    """The cascade of every step, instead of what its agent names."""
    model_rungs: int | None = Field(default=None, ge=0)
    """Models of the cascade that are climbed, from the cheapest on; ``0``: code alone."""
    breadth: float | None = Field(default=None, gt=0, le=10)
    """Sub-questions and passages, as a multiple of what ``[research]`` says."""
