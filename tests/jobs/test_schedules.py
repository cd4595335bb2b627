"""Schedules: each due time gives one job, whoever sees it; downtime gives one more at most; clocks that jump."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import UsageError
from agentflow.jobs.job import JobFilter, JobSpec, JobState
from agentflow.jobs.opening import open_database
from agentflow.jobs.schedules import Schedule, Schedules, _schedule, latest_until, next_after
from tests.jobs.places import Place, at_work, calls_of, until
from tests.servers.api import run

SPEC = JobSpec(kind="calls", query="again")


@pytest.fixture
async def schedules(any_place: Place) -> AsyncIterator[Schedules]:
    made = Schedules(open_database(any_place.settings.jobs))
    yield made
    await made.aclose()


async def set_next(schedules: Schedules, name: str, when: datetime) -> None:
    """As if the last worker had seen the schedule before then."""
    moved = sa.update(_schedule).where(_schedule.c.name == name).values(next_ms=int(when.timestamp() * 1000))
    await schedules._annex.write(lambda connection: connection.execute(moved))


async def test_a_due_time_gives_one_job_over_many_workers(any_place: Place, schedules: Schedules) -> None:
    added = await schedules.add(Schedule("hourly", "0 * * * *", "Europe/Berlin", SPEC, within_s=3600))
    assert added.next_run is not None and added.next_run.minute == 0 and await schedules.submit_due() == ()
    due = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    await set_next(schedules, "hourly", due)
    others = [Schedules(open_database(any_place.settings.jobs)) for _ in range(3)]
    seen = await asyncio.gather(*(each.submit_due() for each in (schedules, *others) for _ in range(5)))
    submitted = [job for ids in seen for job in ids]
    assert len(submitted) == 1
    for each in others:
        await each.aclose()
    jobs = any_place.jobs()
    view = await jobs.get(submitted[0])
    assert view.spec.metadata == {"schedule": "hourly"} and view.spec.deadline == due + timedelta(hours=1)
    (now,) = await schedules.list()
    assert now.last_job == view.id and now.next_run is not None and now.next_run > datetime.now(UTC)
    await jobs.aclose()


async def test_what_was_missed_is_made_up_for_once(any_place: Place, schedules: Schedules) -> None:
    await schedules.add(Schedule("minutely", "* * * * *", "UTC", SPEC, within_s=10**6))
    await set_next(schedules, "minutely", datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=30))
    (job,) = await schedules.submit_due()
    assert await schedules.submit_due() == ()
    jobs = any_place.jobs()
    view = await jobs.get(job)
    assert view.spec.deadline is not None
    missed = view.created - (view.spec.deadline - timedelta(seconds=10**6))
    assert timedelta(0) <= missed < timedelta(minutes=1), "the latest missed time"
    await jobs.aclose()


async def test_a_worker_runs_what_is_due(place: Place) -> None:
    schedules = Schedules(open_database(place.settings.jobs))
    await schedules.add(Schedule("calls", "0 0 1 1 *", "UTC", calls_of("scheduled", branches=1, calls=1)))
    await set_next(schedules, "calls", datetime.now(UTC) - timedelta(seconds=1))
    async with at_work(place) as (jobs, _):
        async with asyncio.timeout(20):
            while not (page := await jobs.list(JobFilter(metadata={"schedule": "calls"}))).jobs:
                await asyncio.sleep(0.05)
        assert (await until(jobs, page.jobs[0].id, JobState.COMPLETED)).state == JobState.COMPLETED
    await schedules.aclose()


async def test_a_schedule_that_cannot_be_is_refused(schedules: Schedules) -> None:
    for cron, zone, words in [
        ("every day", "UTC", "no cron expression"), ("0 0 30 2 *", "UTC", "cron|never comes"), ("", "UTC", "no cron"),
        ("61 * * * *", "UTC", "no cron expression"), ("0 6 * * *", "Mars/Olympus", "no time zone"),
        ("0 6 * * *", "../etc/passwd", "no time zone"), ("* * * * * * *", "UTC", "no cron"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=words):
            await schedules.add(Schedule("bad", cron, zone, SPEC))
    late = SPEC.model_copy(update={"not_before": datetime.now(UTC)})
    with pytest.raises(UsageError, match="starts when it is due"):
        await schedules.add(Schedule("bad", "* * * * *", "UTC", late))
    await schedules.add(Schedule("good", "0 6 * * 1", "UTC", SPEC))
    with pytest.raises(UsageError, match="already"):
        await schedules.add(Schedule("good", "0 7 * * 1", "UTC", SPEC))
    await schedules.remove("good")
    with pytest.raises(UsageError, match="no schedule 'good'"):
        await schedules.remove("good")
    assert await schedules.list() == []


def times(cron: str, zone: str, start: str, count: int) -> list[str]:
    """The next times of an expression, as the zone's clock shows them."""
    ms, found = int(datetime.fromisoformat(start).timestamp() * 1000), list[str]()
    for _ in range(count):
        ms = next_after(cron, zone, ms)
        found.append(datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)).isoformat(timespec="minutes"))
    return found


