"""``[reuse]``: where replies are kept for calls that opt in to being answered by an earlier one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from agentflow.config.table import Table


class ReuseSettings(Table):
    """The cache of replies. Nothing is kept unless a call says ``reuse=Reuse(...)``."""

    path: Path = Path(".agentflow/replies.db")
    """The SQLite file; it holds replies in clear text, and no prompts."""
    max_mb: float = Field(default=256.0, gt=0, allow_inf_nan=False)
    """Megabytes of replies; those used longest ago go first."""
    share_tenants: bool = False
    """Give a tenant replies that another one paid for. Only where no prompt can hold what one tenant alone may know."""
