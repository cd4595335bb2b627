"""Every change of a job's state, each in one transaction with the event that tells of it. Imports tables, records.

A worker writes under its fence: the ticket it took and its own name. Once a job has another ticket or another worker,
because this one was taken for dead, nothing the old one writes is let through. Each change may be made twice, because a
connection that breaks during a commit does not say whether it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from agentflow.errors import KeyReused
from agentflow.jobs.database import now_ms
from agentflow.jobs.job import KEPT, Artifact, JobBudget, JobFault, JobSpec, JobSpend, JobState, StopReason
from agentflow.jobs.plain import compact
from agentflow.jobs.records import Row, milliseconds, spend_text
from agentflow.jobs.statements import (
    Happening,
    append,
    assign,
    change,
    event_rows,
    fenced_rows,
    reports,
    row_of,
    was_written,
)
from agentflow.jobs.tables import artifact, job

# A step of priority is worth so much waiting: a job of priority 5 is overtaken by one that has waited 5 minutes more.
STEP_MS: Final = 60_000
WAITING: Final = (str(JobState.QUEUED), str(JobState.RECOVERING))
ENDED: Final = frozenset(str(state) for state in JobState if state.ended)


@dataclass(frozen=True, slots=True)
class Fence:
    """Which ticket of which job, and who took it."""

    job: str
    ticket: int
    worker: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A job that a worker has taken. ``earlier_run`` is the ledger's name of the process that had it before."""

    fence: Fence
    spec: JobSpec
    budget: JobBudget
    budget_changes: int
    approved: bool
    plan: str | None
    run: int
    failures: int
    earlier_run: str | None
    tried_again_ms: int
    deadline_ms: int | None
    now_ms: int
    wish: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run of a job ended. ``retry_ms`` asks for another try so much later, instead of an end."""

    state: JobState
    stop_reason: StopReason | None = None
    partial: bool = False
    error: JobFault | None = None
    spend: JobSpend | None = None
    artifacts: tuple[Artifact, ...] | None = None
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What is written of a job at work: events, and what they change in its row."""

    fence: Fence
    run: int
    happenings: Sequence[Happening] = ()
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    batch: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be written down: its id, what was asked, and the digest by which a repeated request is known."""

    id: str
    spec: JobSpec
    digest: str
    idempotency: str | None = None


def submit(connection: sa.Connection, new: Submission) -> Row:
    """Write a job down, or give back the one that is there already.

    Raises:
        KeyReused: the idempotency key came before with another request.
    """
    spec, tenant = new.spec, new.spec.tenant or ""
    if new.idempotency is not None:
        there = connection.execute(
            sa.select(job).where(job.c.tenant == tenant, job.c.idempotency == new.idempotency)
        ).first()
        if there is not None and there.digest != new.digest:
            raise KeyReused("This idempotency key came with another request before. Use a new key for a new request.")
        if there is not None:
            return there
    if spec.dedup_key is not None:
        there = connection.execute(sa.select(job).where(job.c.tenant == tenant, job.c.dedup == spec.dedup_key)).first()
        if there is not None:
            return there
    written = row_of(connection, new.id)
    if written is not None:
        return written
    now = now_ms(connection)
    starts = now if spec.not_before is None else max(now, milliseconds(spec.not_before))
    connection.execute(
        job.insert().values(
            id=new.id, tenant=tenant, kind=spec.kind, queue=spec.queue, state=str(JobState.QUEUED),
            spec=spec.model_dump_json(exclude_defaults=True), budget=spec.budget.model_dump_json(exclude_defaults=True),
            created_ms=now, next_ms=starts, turn_ms=starts - spec.priority * STEP_MS,
            deadline_ms=None if spec.deadline is None else milliseconds(spec.deadline),
            dedup=spec.dedup_key, idempotency=new.idempotency, digest=new.digest,
        )
    )  # fmt: skip
    tell(connection, new.id, 0, [("state", {"state": str(JobState.QUEUED), "kind": spec.kind, "query": spec.query})])
    submitted = row_of(connection, new.id)
    assert submitted is not None
    return submitted


def take(connection: sa.Connection, fence: Fence, ledger_run: str) -> Taken | None:
    """Take a job with a ticket, if the ticket is still good."""
    row = _row(connection, fence.job)
    if row is None or row.ticket != fence.ticket or row.ticketed_by is None:
        # A ticket is void from when its job was taken away until the next one is written.
        return None
    mine = row.worker == fence.worker
    if not mine and (row.state not in WAITING or row.worker is not None):
        return None
    if not reports(connection, fence.worker):
        # Taken for dead, and not back yet: nobody would miss it.
        return None
    now, run = now_ms(connection), row.runs
    if not mine:
        run += 1
        told = ("state", {"state": str(JobState.PLANNING), "worker": fence.worker})
        values = {"worker": fence.worker, "ledger_run": ledger_run, "state": str(JobState.PLANNING), "runs": run}
        change(connection, fence.job, run, [told], {**values, "started_ms": row.started_ms or now})
    spec = JobSpec.model_validate_json(row.spec, context=KEPT)
    return Taken(
        fence, spec, JobBudget.model_validate_json(row.budget), row.budget_changes, row.approved, row.plan, run,
        row.failures, row.ledger_run, row.tried_again_ms, row.deadline_ms, now, row.wish,
    )  # fmt: skip


def progress(connection: sa.Connection, all_of_it: Sequence[Progress], *, again: bool = False) -> set[Fence]:
    """Write what jobs at work tell, all of it with a few statements.

    Args:
        connection: in a transaction.
        all_of_it: of each job once.
        again: it was tried before, and may be written.

    Returns:
        The fences that no longer hold; nothing was written under these.
    """
    if again:
        all_of_it = [one for one in all_of_it if not was_written(connection, one.fence.job, one.batch)]
    rows = {row.id: row for row in fenced_rows(connection, [one.fence.job for one in all_of_it])}
    fenced: set[Fence] = set()
    events: list[dict[str, Any]] = []
    changes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in all_of_it:
        row = rows.get(one.fence.job)
        if row is None or (row.ticket, row.worker) != (one.fence.ticket, one.fence.worker):
            fenced.add(one.fence)
            continue
        events += event_rows(row.id, one.run, row.events + 1, row.now_ms, one.happenings, one.batch)
        values = {**one.changes, "events": row.events + len(one.happenings)}
        changes.setdefault(tuple(values), []).append({"id": row.id, **values})
    for columns, values in changes.items():
        assign(connection, columns, values)
    append(connection, events)
    return fenced


def finish(connection: sa.Connection, fence: Fence, run: int, ending: Ending) -> bool:
    """End a run of a job.

    Returns:
        Whether the fence held; else nothing was written.
    """
    row = _row(connection, fence.job)
    if row is None or row.ticket != fence.ticket or row.worker not in (fence.worker, None):
        return False
    if row.worker is None:
        # Written before, by a commit whose answer was lost; or taken from this worker.
        return row.state == str(ending.state) and row.ended_ms is not None
    if ending.artifacts is not None:
        if row.has_result:
            connection.execute(artifact.delete().where(artifact.c.job == fence.job))
        kept = [
            {**one.model_dump(exclude={"facts"}), "job": fence.job, "facts": compact(dict(one.facts))}
            for one in ending.artifacts
        ]
        if kept:
            connection.execute(artifact.insert(), kept)
    has_result = row.has_result if ending.artifacts is None else bool(ending.artifacts)
    values: dict[str, Any] = {"has_result": has_result, "partial": ending.partial and has_result}
    if ending.spend is not None:
        values["spend"] = spend_text(ending.spend)
    if ending.error is not None:
        values["failures"] = row.failures + 1
    if ending.retry_ms is not None:
        now = now_ms(connection)
        values |= {"next_ms": now + ending.retry_ms, "tried_again_ms": now, "turn_ms": row.turn_ms + ending.retry_ms}
    state, reason, error = ending.state, ending.stop_reason, ending.error
    if row.wish == "stop" and not state.ended and (has_result or str(state) not in WAITING):
        # Somebody asked for what there is, a moment too late for the run to see it.
        state, reason, error, values["partial"] = JobState.COMPLETED, StopReason.STOPPED, None, has_result
    leave(connection, row, run, state, reason, error, **values)
    return True


def hand_back(connection: sa.Connection, fence: Fence, run: int, why: str) -> bool:
    """Let another worker go on: this one ends."""
    row = _row(connection, fence.job)
    if row is None or row.ticket != fence.ticket or row.worker != fence.worker:
        return False
    leave(connection, row, run, JobState.RECOVERING, note=why)
    return True


def decline(connection: sa.Connection, id: str, ticket: int) -> None:
    """Give a ticket back that was not used."""
    connection.execute(
        job.update()
        .where(job.c.id == id, job.c.ticket == ticket, job.c.worker.is_(None))
        .values(ticketed_by=None, ticketed_ms=None)
    )


def lose(connection: sa.Connection, row: Row, most: int) -> None:
    """A job's worker is dead: let another go on, or give up when it happened more often than ``most`` times."""
    if row.recoveries >= most:
        message = f"Its worker died {row.recoveries + 1} times over it. Look at the worker's log, then resume it."
        error = JobFault(message=message, retryable=True, dead_letter=True)
        leave(
            connection, row, row.runs, JobState.FAILED, StopReason.ERROR, error,
            recoveries=row.recoveries + 1, partial=row.has_result,
        )  # fmt: skip
    else:
        note = f"worker {row.worker} is gone"
        leave(connection, row, row.runs, JobState.RECOVERING, note=note, recoveries=row.recoveries + 1)


