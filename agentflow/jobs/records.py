"""Reading jobs, events and artifacts: rows of the database as what ``job`` defines. Imports tables, job."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from agentflow.errors import UnknownJob, UsageError
from agentflow.jobs.database import now_ms
from agentflow.jobs.job import (
    KEPT,
    Artifact,
    JobBudget,
    JobEvent,
    JobFault,
    JobFilter,
    JobPage,
    JobSpec,
    JobSpend,
    JobState,
    JobStatistics,
    JobView,
    QueueStatistics,
)
from agentflow.jobs.plain import holds_zero
from agentflow.jobs.statements import row_of
from agentflow.jobs.tables import MOVES, artifact, event, job, worker

Row = sa.Row[Any]
LONGEST_PAGE: Final = 500
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_POSITION: Final = re.compile(r"[0-9]{1,15}:[A-Za-z0-9-]{1,64}")
_WAITING: Final = (str(JobState.QUEUED), str(JobState.RECOVERING))


def moment(ms: int | None) -> datetime | None:
    """Milliseconds since 1970 as a time."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def milliseconds(when: datetime) -> int:
    """A time as milliseconds since 1970."""
    return int(when.timestamp() * 1000)


def view_of(row: Row) -> JobView:
    """A row as everybody sees it."""
    spec = JobSpec.model_validate_json(row.spec, context=KEPT)
    created, next_run = moment(row.created_ms), moment(row.next_ms)
    assert created is not None
    waits = row.state in _WAITING and row.next_ms > row.created_ms
    return JobView(
        id=row.id,
        state=JobState(row.state),
        stop_reason=row.stop_reason,
        partial=row.partial,
        has_result=row.has_result,
        error=None if row.error is None else JobFault.model_validate_json(row.error),
        spec=spec.model_copy(update={"budget": JobBudget.model_validate_json(row.budget)}),
        spend=JobSpend() if row.spend is None else JobSpend.model_validate_json(row.spend),
        plan=None if row.plan is None else tuple(json.loads(row.plan)),
        created=created,
        started=moment(row.started_ms),
        ended=moment(row.ended_ms),
        next_run=next_run if waits else None,
        runs=row.runs,
        failures=row.failures,
        recoveries=row.recoveries,
        worker=row.worker,
        events=row.events,
    )


def find(connection: sa.Connection, id: str, tenant: str | None, *, lock: bool = False) -> Row:
    """The row of a job that whoever asks may see.

    Raises:
        UnknownJob: there is none.
    """
    row = row_of(connection, id, lock=lock) if _ID.fullmatch(id) else None
    if row is None or (tenant is not None and row.tenant != tenant):
        raise UnknownJob(f"There is no job {id[:80]!a}. List those there are with: agentflow jobs list.")
    return row


def find_by_key(connection: sa.Connection, idempotency_key: str, tenant: str | None) -> Row | None:
    """The row of the job that was submitted with a key."""
    query = sa.select(job).where(job.c.tenant == (tenant or ""), job.c.idempotency == idempotency_key)
    return connection.execute(query).first()


def page(connection: sa.Connection, which: JobFilter, cursor: str | None, limit: int) -> JobPage:
    """Jobs, newest first.

    Raises:
        UsageError: the cursor is none, or the limit is out of bounds.
    """
    if not 1 <= limit <= LONGEST_PAGE:
        raise UsageError(f"A page has 1 to {LONGEST_PAGE} jobs, not {limit}.")
    if holds_zero(which.model_dump()):
        return JobPage(jobs=())
    query = sa.select(job).order_by(job.c.created_ms.desc(), job.c.id.desc()).limit(limit + 1)
    query = query.where(*_conditions(connection, which))
    if cursor is not None:
        query = query.where(sa.tuple_(job.c.created_ms, job.c.id) < sa.tuple_(*map(sa.literal, _position(cursor))))
    rows = connection.execute(query).all()
    more = len(rows) > limit
    after = _cursor(rows[limit - 1]) if more else None
    return JobPage(jobs=tuple(view_of(row) for row in rows[:limit]), cursor=after)


def events(connection: sa.Connection, id: str, since: int, most: int) -> list[JobEvent]:
    """Events of a job after a number, in order."""
    query = sa.select(event).where(event.c.job == id, event.c.number > since).order_by(event.c.number).limit(most)
    return [event_of(row) for row in connection.execute(query)]


