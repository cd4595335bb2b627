"""Leases: which workers are alive, by their own word not longer ago than a lease. Imports tables, transitions.

A worker that says nothing for a lease is taken for dead: in one transaction its row goes and its jobs are free. One
that was only asleep finds its row gone when it wakes; until it looks, ``Lease.holds`` tells it by its own clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from agentflow.errors import JobStoreError
from agentflow.jobs.database import Database, now_ms
from agentflow.jobs.tables import job, worker
from agentflow.jobs.transitions import lose

# A loop that has not turned for so long hangs: others may have its jobs.
_HUNG_S: Final = 60.0
# Within this time after a database has come back, every worker that lives has said so: it asks at least once a second.
_BACK_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Post:
    """A worker as others see it."""

    id: str
    queues: tuple[str, ...]
    slots: int


def _clock() -> float:
    """Seconds since the machine was started, those that it slept included; Linux' monotonic clock leaves them out."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def beat(connection: sa.Connection, post: Post, *, first: bool, draining: bool) -> bool:
    """Say that a worker is alive.

    Returns:
        Whether it was never taken for dead. When it was, its row is made anew: it may go on, with other jobs.
    """
    now = now_ms(connection)
    known = connection.execute(
        worker.update().where(worker.c.id == post.id).values(seen_ms=now, draining=draining).returning(worker.c.id)
    ).scalar()
    if known is None:
        connection.execute(
            worker.insert().values(
                id=post.id, seen_ms=now, queues=",".join(post.queues), slots=post.slots, draining=draining
            )
        )
    return first or known is not None


def bury(connection: sa.Connection, lease_s: float, most: int) -> int:
    """Free the jobs of every worker that said nothing for a lease.

    Args:
        connection: in a transaction.
        lease_s: seconds without a word.
        most: how often a job may lose its worker before it is left for a person.

    Returns:
        How many workers.
    """
    silent = worker.c.seen_ms < now_ms(connection) - int(lease_s * 1000)
    dead = list(connection.execute(worker.delete().where(silent).returning(worker.c.id)).scalars())
    if dead:
        _free(connection, dead, most)
    return len(dead)


def bury_others(connection: sa.Connection, me: str, most: int) -> None:
    """Free the jobs of every other worker: where only one can be, the others are dead."""
    dead = list(connection.execute(worker.delete().where(worker.c.id != me).returning(worker.c.id)).scalars())
    _free(connection, dead, most)


def sign_off(connection: sa.Connection, me: str, most: int) -> None:
    """A worker ends: what it did not hand back is freed."""
    connection.execute(worker.delete().where(worker.c.id == me))
    _free(connection, [me], most)


def _free(connection: sa.Connection, dead: list[str], most: int) -> None:
    # The tickets they wrote may lie in the engine or not: the next ones are sure to.
    written = job.c.ticketed_by.is_not(None) & job.c.ticketed_by.in_(dead) & job.c.worker.is_(None)
    connection.execute(job.update().where(written).values(ticketed_by=None, ticketed_ms=None))
    for row in connection.execute(sa.select(job).where(job.c.worker.in_(dead)).with_for_update()).all():
        lose(connection, row, most)


class Lease:
    """A worker's word that it is alive, given again and again by a thread that nothing else can hold up.

    Args:
        database: where it is given.
        post: whose word it is.
        lease_s: how long it is good for.
        lost: called on that thread when the worker was taken for dead meanwhile.
    """

    def __init__(self, database: Database, post: Post, lease_s: float, lost: Callable[[], None]) -> None:
        self._database = database
        self._post = post
        self._lease_s = lease_s
        self._lost = lost
        self._good_until = self._gap = 0.0
        self._turned = _clock()
        self._ending = threading.Event()
        self._draining = False
        self._thread = threading.Thread(target=self._work, name="agentflow-jobs-lease", daemon=True)

    @property
    def holds(self) -> bool:
        """Whether nobody can have taken this worker for dead; by its own clock, which also runs while it sleeps."""
        return _clock() < self._good_until

    @property
    def steady(self) -> bool:
        """Whether it was given without a gap for long enough that others, who lost the database too, are back."""
        return self.holds and _clock() > self._gap + max(_BACK_S, self._lease_s / 2)

    def start(self) -> None:
        """Give the word once, and go on giving it.

        Raises:
            JobStoreError: it cannot be written.
        """
        self._beat(first=True)
        self._thread.start()

    def turn(self) -> None:
        """The worker's loop has turned: it does not hang."""
        self._turned = _clock()

    def drain(self) -> None:
        """Say that this worker takes no more jobs."""
        self._draining = True

    def stop(self) -> None:
        """Give no more word."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._ending.wait(self._lease_s / 5):
            if _clock() > self._turned + _HUNG_S:
                # Code that blocks the loop, or never ends: a word given here would keep the jobs from everybody.
                continue
            try:
                alive = self._beat(first=False)
            except JobStoreError:
                # Without a database nobody can take this worker for dead either; it is asked again.
                continue
            if not alive:
                self._lost()

    def _beat(self, *, first: bool) -> bool:
        asked = _clock()
        alive = self._database.write_here(
            lambda connection: beat(connection, self._post, first=first, draining=self._draining)
        )
        if not self.holds:
            self._gap = asked
        # Its jobs are dropped before it may send anything again.
        self._good_until = asked + self._lease_s if alive else 0.0
        return alive
