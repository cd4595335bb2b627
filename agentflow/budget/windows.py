"""Periods of budgets that are for each hour, day, week or month, in UTC. Imports account, budget.

A period has a name that sorts by time and ends an account's id: ``acme@2026-11-21``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agentflow.budget.account import Account
from agentflow.budget.budget import Budget, Period

Calendar = Callable[[], datetime]


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


def period_name(per: Period, at: datetime) -> str:
    """The name of the period that ``at`` lies in: ``2026-11-21T07``, ``2026-11-21``, ``2026-W47`` or ``2026-11``."""
    match per:
        case "hour":
            return f"{at:%Y-%m-%dT%H}"
        case "day":
            return f"{at:%Y-%m-%d}"
        case "week":
            year, week, _ = at.isocalendar()
            return f"{year}-W{week:02}"
        case "month":
            return f"{at:%Y-%m}"


def period_end(per: Period, at: datetime) -> datetime:
    """The first moment of the period after the one that ``at`` lies in."""
    hour = at.replace(minute=0, second=0, microsecond=0)
    midnight = hour.replace(hour=0)
    match per:
        case "hour":
            return hour + timedelta(hours=1)
        case "day":
            return midnight + timedelta(days=1)
        case "week":
            return midnight + timedelta(days=7 - at.weekday())
        case "month":
            return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


class Window:
    """A budget per period: the account of the period that is now.

    Args:
        budget: limits of each period.
        path: the node they are of.
    """

    __slots__ = ("_ends", "account", "budget", "path")

    def __init__(self, budget: Budget, path: str) -> None:
        self.budget = budget
        self.path = path
        self.account = Account(path)
        self._ends: datetime | None = None

    def turn(self, now: datetime) -> datetime:
        """Open the account of the period that ``now`` lies in, unless it is open; a period never comes back.

        Returns:
            When the period ends.
        """
        per = self.budget.per or "day"
        if self._ends is None or now >= self._ends:
            budget = self.budget
            self.account = Account(
                f"{self.path}@{period_name(per, now)}", budget.limits, landing=budget.landing, warn_at=budget.warn_at
            )
            self._ends = period_end(per, now)
        return self._ends