def event_of(row: Row) -> JobEvent:
    """A row of the log."""
    time = moment(row.time_ms)
    assert time is not None
    return JobEvent(number=row.number, time=time, kind=row.kind, run=row.run, data=json.loads(row.data))


def artifacts(connection: sa.Connection, id: str, name: str | None = None) -> list[Artifact]:
    """What a job keeps, by name."""
    query = sa.select(artifact).where(artifact.c.job == id).order_by(artifact.c.name)
    if name is not None:
        query = query.where(artifact.c.name == name)
    return [
        Artifact(
            name=row.name, role=row.role, media_type=row.media_type, size=row.size, sha256=row.sha256,
            facts=json.loads(row.facts),
        )
        for row in connection.execute(query)
    ]  # fmt: skip


def source_bytes(connection: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
    """Bytes of text that each of these jobs has read."""
    chosen = sa.select(artifact.c.job, sa.func.sum(artifact.c.size)).where(artifact.c.job.in_(ids))
    rows = connection.execute(chosen.where(artifact.c.role == "source").group_by(artifact.c.job))
    return {row[0]: int(row[1]) for row in rows}


def ended_before(connection: sa.Connection, days: float, most: int) -> list[str]:
    """Jobs that ended more than so many days ago, the oldest first."""
    since = now_ms(connection) - int(days * 86_400_000)
    query = sa.select(job.c.id).where(job.c.ended_ms < since).order_by(job.c.ended_ms).limit(most)
    return list(connection.execute(query).scalars())


def statistics(connection: sa.Connection) -> JobStatistics:
    """Queues and workers at this moment."""
    now = now_ms(connection)
    waits = job.c.state.in_(_WAITING) & job.c.worker.is_(None)
    ready = waits & (job.c.next_ms <= now)
    rows = connection.execute(
        sa.select(
            job.c.queue,
            sa.func.count().filter(waits).label("waiting"),
            sa.func.count().filter(job.c.worker.is_not(None)).label("at_work"),
            sa.func.min(job.c.next_ms).filter(ready).label("oldest"),
        )
        .where(sa.text(MOVES))
        .group_by(job.c.queue)
        .order_by(job.c.queue)
    )
    queues = tuple(
        QueueStatistics(
            queue=row.queue, waiting=row.waiting, at_work=row.at_work,
            oldest_s=None if row.oldest is None else max(now - row.oldest, 0) / 1000,
        )
        for row in rows
    )  # fmt: skip
    return JobStatistics(queues=queues, workers=tuple(connection.execute(sa.select(worker.c.id)).scalars()))


def _conditions(connection: sa.Connection, which: JobFilter) -> Sequence[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    for column, wanted in ((job.c.tenant, which.tenant), (job.c.kind, which.kind), (job.c.queue, which.queue)):
        if wanted is not None:
            conditions.append(column == wanted)
    if which.states:
        conditions.append(job.c.state.in_([str(state) for state in which.states]))
    if which.dead_letter is not None:
        conditions.append(job.c.dead_letter.is_(which.dead_letter))
    if which.created_after is not None:
        conditions.append(job.c.created_ms > milliseconds(which.created_after))
    if which.created_before is not None:
        conditions.append(job.c.created_ms < milliseconds(which.created_before))
    for name, value in which.metadata.items():
        conditions.append(_metadata(connection, name) == value)
    return conditions


def _metadata(connection: sa.Connection, name: str) -> sa.ColumnElement[str]:
    if connection.dialect.name == "sqlite":
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return sa.func.json_extract(job.c.spec, f'$.metadata."{quoted}"')
    return sa.func.jsonb_extract_path_text(sa.cast(job.c.spec, JSONB), "metadata", name)


def _cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(f"{row.created_ms}:{row.id}".encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[int, str]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
        if not _POSITION.fullmatch(text):
            raise ValueError(text)
        created, _, id = text.partition(":")
        return int(created), id
    except (binascii.Error, ValueError):
        raise UsageError("The cursor is none that a page gave. Begin again without one.") from None


def spend_text(spend: JobSpend) -> str:
    """A spend as it stands in a row."""
    return spend.model_dump_json(exclude_defaults=True)
