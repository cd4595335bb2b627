"""Worker: a process that has jobs done. Imports runner, leases, tickets, an engine.

Beside the jobs it runs four things: its lease is renewed by a thread; tickets are handed out; the dead are buried; and
what people want of its jobs (stop, other limits) is looked up. All of it is in the database, so any worker can be
killed at any moment, and any other goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import sqlalchemy as sa

from agentflow.errors import AgentflowError, JobStoreError, UnknownJob
from agentflow.jobs import leases, tickets, transitions
from agentflow.jobs.database import Database, now_ms
from agentflow.jobs.engine import Engine, Ticket, ticket_id
from agentflow.jobs.erasing import erase
from agentflow.jobs.gate import Passage
from agentflow.jobs.job import JobBudget
from agentflow.jobs.journal import Journal
from agentflow.jobs.kinds import Kinds
from agentflow.jobs.leases import Lease, Post
from agentflow.jobs.records import Row, ended_before
from agentflow.jobs.runner import AtWork, End, Runner, Tries
from agentflow.jobs.schedules import Schedules
from agentflow.jobs.statements import anybody_waits, taken_by
from agentflow.jobs.store.base import BlobStore
from agentflow.jobs.tickets import QueueLimits
from agentflow.jobs.transitions import Fence
from agentflow.runtime import Runtime

_LOG = logging.getLogger(__name__)
_LOOK_S: Final = 0.2
_HAND_OUT_S: Final = 0.2
# How long jobs are waited for that were told to end, when nothing of theirs is kept any more.
_LEAVING_S: Final = 5.0
_RETIRE_S: Final = 600.0
_DUE_S: Final = 1.0
_RETIRED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works.

    Args:
        queues: which it serves.
        slots: jobs at a time of each queue.
        limits: of queues, over all workers.
        lease_s: seconds without a word after which a worker is taken for dead.
        drain_s: seconds that running calls are given to end when the worker does.
        tries: how often a failed job is tried.
        deaths: how many workers a job may lose before it is left for a person.
        keep_days: after which jobs that have ended are deleted; None keeps them.
    """

    queues: tuple[str, ...] = ("default",)
    slots: int = 8
    limits: Mapping[str, QueueLimits] = field(default_factory=dict[str, QueueLimits])
    lease_s: float = 5.0
    drain_s: float = 30.0
    tries: Tries = field(default_factory=Tries)
    deaths: int = 5
    keep_days: float | None = None


