"""What a model's calls keep to while they run: limits at once and in a minute, when it counts as down, hedging."""

from __future__ import annotations

from pydantic import Field, model_validator

from agentflow.config.table import Table


class ConcurrencySettings(Table):
    """How many calls a model takes at once: the limit moves between bounds as first tokens get slower or quicker."""

    least: int = Field(default=1, gt=0)
    """Never fewer than these."""
    most: int = Field(default=64, gt=0)
    """Never more."""
    start: int = Field(default=8, gt=0)
    """Where it begins; equal bounds fix it."""

    @model_validator(mode="after")
    def _is_a_range(self) -> ConcurrencySettings:
        if self.least > self.most:
            raise ValueError(f"least, {self.least}, is more than most, {self.most}")
        return self


class BreakerSettings(Table):
    """When a model counts as down. One that does is asked only when no other can answer, or to see whether it is up."""

    failures: int = Field(default=5, gt=0)
    """So many failures in a row."""
    rate: float = Field(default=0.5, gt=0, le=1)
    """Or this share of the last ``window`` attempts."""
    window: int = Field(default=20, gt=0)
    """Attempts that the share is taken of."""
    open_s: float = Field(default=5.0, gt=0)
    """Seconds until one call is let through to see; doubled each time it fails."""
    longest_s: float = Field(default=120.0, gt=0)
    """The longest of these."""


class LaneSettings(Table):
    """The part of a model's table that is about its traffic. Nothing of it waits or hedges unless it is set."""

    concurrency: ConcurrencySettings | None = None
    """Calls at once; unlimited when left out."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Calls in a minute; unlimited when left out."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Tokens in a minute, prompts and replies; unlimited when left out."""
    breaker: BreakerSettings = BreakerSettings()
    """When it counts as down."""
    hedge: bool = False
    """Send a second attempt when the first token is late. Both are held, and both may cost."""
    hedge_with: str | None = None
    """The model that second attempts go to, as good as this one: another region of it, say; itself when left out."""
    hedge_share: float = Field(default=0.05, gt=0, le=0.5)
    """Second attempts for each call, at most."""

    @model_validator(mode="after")
    def _hedges_at_all(self) -> LaneSettings:
        idle = self.said({"hedge_with", "hedge_share"})
        if idle and not self.hedge:
            raise ValueError(f"{' and '.join(idle)}: without hedge = true nothing is hedged")
        return self
