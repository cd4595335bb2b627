"""Budgets per hour, day, week and month: each period has an account of its own, and none comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.budget.budget import Budget, Period
from agentflow.budget.meter import Meter
from agentflow.budget.spend import Quote, Spend
from agentflow.budget.windows import period_end, period_name
from agentflow.errors import BudgetExceeded, UsageError
from agentflow.messages import TokenUsage

PERIODS: tuple[Period, ...] = ("hour", "day", "week", "month")
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("per", "name", "end"),
    [
        ("hour", "2026-12-31T23", "2027-01-01T00:00"),
        ("day", "2026-12-31", "2027-01-01T00:00"),
        ("week", "2026-W53", "2027-01-04T00:00"),
        ("month", "2026-12", "2027-01-01T00:00"),
    ],
)
def test_periods_are_those_of_the_calendar_in_utc(per: Period, name: str, end: str) -> None:
    at = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert period_name(per, at) == name
    assert period_end(per, at) == datetime.fromisoformat(end).replace(tzinfo=UTC)


@given(st.sampled_from(PERIODS), moments)
def test_a_period_ends_where_the_next_one_begins(per: Period, at: datetime) -> None:
    end = period_end(per, at)
    assert end > at
    assert period_name(per, end - timedelta(microseconds=1)) == period_name(per, at)
    assert period_name(per, at) < period_name(per, end)


class Calendar:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 23, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_a_day_has_its_own_budget_and_a_month_holds_over_all_its_days() -> None:
    calendar = Calendar()
    tenant = Meter("acme", [Budget(tokens=100, per="day"), Budget(tokens=150, per="month")], calendar=calendar)
    job = tenant.child("job")
    job.hold(Quote(tokens=100)).settle(Spend(1, TokenUsage(90)))
    with pytest.raises(BudgetExceeded, match=r"'acme@2026-11-21' has spent 90 tokens of 100"):
        job.hold(Quote(tokens=11))
    calendar.now += timedelta(hours=2)
    assert job.room().tokens == 60
    with pytest.raises(BudgetExceeded, match=r"'acme@2026-11' has spent 90 tokens of 150"):
        job.hold(Quote(tokens=61))
    assert [id for id, _ in job.recorded_limits] == ["acme/job", "acme", "acme@2026-11-22", "acme@2026-11"]
    assert tenant.spent.tokens == 90


def test_a_call_that_midnight_overtakes_is_charged_to_the_day_it_was_held_on() -> None:
    calendar = Calendar()
    tenant = Meter("acme", Budget(tokens=100, per="day"), calendar=calendar)
    hold = tenant.hold(Quote(tokens=100))
    calendar.now += timedelta(hours=2)
    hold.settle(Spend(1, TokenUsage(100)))
    assert tenant.room().tokens == 100


def test_a_clock_that_is_set_back_opens_no_spent_day_again() -> None:
    calendar = Calendar()
    tenant = Meter("acme", Budget(tokens=100, per="day"), calendar=calendar)
    calendar.now += timedelta(days=1)
    tenant.hold(Quote(tokens=100)).settle(Spend(1, TokenUsage(100)))
    calendar.now -= timedelta(days=30)
    with pytest.raises(BudgetExceeded):
        tenant.hold(Quote(tokens=1))


def test_limits_of_a_period_can_be_changed_and_two_for_one_period_cannot_be() -> None:
    tenant = Meter("acme", Budget(tokens=100, per="day"), calendar=Calendar())
    tenant.set_limits(Budget(tokens=200, per="day"))
    tenant.hold(Quote(tokens=200))
    with pytest.raises(UsageError, match="no budget per month"):
        tenant.set_limits(Budget(tokens=200, per="month"))
    with pytest.raises(UsageError, match="two budgets for the same period"):
        Meter("acme", [Budget(usd=1, per="day"), Budget(tokens=1, per="day")])