def test_a_clock_that_jumps_in_spring_skips_nothing() -> None:
    # 29 March 2026: 02:00 becomes 03:00 in Berlin.
    assert times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", 2) == [
        "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00",
    ]  # fmt: skip
    assert times("30 * * * *", "Europe/Berlin", "2026-03-29T01:00:00+01:00", 2) == [
        "2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00",
    ]  # fmt: skip


def test_a_clock_that_jumps_in_autumn_repeats_nothing_but_hours_that_pass() -> None:
    # 25 October 2026: 03:00 becomes 02:00 in Berlin.
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", 2) == [
        "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00",
    ]  # fmt: skip
    assert times("30 * * * *", "Europe/Berlin", "2026-10-25T01:00:00+02:00", 4) == [
        "2026-10-25T01:30+02:00", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00",
    ]  # fmt: skip


@given(
    st.sampled_from(["*/7 * * * *", "0 6 * * 1", "30 2 * * *", "0 0 1 * *", "15 */5 * * *", "0 0 29 2 *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2029, 1, 1)), st.integers(1, 400),
)  # fmt: skip
def test_times_rise_and_the_latest_missed_is_the_last_of_them(
    cron: str, zone: str, start: datetime, hours: int
) -> None:
    since = next_after(cron, zone, int(start.replace(tzinfo=UTC).timestamp() * 1000))
    until_ms = since + hours * 3_600_000
    found = [since]
    while (following := next_after(cron, zone, found[-1])) <= until_ms:
        found.append(following)
    assert all(a < b for a, b in pairwise(found))
    assert latest_until(cron, zone, since, until_ms) == found[-1]


def test_schedules_from_the_command_line(place: Place, tmp_path: Path) -> None:
    def schedule(*arguments: str, check: bool = True) -> Any:
        return run(tmp_path, "jobs", "schedule", *arguments, check=check)

    made = schedule("add", "weekly", "0 6 * * 1", "What changed?", "notes.md", "--timezone", "Europe/Berlin",
                    "--within", "3600", "--max-usd", "0.50")  # fmt: skip
    assert made.stdout.startswith("weekly: next 20") and "T06:00+0" in made.stdout
    listed = schedule("list").stdout
    assert "weekly  0 6 * * 1  Europe/Berlin" in listed and "What changed?" in listed
    assert f'"{tmp_path}/notes.md"' in schedule("list", "--json").stdout
    refused = schedule("add", "x", "monday", "Why?", check=False)
    assert refused.returncode == 2 and "no cron expression" in refused.stderr and "Traceback" not in refused.stderr
    assert schedule("remove", "weekly").stdout == "Removed: weekly\n" and "no schedule yet" in schedule("list").stdout
    elsewhere = run(tmp_path, "jobs", "--server", "http://127.0.0.1:9", "schedule", "list", check=False)
    assert elsewhere.returncode == 2 and "where the database is" in elsewhere.stderr
