"""The outbox: which jobs are watched, and what is still to be delivered. Durable; any number of servers share one.

A delivery that failed is tried again 5 s, 20 s, 80 s ... later, nine times in all over about thirty hours; then it is
dead, and left for a person. Imports annex, tables, sending, jobs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from agentflow.errors import AgentflowError, JobStoreError, UnknownJob, UsageError
from agentflow.jobs.annex import Annex, insert_once
from agentflow.jobs.job import JobState, JobView
from agentflow.jobs.service import Jobs
from agentflow.jobs.tables import job as jobs_table
from agentflow.jobs.tenants import Tenants
from agentflow.server.research.models import ResearchView
from agentflow.server.tables import delivery, watch
from agentflow.server.webhooks.sending import Answer, Message, send

MOST_TRIES: Final = 9
_FIRST_WAIT_S: Final = 5.0
_EVERY_S: Final = 0.5
_AT_ONCE: Final = 16
# Of one tenant: its receivers may be slow, and the others' are not.
_OF_ONE: Final = 6
_MANY: Final = 200
# While one server delivers, others leave a message alone.
_LEASE_MS: Final = 60_000
# A job in one of these has something to tell.
_STANDING: Final = tuple(str(state) for state in JobState if not state.moves)
# Whoever signs in without a key has a secret too.
_LOCAL: Final = "local"
_log = logging.getLogger("agentflow.server.webhooks")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message: ``state`` is due, delivered or dead, ``answer`` what its last attempt came to."""

    id: str
    job: str
    tenant: str
    url: str
    state: str
    tries: int
    answer: str
    due_ms: int
    created_ms: int


