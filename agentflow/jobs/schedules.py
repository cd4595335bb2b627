"""Schedules: jobs that are submitted again and again, at the times of a cron expression. Imports transitions, annex.

A schedule is a row beside the jobs, with the moment it is next due. Whichever worker sees that moment pass submits the
job and moves the row on, in one transaction: each due time gives one job, however many workers there are. What was due
while no worker ran is made up for once, by the latest time that was missed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa
from cronsim import CronSim, CronSimError
from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

from agentflow.errors import UsageError
from agentflow.jobs.annex import Annex
from agentflow.jobs.database import Database, now_ms
from agentflow.jobs.job import JobSpec, ask_for
from agentflow.jobs.naming import new_job_id
from agentflow.jobs.records import milliseconds, moment
from agentflow.jobs.transitions import Submission, submit

_LOG = logging.getLogger(__name__)
_metadata: Final = MetaData()
_schedule: Final = Table(
    "agentflow_schedule",
    _metadata,
    Column("name", Text, primary_key=True),
    # Its jobs' idempotency keys begin with it: one that is removed and made anew is another.
    Column("id", Text, nullable=False),
    Column("cron", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("within_ms", BigInteger),
    Column("next_ms", BigInteger, nullable=False),
    Column("last_job", Text),
)
Index("agentflow_schedule_due", _schedule.c.next_ms)
# How far back the latest missed time is looked for: the nearest first, because a schedule of every minute has many.
_BACK: Final = (timedelta(hours=1), timedelta(days=2), timedelta(days=64), timedelta(days=20_000))


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that is submitted again and again.

    Args:
        name: its own; its jobs have it in their metadata, as ``schedule``.
        cron: minute, hour, day of month, month, day of week: ``0 6 * * 1`` is Monday at six.
        timezone: whose clock that is, by its name in the tz database.
        spec: the job, without deadline and start.
        within_s: its deadline, so many seconds after it was due.
        next_run: when it is next due, in its time zone.
        last_job: the id of the latest job it gave.
    """

    name: str
    cron: str
    timezone: str
    spec: JobSpec
    within_s: float | None = None
    next_run: datetime | None = None
    last_job: str | None = None


class Schedules:
    """The schedules of one database.

    Args:
        database: the one of jobs, or another of the same address.
    """

    def __init__(self, database: Database) -> None:
        self._annex = Annex(database, _metadata)

    async def add(self, new: Schedule) -> Schedule:
        """Write a schedule down; it is first due at its next time from now on.

        Raises:
            UsageError: there is one of this name, its times or time zone cannot be, or its job has times of its own.
        """
        if new.spec.not_before is not None or new.spec.deadline is not None:
            raise UsageError(
                "A schedule's job starts when it is due. Leave its start out, and give its deadline as seconds."
            )
        metadata = {**new.spec.metadata, "schedule": new.name}
        spec = ask_for(**{**new.spec.model_dump(exclude_defaults=True), "metadata": metadata})

        def work(connection: sa.Connection) -> Schedule:
            if connection.execute(sa.select(_schedule.c.name).where(_schedule.c.name == new.name)).first() is not None:
                raise UsageError(f"There is a schedule '{new.name}' already. Remove it first, or choose another name.")
            due = next_after(new.cron, new.timezone, now_ms(connection))
            within_ms = None if new.within_s is None else int(new.within_s * 1000)
            row = {
                "name": new.name, "id": secrets.token_hex(8), "cron": new.cron, "timezone": new.timezone,
                "spec": spec.model_dump_json(exclude_defaults=True), "within_ms": within_ms, "next_ms": due,
            }  # fmt: skip
            connection.execute(_schedule.insert().values(row))
            return _view({**row, "last_job": None})

        return await self._annex.write(work)

    async def list(self) -> Sequence[Schedule]:
        """All of them, by name."""
        wanted = sa.select(_schedule).order_by(_schedule.c.name)
        return await self._annex.read(lambda c: [_view(row) for row in c.execute(wanted).mappings()])

    async def remove(self, name: str) -> None:
        """End a schedule; jobs that it gave go on.

        Raises:
            UsageError: there is none of this name.
        """
        gone = _schedule.delete().where(_schedule.c.name == name)
        if not await self._annex.write(lambda connection: connection.execute(gone).rowcount):
            raise UsageError(f"There is no schedule '{name[:80]}'. List them with: agentflow jobs schedule list.")

    async def submit_due(self) -> Sequence[str]:
        """Submit the jobs that are due; gives their ids. Any number of workers may call it at any time.

        Raises:
            JobStoreError: the database cannot be used; what is due stays due.
        """
        if not await self._annex.read(_anything_due):
            return ()
        return await self._annex.write(_submit_due)

    async def aclose(self) -> None:
        """Let go of the database. Closing twice changes nothing."""
        await self._annex.aclose()