def expire(connection: sa.Connection, row: Row) -> None:
    """The deadline of a job passed while nobody had it at work."""
    error = None
    if not row.has_result:
        before = {
            JobState.AWAITING_APPROVAL: "its plan was approved. Resume it, then approve its plan",
            JobState.PAUSED_BUDGET: "its budget was raised. Raise it, then resume it",
        }.get(JobState(row.state), "a worker was free. Resume it, or add workers")
        error = JobFault(message=f"Its deadline passed before {before}.")
    state = JobState.COMPLETED if row.has_result else JobState.FAILED
    leave(connection, row, 0, state, StopReason.DEADLINE, error, partial=row.has_result)


def tell(connection: sa.Connection, id: str, run: int, happenings: Sequence[Happening]) -> None:
    """Append events to a job's log."""
    change(connection, id, run, happenings)


def leave(
    connection: sa.Connection,
    row: Row,
    run: int,
    state: JobState,
    stop_reason: StopReason | None = None,
    error: JobFault | None = None,
    *,
    note: str | None = None,
    **values: Any,
) -> None:
    """A job's worker, if it has one, has it no longer."""
    told: dict[str, Any] = {"state": str(state)}
    if stop_reason is not None:
        told["stop_reason"] = str(stop_reason)
    if error is not None:
        told["error"] = error.message
    if values.get("partial"):
        told["partial"] = True
    if note is not None:
        told["note"] = note
    ended = str(state) in ENDED
    change(
        connection, row.id, run, [("state", told)],
        {
            "state": str(state), "worker": None, "ticketed_by": None, "ticketed_ms": None,
            # Whoever goes on with it has to heed it.
            "wish": row.wish if str(state) in WAITING else None,
            "stop_reason": None if stop_reason is None else str(stop_reason),
            "error": None if error is None else error.model_dump_json(),
            "dead_letter": error is not None and error.dead_letter,
            "ended_ms": now_ms(connection) if ended else None,
            "dedup": None if ended else row.dedup,
            **values,
        },
    )  # fmt: skip


def _row(connection: sa.Connection, id: str) -> Row | None:
    return row_of(connection, id, lock=True)
