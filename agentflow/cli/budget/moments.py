"""Moments as a person types them: a date, a time, or how long ago. Imports errors."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from agentflow.errors import UsageError

_AGO = re.compile(r"(\d{1,6})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def milliseconds(text: str, now: datetime) -> int:
    """A moment as milliseconds since 1970, UTC.

    Args:
        text: ``24h``, ``7d`` or ``2w`` ago; or ISO: ``2026-11-21``, ``2026-11-21T08:30``, ``2026-11``. Without a zone
            it is UTC.
        now: what ``ago`` counts from.

    Raises:
        UsageError: it is none of these.
    """
    try:
        at = now - int(ago[1]) * _UNITS[ago[2]] if (ago := _AGO.fullmatch(text.strip())) else _iso(text.strip())
        return round(at.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{text}' is no moment. Give a date (2026-11-21), a time in UTC (2026-11-21T08:30), a month (2026-11), or "
            "how long ago: 24h, 7d, 2w."
        ) from error


def _iso(text: str) -> datetime:
    at = datetime.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d\d", text) else text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
