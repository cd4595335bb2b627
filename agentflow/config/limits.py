"""``[budget]``, ``[tenants.NAME]``, ``[ledger]``: what may be spent, by whom, and where it is recorded."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from agentflow.config.table import Table, Tags, VariableName


class LimitSettings(Table):
    """Limits of what may be spent; any may be left out."""

    usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)] | None = None
    """Dollars."""
    joules: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Joules."""
    tokens: int | None = Field(default=None, gt=0)
    """Input and output tokens together."""
    grams_co2e: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Grams of CO2 equivalent."""
    calls: int | None = Field(default=None, gt=0)
    """Attempts, those of code included."""
    on_exceed: Literal["stop", "degrade", "ask"] = "stop"
    """What a call does that does not fit: end, try rungs that still fit, or wait for a person."""
    warn_at: float = Field(default=0.8, gt=0, le=1)
    """Share of a limit at which a warning is given."""
    landing: float = Field(default=0.0, ge=0, lt=1)
    """Share of every limit that only a last call may use."""


class BudgetSettings(LimitSettings):
    """Limits of every job, unless its own are given."""

    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Wall clock."""


class TenantSettings(Table):
    """Limits of one tenant, over all its jobs and chains together; each of them may be left out."""

    hour: LimitSettings | None = None
    """Of every hour, UTC."""
    day: LimitSettings | None = None
    """Of every day, UTC."""
    week: LimitSettings | None = None
    """Of every ISO week, UTC."""
    month: LimitSettings | None = None
    """Of every month, UTC."""
    total: LimitSettings | None = None
    """For good."""
    residency: Tags = ()
    """Its calls are served in regions with one of these tags; anywhere when left out."""


class LedgerSettings(Table):
    """Where attempts and accounts are recorded."""

    kind: Literal["auto", "memory", "sqlite", "postgres"] = "auto"
    """``auto``: SQLite for jobs and tenants, memory for a bare chain. The others are for everything."""
    path: Path = Path(".agentflow/ledger.db")
    """``sqlite``: the file."""
    url_env: VariableName = None
    """``postgres``: the NAME of the environment variable that holds the address, with its password."""

    @model_validator(mode="after")
    def _has_its_place(self) -> LedgerSettings:
        if self.kind == "postgres" and not self.url_env:
            raise ValueError("ledger 'postgres' needs url_env, the name of the variable with the address")
        return self
