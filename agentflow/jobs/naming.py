"""Names that jobs are known by and keep things under. Imports nothing of agentflow."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Final

RESULT: Final = "result.json"
"""What a job's result is kept as."""
BASIS: Final = "basis.json"
"""What its leaves come from, where a kind tells."""
REPORT: Final = "report.json"
"""A research job's report, which is its result unless another form was asked for."""


def new_job_id() -> str:
    """A name for a job: it sorts by time, and nobody guesses it."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(8)}"