class Outbox:
    """Watches jobs, and delivers.

    Args:
        annex: the server's tables.
        jobs: whose ends are told.
        tenants: whose secrets sign.
        allow_private: deliver to private addresses too.
    """

    def __init__(self, annex: Annex, jobs: Jobs, tenants: Tenants, *, allow_private: bool) -> None:
        self._annex = annex
        self._jobs = jobs
        self._tenants = tenants
        self._allow_private = allow_private

    async def watch(self, job: str, tenant: str, url: str) -> None:
        """Tell this address when the job ends or waits for a person. A job has one such address: the first.

        Raises:
            JobStoreError: it could not be written.
        """

        def work(connection: sa.Connection) -> None:
            known = connection.execute(sa.select(delivery.c.id).where(delivery.c.job == job).limit(1)).first()
            if known is None:
                insert_once(connection, watch, {"job": job, "tenant": tenant, "url": url, "told": ""})

        await self._annex.write(work)

    async def forget(self, job: str) -> None:
        """Drop what belongs to a job that was deleted."""

        def work(connection: sa.Connection) -> None:
            connection.execute(watch.delete().where(watch.c.job == job))
            connection.execute(delivery.delete().where(delivery.c.job == job))

        await self._annex.write(work)

    async def list(self, state: str | None = None, *, most: int = 100) -> Sequence[Delivery]:
        """Deliveries, the newest first; only those of a state when one is given."""
        wanted = sa.select(delivery).order_by(delivery.c.created_ms.desc()).limit(most)
        if state is not None:
            wanted = wanted.where(delivery.c.state == state)
        return await self._annex.read(lambda c: [_delivery(row) for row in c.execute(wanted).mappings()])

    async def retry(self, id: str) -> None:
        """Try a delivery again from now on.

        Raises:
            UsageError: there is none of this id.
        """
        again = delivery.update().where(delivery.c.id == id).values(state="due", due_ms=_now_ms(), tries=0)
        if not await self._annex.write(lambda c: c.execute(again).rowcount):
            raise UsageError(f"There is no delivery '{id[:60]}'. List them with: agentflow webhooks list.")

    async def run(self) -> None:
        """Watch and deliver until cancelled. A receiver that is slow keeps no other tenant's message waiting."""
        under_way: dict[asyncio.Task[None], Any] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._note()
                    for row in _startable(await self._annex.read(_due), list(under_way.values())):
                        under_way[group.create_task(self._deliver_safely(row))] = row
                except AgentflowError as error:
                    _log.warning("%s Webhooks are sent later.", error)
                except Exception:
                    # A defect here must not take the server with it.
                    _log.exception("Webhooks cannot be sent now.")
                if under_way:
                    await asyncio.wait(under_way, timeout=_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                    under_way = {task: row for task, row in under_way.items() if not task.done()}
                else:
                    await asyncio.sleep(_EVERY_S)

    async def step(self) -> None:
        """Write down what has happened to watched jobs, then deliver what is due, as much as is sent at once."""
        await self._note()
        async with asyncio.TaskGroup() as group:
            for row in _startable(await self._annex.read(_due), []):
                group.create_task(self._deliver(row))

    async def sweep(self) -> None:
        """Drop the messages of jobs that are no more: whoever deletes a job deletes what was told of it."""
        kept = sa.select(jobs_table.c.id)
        await self._annex.write(lambda c: c.execute(delivery.delete().where(delivery.c.job.not_in(kept))))

    async def _note(self) -> None:
        for row in await self._annex.read(_changed):
            job, state = row["job"], row["state"]
            try:
                if state is None:
                    await self.forget(job)
                elif state in _STANDING:
                    await self._post(row)
                else:
                    # It goes on after a person has looked: the next time it waits is another event.
                    told = watch.update().where(watch.c.job == job).values(told="")
                    await self._annex.write(lambda c, told=told: c.execute(told))
            except JobStoreError:
                raise
            except Exception:
                _log.exception("Of the job '%s' nothing can be told now.", job)

    async def _post(self, row: Any) -> None:
        """Put a message about a job into the outbox, in one transaction with what was told of it."""
        try:
            job = await self._jobs.get(row["job"])
        except UnknownJob:
            return
        told, now = row["told"], _now_ms()
        this = sa.and_(watch.c.job == job.id, watch.c.told == told)
        message = {
            "id": f"msg_{secrets.token_hex(12)}", "job": job.id, "tenant": row["tenant"], "url": row["url"],
            "body": body_of(job), "state": "due", "due_ms": now, "tries": 0, "answer": "", "created_ms": now,
        }  # fmt: skip

        def work(connection: sa.Connection) -> None:
            done = watch.delete().where(this) if job.state.ended else watch.update().where(this).values(told=job.state)
            if connection.execute(done).rowcount:
                connection.execute(delivery.insert().values(message))

        await self._annex.write(work)

    async def _deliver_safely(self, row: Any) -> None:
        try:
            await self._deliver(row)
        except AgentflowError as error:
            _log.warning("%s The message %s is sent later.", error, row["id"])
        except Exception:
            _log.exception("The message %s cannot be sent now.", row["id"])

    async def _deliver(self, row: Any) -> None:
        claim = delivery.update().where(_claimable(row)).values(due_ms=_now_ms() + _LEASE_MS)
        if not await self._annex.write(lambda c: c.execute(claim).rowcount):
            return
        signing = await self._tenants.webhook_secrets(row["tenant"] or _LOCAL)
        message = Message(row["id"], row["url"], row["body"], signing)
        answer = await send(message, allow_private=self._allow_private)
        ended = delivery.update().where(delivery.c.id == row["id"]).values(_after(answer, row["tries"] + 1))
        await self._annex.write(lambda c: c.execute(ended))


def body_of(job: JobView) -> str:
    """The message about a job: its state and where the rest is, never what it found."""
    view = ResearchView.of(job)
    kept = {"id", "status", "stop_reason", "partial", "has_result", "error", "urls", "spend", "metadata"}
    return json.dumps(
        {
            "type": f"research.{job.state}",
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": view.model_dump(mode="json", include=kept),
        },
        separators=(",", ":"),
    )


def secret_owner(tenant: str | None) -> str:
    """Under which tenant's secret the webhooks of a caller are signed."""
    return tenant or _LOCAL


def _after(answer: Answer, tries: int) -> dict[str, Any]:
    if answer.taken:
        return {"state": "delivered", "tries": tries, "answer": answer.said}
    if answer.hopeless or tries >= MOST_TRIES:
        return {"state": "dead", "tries": tries, "answer": answer.said}
    wait_s = _FIRST_WAIT_S * 4 ** (tries - 1) * random.uniform(0.8, 1.2)
    return {"tries": tries, "answer": answer.said, "due_ms": _now_ms() + int(wait_s * 1_000)}


def _changed(connection: sa.Connection) -> list[Any]:
    """Watches of jobs that stand otherwise than was told, with the job's state: none of those that merely go on."""
    state = jobs_table.c.state
    wanted = (
        sa.select(watch, state)
        .select_from(watch.outerjoin(jobs_table, jobs_table.c.id == watch.c.job))
        .where(
            sa.or_(
                state.is_(None),
                sa.and_(state.in_(_STANDING), state != watch.c.told),
                sa.and_(state.not_in(_STANDING), watch.c.told != ""),
            )
        )
        .limit(_MANY)
    )
    return list(connection.execute(wanted).mappings())


def _due(connection: sa.Connection) -> list[Any]:
    """What is to be sent now, the longest due first; of each tenant no more than is sent at once."""
    rank = sa.func.row_number().over(partition_by=delivery.c.tenant, order_by=delivery.c.due_ms)
    due = sa.select(delivery, rank.label("rank")).where(delivery.c.state == "due", delivery.c.due_ms <= _now_ms())
    ranked = due.subquery()
    wanted = sa.select(ranked).where(ranked.c.rank <= 2 * _OF_ONE).order_by(ranked.c.rank, ranked.c.due_ms)
    return list(connection.execute(wanted.limit(_MANY)).mappings())


def _startable(due: Sequence[Any], under_way: Sequence[Any]) -> Sequence[Any]:
    """Those that may be sent beside what is under way: so many in all, and so many of each tenant."""
    chosen, ids = list[Any](), {row["id"] for row in under_way}
    of_tenant = Counter(row["tenant"] for row in under_way)
    for row in due:
        if len(ids) < _AT_ONCE and of_tenant[row["tenant"]] < _OF_ONE and row["id"] not in ids:
            chosen.append(row)
            ids.add(row["id"])
            of_tenant[row["tenant"]] += 1
    return chosen


def _claimable(row: Any) -> sa.ColumnElement[bool]:
    """Still as it was read: nobody else has claimed it."""
    return sa.and_(delivery.c.id == row["id"], delivery.c.state == "due", delivery.c.due_ms == row["due_ms"])


def _delivery(row: Any) -> Delivery:
    names = ("id", "job", "tenant", "url", "state", "tries", "answer", "due_ms", "created_ms")
    return Delivery(**{name: row[name] for name in names})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
