"""Tickets: which waiting jobs may start now, in which order, under which limits. Imports tables, transitions.

A job's turn is the moment it was submitted, moved back by its priority. So a job of low priority is overtaken only by
those that came soon enough after it, and none starves. Whoever hands out tickets is alone in it (``take_turns``), so
that limits over all workers hold exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from agentflow.jobs.database import now_ms, take_turns
from agentflow.jobs.engine import Ticket, ticket_id
from agentflow.jobs.records import Row
from agentflow.jobs.statements import LOST_MS
from agentflow.jobs.tables import STANDS, WAITS, job, worker
from agentflow.jobs.transitions import expire

# Turns as the engine counts them: seconds from here on.
_FROM_S: Final = 1_500_000_000
_HIGHEST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many jobs of one queue may be at work at a time, over all workers; None is as many as there are places."""

    concurrency: int | None = None
    tenant_concurrency: int | None = None


@dataclass(slots=True)
class _Room:
    """What one queue may still start."""

    limits: QueueLimits
    places: int
    at_work: int = 0
    tenants: Counter[str] = field(default_factory=Counter[str])

    def admits(self, tenant: str) -> bool:
        if self.left <= 0:
            return False
        most = self.limits.tenant_concurrency
        return most is None or not tenant or self.tenants[tenant] < most

    @property
    def left(self) -> int:
        limit = self.limits.concurrency
        return self.places - self.at_work if limit is None else min(self.places, limit) - self.at_work

    def start(self, tenant: str) -> None:
        self.at_work += 1
        self.tenants[tenant] += 1


@dataclass(frozen=True, slots=True)
class HandedOut:
    """What the engine is to carry from now on, and the names of tickets it may drop if it still has them."""

    tickets: Sequence[Ticket] = ()
    lost: Sequence[str] = ()


def hand_out(
    connection: sa.Connection, me: str, queues: Mapping[str, QueueLimits], defaults: QueueLimits = QueueLimits()
) -> HandedOut:
    """Write tickets for jobs that may start, and end those whose deadline has passed.

    Args:
        connection: in a transaction.
        me: the worker that will enqueue them.
        queues: limits of the queues that have their own.
        defaults: limits of all others.

    Returns:
        The tickets, which count as started from now on: ``me`` enqueues them, or its successor does when it dies.
    """
    if not take_turns(connection):
        return HandedOut()
    now = now_ms(connection)
    _expire(connection, now)
    tickets: list[Ticket] = []
    lost: list[str] = []
    for queue, places in _places(connection).items():
        room = _Room(queues.get(queue, defaults), places)
        lost += _count(connection, queue, room, now)
        if room.left > 0:
            tickets += [_ticket(connection, row, me, now) for row in _next(connection, queue, room, now)]
    return HandedOut(tickets, lost)


def _places(connection: sa.Connection) -> dict[str, int]:
    """Places of every queue that a living worker serves; twice as many tickets are out, so that none stays empty."""
    places: Counter[str] = Counter()
    for served in connection.execute(sa.select(worker).where(worker.c.draining.is_(False))):
        for queue in served.queues.split(","):
            places[queue] += 2 * served.slots
    return dict(places)


def _count(connection: sa.Connection, queue: str, room: _Room, now: int) -> list[str]:
    """Count what is out already; tickets that were lost are taken back."""
    lost: list[str] = []
    out = sa.select(job.c.id, job.c.ticket, job.c.tenant, job.c.worker, job.c.ticketed_ms)
    for row in connection.execute(out.where(job.c.queue == queue, job.c.ticketed_by.is_not(None))):
        if row.worker is None and row.ticketed_ms < now - LOST_MS:
            connection.execute(job.update().where(job.c.id == row.id).values(ticketed_by=None, ticketed_ms=None))
            lost.append(ticket_id(row.id, row.ticket))
        else:
            room.start(row.tenant)
    return lost


def _next(connection: sa.Connection, queue: str, room: _Room, now: int) -> Sequence[Row]:
    """Jobs in their turn, those of tenants that have no room passed over."""
    query = (
        sa.select(job.c.id, job.c.tenant, job.c.ticket, job.c.queue, job.c.turn_ms)
        .where(job.c.queue == queue, job.c.ticketed_by.is_(None), sa.text(WAITS), job.c.next_ms <= now)
        .order_by(job.c.turn_ms, job.c.id)
    )
    most = room.limits.tenant_concurrency
    if most is not None:
        full = [tenant for tenant, count in room.tenants.items() if tenant and count >= most]
        query = query.where(job.c.tenant.not_in(full))
        # Of one tenant there may be thousands in front: each has its own place in line.
        line = sa.func.row_number().over(partition_by=job.c.tenant, order_by=(job.c.turn_ms, job.c.id))
        lined = query.add_columns(line.label("line")).subquery()
        query = (
            sa.select(lined)
            .where((lined.c.line <= most) | (lined.c.tenant == ""))
            .order_by(lined.c.turn_ms, lined.c.id)
        )
    chosen: list[Row] = []
    for row in connection.execute(query.limit(room.left)):
        if room.admits(row.tenant):
            room.start(row.tenant)
            chosen.append(row)
    return chosen


def _ticket(connection: sa.Connection, row: Row, me: str, now: int) -> Ticket:
    number = row.ticket + 1
    values = {"ticket": number, "ticketed_by": me, "ticketed_ms": now}
    connection.execute(job.update().where(job.c.id == row.id).values(**values))
    order = min(max(row.turn_ms // 1000 - _FROM_S, 1), _HIGHEST)
    return Ticket(row.id, number, row.queue, order)


def _expire(connection: sa.Connection, now: int) -> None:
    late = sa.select(job).where(sa.text(STANDS), job.c.deadline_ms <= now, job.c.worker.is_(None))
    for row in connection.execute(late.with_for_update()).all():
        expire(connection, row)
