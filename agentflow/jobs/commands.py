"""Commands: what people do to a job, each in one transaction with the event that tells of it. Imports transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from agentflow.errors import JobStateConflict
from agentflow.jobs.database import now_ms
from agentflow.jobs.job import KEPT, JobBudget, JobSpec, JobState, StopReason
from agentflow.jobs.plain import compact
from agentflow.jobs.records import Row, find
from agentflow.jobs.statements import change
from agentflow.jobs.tables import artifact, event, job
from agentflow.jobs.transitions import ENDED, STEP_MS, WAITING, leave

# What stands under ``wish`` of a job that is being deleted.
DELETE: Final = "delete"


def cancel(connection: sa.Connection, id: str, tenant: str | None) -> bool:
    """End a job and drop its result; its worker finds its fence gone. False when it had ended already."""
    row = find(connection, id, tenant, lock=True)
    if row.state in ENDED:
        return False
    connection.execute(artifact.delete().where(artifact.c.job == id))
    leave(
        connection, row, row.runs if row.worker else 0, JobState.CANCELLED, StopReason.CANCELLED,
        has_result=False, partial=False,
    )  # fmt: skip
    return True


def stop(connection: sa.Connection, id: str, tenant: str | None) -> None:
    """Ask for what there is; a job that nobody has at work ends at once, with the result it has.

    One that has no result yet, but was at work, ends with what its next run finds in the ledger.
    """
    row = find(connection, id, tenant, lock=True)
    if row.state in ENDED:
        return
    if row.worker is not None or (row.state in WAITING and row.runs and not row.has_result):
        if row.wish is None:
            values = {"wish": "stop", "next_ms": min(row.next_ms, now_ms(connection))}
            run = row.runs if row.worker else 0
            change(connection, id, run, [("note", {"note": "asked to finish early"})], values)
        return
    leave(connection, row, 0, JobState.COMPLETED, StopReason.STOPPED, partial=row.has_result)


def resume(connection: sa.Connection, id: str, tenant: str | None) -> None:
    """Queue a failed or paused job again.

    Raises:
        JobStateConflict: it is neither, is being deleted, or another job has its ``dedup_key`` by now.
    """
    row = find(connection, id, tenant, lock=True)
    if row.state in WAITING:
        return
    if row.state not in (str(JobState.FAILED), str(JobState.PAUSED_BUDGET)):
        raise JobStateConflict(
            f"The job '{id}' is {row.state}: only one that failed or is paused can be resumed. "
            "Submit it anew for another result."
        )
    if row.wish == DELETE:
        raise JobStateConflict(f"The job '{id}' is being deleted. Submit it anew.")
    now = now_ms(connection)
    late = row.deadline_ms is not None and row.deadline_ms <= now
    # What failed before this moment may be tried again; what was finished is replayed.
    _queue(
        connection, row, failures=0, recoveries=0, tried_again_ms=now, deadline_ms=None if late else row.deadline_ms,
        dedup=_free_key(connection, row),
    )  # fmt: skip


def approve(connection: sa.Connection, id: str, tenant: str | None, plan: Sequence[str] | None) -> None:
    """Let a job go on with its plan, or with another one.

    Raises:
        JobStateConflict: it does not wait for that.
    """
    row = find(connection, id, tenant, lock=True)
    if row.approved and plan is None:
        return
    if row.state != str(JobState.AWAITING_APPROVAL):
        raise JobStateConflict(f"The job '{id}' is {row.state}: it does not wait for its plan to be approved.")
    changed = {} if plan is None else {"plan": compact(list(plan))}
    _queue(connection, row, approved=True, **changed)


def set_budget(connection: sa.Connection, id: str, tenant: str | None, budget: JobBudget) -> None:
    """Give a job other limits.

    Raises:
        JobStateConflict: it has ended for good.
    """
    row = find(connection, id, tenant, lock=True)
    if row.state in (str(JobState.COMPLETED), str(JobState.CANCELLED)):
        raise JobStateConflict(f"The job '{id}' is {row.state}: nothing more will be spent. Submit another one.")
    limits = budget.model_dump(mode="json", exclude_none=True)
    values = {"budget": budget.model_dump_json(exclude_defaults=True), "budget_changes": row.budget_changes + 1}
    told = ("budget", {"change": "limits", "limits": limits})
    change(connection, id, row.runs if row.worker else 0, [told], values)


def doom(connection: sa.Connection, id: str) -> None:
    """From now on a job that has ended can only be deleted: while its files go, nobody resumes it.

    Raises:
        JobStateConflict: it has not ended.
        UnknownJob: there is none.
    """
    row = find(connection, id, None, lock=True)
    if row.state not in ENDED:
        raise JobStateConflict(f"The job '{id}' is {row.state}. Cancel it first, then delete it.")
    connection.execute(job.update().where(job.c.id == id).values(wish=DELETE))


def delete(connection: sa.Connection, id: str) -> None:
    """Remove every row of a job that has ended.

    Raises:
        JobStateConflict: it has not ended.
        UnknownJob: there is none.
    """
    row = find(connection, id, None, lock=True)
    if row.state not in ENDED:
        raise JobStateConflict(f"The job '{id}' is {row.state}. Cancel it first, then delete it.")
    for table in (artifact, event):
        connection.execute(table.delete().where(table.c.job == id))
    connection.execute(job.delete().where(job.c.id == id))


def _queue(connection: sa.Connection, row: Row, **values: Any) -> None:
    now = now_ms(connection)
    priority = JobSpec.model_validate_json(row.spec, context=KEPT).priority
    change(
        connection, row.id, 0, [("state", {"state": str(JobState.QUEUED)})],
        {
            "state": str(JobState.QUEUED), "stop_reason": None, "error": None, "dead_letter": False, "ended_ms": None,
            "next_ms": now, "turn_ms": now - priority * STEP_MS, "wish": None, **values,
        },
    )  # fmt: skip


def _free_key(connection: sa.Connection, row: Row) -> str | None:
    """The key by which a job is known while it has not ended, if no other job has it.

    Raises:
        JobStateConflict: one has.
    """
    key = JobSpec.model_validate_json(row.spec, context=KEPT).dedup_key
    if key is None:
        return None
    other = connection.execute(sa.select(job.c.id).where(job.c.tenant == row.tenant, job.c.dedup == key)).scalar()
    if other is not None and other != row.id:
        raise JobStateConflict(
            f"The job '{other}' has the same dedup_key and has not ended. Wait for it, or cancel it."
        )
    return key