def next_after(cron: str, timezone: str, ms: int) -> int:
    """The first time of a cron expression after a moment; both milliseconds since 1970.

    A time that the clock leaves out in spring is due when the clock has jumped; one that it shows twice in autumn is
    due once. Expressions with ``*`` hours or minutes follow the hours that really pass.

    Raises:
        UsageError: the expression or the time zone is none, or never comes.
    """
    now = datetime.fromtimestamp(ms / 1000, _zone(timezone))
    try:
        return milliseconds(next(CronSim(cron, now)))
    except CronSimError as error:
        raise UsageError(
            f"'{cron[:80]}' is no cron expression: {error}. Write minute, hour, day of month, month, day of week, "
            "as in '0 6 * * 1' for Mondays at six."
        ) from error
    except StopIteration:
        raise UsageError(f"'{cron[:80]}' never comes. Look at its day and month.") from None


def latest_until(cron: str, timezone: str, since_ms: int, ms: int) -> int:
    """The last time of an expression that is not after a moment, and not before an earlier time of it."""
    for back in _BACK:
        latest, start = None, max(since_ms, ms - int(back.total_seconds() * 1000))
        due = next_after(cron, timezone, start)
        while due <= ms:
            latest, due = due, next_after(cron, timezone, due)
        if latest is not None or start == since_ms:
            return latest or since_ms
    return since_ms


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"There is no time zone '{name[:80]}' on this machine. Name one as in Europe/Berlin, or install tzdata."
        ) from error


def _anything_due(connection: sa.Connection) -> bool:
    wanted = sa.select(_schedule.c.name).where(_schedule.c.next_ms <= now_ms(connection)).limit(1)
    return connection.execute(wanted).first() is not None


def _submit_due(connection: sa.Connection) -> list[str]:
    now = now_ms(connection)
    due = sa.select(_schedule).where(_schedule.c.next_ms <= now).with_for_update(skip_locked=True)
    submitted: list[str] = []
    for row in connection.execute(due).mappings().all():
        try:
            submitted.append(_submit(connection, row, now))
        except UsageError as error:
            # A machine without this time zone; others may have it, and the other schedules go on.
            _LOG.warning("Schedule %s: %s", row["name"], error)
    return submitted


def _submit(connection: sa.Connection, row: Any, now: int) -> str:
    """One job for all times of a schedule that have passed, and the schedule moved on."""
    latest = latest_until(row["cron"], row["timezone"], row["next_ms"], now)
    spec = JobSpec.model_validate_json(row["spec"])
    if row["within_ms"] is not None:
        spec = spec.model_copy(update={"deadline": moment(latest + row["within_ms"])})
    job = submit(connection, Submission(new_job_id(), spec, "", f"schedule/{row['id']}/{latest}"))
    following = next_after(row["cron"], row["timezone"], now)
    moved = _schedule.update().where(_schedule.c.name == row["name"]).values(next_ms=following, last_job=job.id)
    connection.execute(moved)
    return str(job.id)


def _view(row: Any) -> Schedule:
    next_run = datetime.fromtimestamp(row["next_ms"] / 1000, _zone(row["timezone"]))
    within_s = None if row["within_ms"] is None else row["within_ms"] / 1000
    spec = JobSpec.model_validate_json(row["spec"])
    return Schedule(row["name"], row["cron"], row["timezone"], spec, within_s, next_run, row["last_job"])
