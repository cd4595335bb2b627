"""``[distillation]``: keep what a small model can learn from. Off unless it is asked for: it keeps prompts."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from agentflow.config.table import Table


class DistillationSettings(Table):
    """Calls that a small model failed and a larger one answered, kept for fine-tuning."""

    keep_prompts: bool = False
    """Keep these calls with their prompts and replies, in clear text. Whoever may read the folder reads them."""
    path: Path = Path(".agentflow/escalations")
    """The folder: one file a day. Delete a file, and what it holds is gone."""
    days: int = Field(default=30, gt=0)
    """Files older than these days are deleted."""