class Worker:
    """Does the jobs of one database, together with all others of its kind.

    Args:
        database: of the jobs. This worker closes it, the engine and the store when it ends.
        engine: carries tickets.
        runtime: rungs, prices, ledger.
        kinds: what it can do.
        store: of the jobs' files.
        options: see there.

    Example:
        >>> async with Worker(database, engine, runtime, kinds, store) as worker:      # doctest: +SKIP
        ...     await worker.serve(until)
    """

    def __init__(
        self,
        database: Database,
        engine: Engine,
        runtime: Runtime,
        kinds: Kinds,
        store: BlobStore,
        options: WorkerOptions = WorkerOptions(),
    ) -> None:
        self.id = f"{socket.gethostname()[:40]}-{secrets.token_hex(4)}"
        self._database = database
        self._engine = engine
        self._store = store
        self._ledger = runtime.ledger
        self._options = options
        self._lease = Lease(
            database, Post(self.id, options.queues, options.slots), options.lease_s, self._taken_for_dead
        )
        self._passage = Passage(lambda: self._lease.holds)
        self._journal = Journal(database, self._fenced)
        self._runner = Runner(self.id, database, runtime, kinds, store, self._journal, self._passage, options.tries)
        self._schedules = Schedules(database)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._started = False
        self._idle = asyncio.Event()
        self._done: list[str] = []
        self._nudged, self._retiring = asyncio.Event(), asyncio.Event()
        self._mine_since: set[str] = set()

    async def start(self) -> None:
        """Report for work.

        Raises:
            UsageError: this database allows one worker, and has one.
            JobStoreError: the database cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        await self._engine.start(self._take, self._options.queues, self._options.slots)
        self._started = True
        await asyncio.to_thread(self._lease.start)
        if self._database.path is not None:
            # The engine's lock says that there is no other.
            await self._database.write(lambda c: leases.bury_others(c, self.id, self._options.deaths))

    async def work(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for loop in (
                self._journal.write(),
                self._hand_out(),
                self._submit_due(),
                self._look(),
                self._bury(),
                self._forget(),
                self._retire(),
            ):
                group.create_task(loop)

    async def serve(self, until: asyncio.Event) -> None:
        """Work until the event is set, then drain."""
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self.work())
            await until.wait()
            await self.drain()
            working.cancel()

    def nudge(self) -> None:
        """A job was submitted in this process: hand out tickets now."""
        self._nudged.set()

    def retire_now(self) -> None:
        """Look now, not in a few minutes, for jobs whose time is over."""
        self._retiring.set()

    async def drain(self) -> None:
        """Take no more jobs, let running calls end, and hand the jobs to other workers. ``work`` must still run."""
        self._draining = True
        self._lease.drain()
        self._passage.shut()
        try:
            async with asyncio.timeout(self._options.drain_s):
                await self._passage.idle()
        except TimeoutError:
            _LOG.warning("%d calls had not ended after %.0f s; they are broken off.", self._passage.under_way, self._options.drain_s)  # fmt: skip  # noqa: E501
        await self._end_all("hand_back", self._options.drain_s)

    @property
    def deaf(self) -> bool:
        """Whether jobs of it still run that were told to end: only the end of the process ends them."""
        return bool(self._runner.at_work)

    async def aclose(self) -> None:
        """Leave: what was not handed back is free for others at once. Closing twice changes nothing."""
        self._draining = True
        await self._end_all("fenced", min(self._options.drain_s, _LEAVING_S))
        await self._engine.aclose()
        if self._started:
            self._started = False
            await asyncio.to_thread(self._lease.stop)
            try:
                await self._database.write(lambda c: leases.sign_off(c, self.id, self._options.deaths))
            except JobStoreError as error:
                _LOG.warning("%s Others will find this worker gone.", error)
        await self._store.aclose()
        await self._database.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _take(self, id: str, number: int) -> None:
        """The engine brings a ticket."""
        try:
            if self._draining or not await self._runner.run(id, number):
                await self._database.write(lambda c: transitions.decline(c, id, number))
        finally:
            self._done.append(ticket_id(id, number))
            if not self._runner.at_work:
                self._idle.set()

    async def _end_all(self, end: End, seconds: float) -> None:
        for work in tuple(self._runner.at_work.values()):
            work.finish(end)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._runner.at_work:
                    self._idle.clear()
                    await self._idle.wait()
        if self._runner.at_work:
            # Their calls are held back for good, so others may have them.
            _LOG.warning("Jobs that do not end although they are told to: %s.", ", ".join(self._runner.at_work))

    async def _hand_out(self) -> None:
        """Write tickets for jobs whose turn it is."""
        options = self._options
        unsent: list[Ticket] = []
        while True:
            began = time.monotonic()
            self._nudged.clear()
            try:
                if not self._draining and await self._database.read(anybody_waits):
                    out = await self._database.write(lambda c: tickets.hand_out(c, self.id, options.limits))
                    unsent += out.tickets
                    self._done += out.lost
                if unsent:
                    await self._engine.enqueue(unsent)
                    unsent.clear()
            except JobStoreError as error:
                _LOG.warning("%s Tickets are handed out later.", error)
                await asyncio.sleep(1.0)
            # However long the queues are, they take no more than a sixth of the time.
            await _either(self._nudged, max(_HAND_OUT_S, 5 * (time.monotonic() - began)))

    async def _submit_due(self) -> None:
        """Submit what schedules have due."""
        while True:
            try:
                if not self._draining and await self._schedules.submit_due():
                    self.nudge()
            except AgentflowError as error:
                _LOG.warning("%s What is scheduled is submitted later.", error)
            await asyncio.sleep(_DUE_S)

    async def _look(self) -> None:
        """See what is wanted of the jobs here, and whether they still are here."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self._lease.turn()
            known = set(self._runner.at_work)
            try:
                rows, now = await self._database.read(self._wanted)
            except JobStoreError as error:
                _LOG.warning("%s Stops and budgets wait.", error)
                continue
            here = {row.id: row for row in rows}
            for id in known:
                work = self._runner.at_work.get(id)
                if work is not None and work.taken is not None and not work.ending:
                    self._heed(work, here.get(id), now)
            await self._release([row for row in rows if row.id not in self._runner.at_work])

    def _heed(self, work: AtWork, row: Row | None, now: int) -> None:
        if row is None or row.ticket != work.fence.ticket:
            work.finish("fenced")
        elif row.deadline_ms is not None and row.deadline_ms <= now:
            work.finish("deadline")
        elif row.wish == "stop" and not work.lands:
            work.finish("stop")
        elif row.budget_changes > work.budget_changes and work.taken is not None:
            budget = JobBudget.model_validate_json(row.budget)
            work.limit(self._runner.limits(work.taken.spec, budget), budget.on_limit, row.budget_changes)

    async def _release(self, rows: Sequence[Row]) -> None:
        """Free jobs that are said to be here and are not: how their run ended could not be written."""
        stray, self._mine_since = [row for row in rows if row.id in self._mine_since], {row.id for row in rows}
        for row in stray:
            fence, run = Fence(row.id, row.ticket, self.id), row.runs
            try:
                await self._database.write(lambda c, f=fence, r=run: transitions.hand_back(c, f, r, "begun anew"))
            except JobStoreError as error:
                _LOG.warning("%s Job %s is freed later.", error, row.id)

    def _wanted(self, connection: sa.Connection) -> tuple[Sequence[Row], int]:
        return taken_by(connection, self.id), now_ms(connection)

    async def _bury(self) -> None:
        """Free the jobs of workers that are gone."""
        options = self._options
        while True:
            await asyncio.sleep(options.lease_s / 5)
            if not self._lease.steady:
                continue
            try:
                await self._database.write(lambda c: leases.bury(c, options.lease_s, options.deaths))
            except JobStoreError as error:
                _LOG.warning("%s The dead are buried later.", error)

    async def _forget(self) -> None:
        """Let the engine drop tickets that are done; it writes down itself first that they are."""
        settled: list[str] = []
        while True:
            await asyncio.sleep(2.0)
            try:
                await self._engine.forget(settled)
            except JobStoreError as error:
                _LOG.warning("%s Done tickets are dropped later.", error)
            else:
                settled, self._done = self._done, []

    async def _retire(self) -> None:
        """Delete jobs that ended longer ago than they are kept, a hundred at a time."""
        days = self._options.keep_days
        while days is not None:
            erased = 0
            try:
                for id in await self._database.read(lambda c: ended_before(c, days, _RETIRED_AT_ONCE)):
                    erased += await self._retired(id)
            except AgentflowError as error:
                _LOG.warning("%s Old jobs are deleted later.", error)
            if erased < _RETIRED_AT_ONCE:
                await _either(self._retiring, _RETIRE_S)
            self._retiring.clear()

    async def _retired(self, id: str) -> bool:
        """Delete a job; one that cannot be keeps no other."""
        try:
            await erase(self._database, self._store, self._ledger, id)
        except UnknownJob:
            return False
        except AgentflowError as error:
            _LOG.warning("%s Job %s is deleted later.", error, id)
            return False
        return True

    def _fenced(self, fences: set[Fence]) -> None:
        for work in tuple(self._runner.at_work.values()):
            if work.fence in fences and not work.ending:
                work.finish("fenced")

    def _taken_for_dead(self) -> None:
        """On the lease's thread: all that this worker had is others' now."""
        _LOG.warning("Worker %s was taken for dead; it drops what it had, and goes on.", self.id)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._fenced, {work.fence for work in tuple(self._runner.at_work.values())})


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
