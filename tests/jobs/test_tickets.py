"""Tickets that go astray: the job they are for starts all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agentflow.errors import JobStoreError
from agentflow.jobs import leases, statements, tickets, transitions
from agentflow.jobs.engine import Ticket
from agentflow.jobs.job import JobSpec, JobState
from agentflow.jobs.kinds import JobContext
from agentflow.jobs.opening import open_database
from agentflow.jobs.runner import Tries
from agentflow.jobs.transitions import Fence
from agentflow.jobs.worker import WorkerOptions
from tests.jobs.places import DirectEngine, Place, at_work
from tests.jobs.test_queues import hand_out


async def test_tickets_that_could_not_be_enqueued_are_enqueued_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue, left = DirectEngine.enqueue, 1

    async def away(engine: DirectEngine, written: Sequence[Ticket]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise JobStoreError("The engine of the jobs failed: it is away.")
        await enqueue(engine, written)

    monkeypatch.setattr(DirectEngine, "enqueue", away)
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="echo", query="a"))
        assert (await jobs.wait(job.id, seconds=10)).state == JobState.COMPLETED


async def test_the_only_job_there_is_gets_another_ticket_when_the_engine_loses_its_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "LOST_MS", 500)
    monkeypatch.setattr(tickets, "LOST_MS", 500)
    enqueue, left = DirectEngine.enqueue, 1
    forgotten: list[str] = []

    async def loses(engine: DirectEngine, written: Sequence[Ticket]) -> None:
        nonlocal left
        left -= 1
        if left != 0:
            await enqueue(engine, written)

    async def forget(engine: DirectEngine, ids: Sequence[str]) -> None:
        forgotten.extend(ids)

    monkeypatch.setattr(DirectEngine, "enqueue", loses)
    monkeypatch.setattr(DirectEngine, "forget", forget)
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="echo", query="a"))
        assert (await jobs.wait(job.id, seconds=10)).state == JobState.COMPLETED
        async with asyncio.timeout(10):
            # The engine need not keep what nobody will use.
            while f"{job.id}.1" not in forgotten:
                await asyncio.sleep(0.05)


async def test_a_ticket_that_comes_while_the_last_run_still_ends_is_given_back(place: Place) -> None:
    lingering = asyncio.Event()

    async def lingers(context: JobContext) -> Any:
        if context.run == 1:
            try:
                await asyncio.Event().wait()
            finally:
                await lingering.wait()
        return {"run": context.run}

    options = WorkerOptions(lease_s=2.0, tries=Tries(3, 0.0))
    async with at_work(place, {"lingers": lingers}, options) as (jobs, worker):
        job = await jobs.submit(JobSpec(kind="lingers", query="a"))
        async with asyncio.timeout(10):
            while not (await jobs.get(job.id)).worker:
                await asyncio.sleep(0.02)
        # It is taken for dead, and its job comes back to it before the first run has ended.
        await worker._database.write(lambda c: leases.bury_others(c, "nobody", 5))
        await asyncio.sleep(1.5)
        lingering.set()
        view = await jobs.wait(job.id, seconds=10)
        assert (view.state, view.runs) == (JobState.COMPLETED, 2)


async def test_a_worker_that_was_buried_takes_no_job_before_it_has_reported_again(any_place: Place) -> None:
    database = open_database(any_place.settings.jobs)
    async with any_place.jobs() as jobs:
        one = await jobs.submit(JobSpec(kind="echo", query="a"))
        await hand_out(database, me="living")
        fence = Fence(one.id, 1, "buried")
        # Nobody would ever miss it: what it took would be lost if it died now.
        assert await database.write(lambda c: transitions.take(c, fence, "run")) is None
        assert (await jobs.get(one.id)).state == JobState.QUEUED
        fence = Fence(one.id, 1, "living")
        assert await database.write(lambda c: transitions.take(c, fence, "run")) is not None
    await database.aclose()


async def test_a_worker_whose_loop_hangs_gives_its_jobs_away(any_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_HUNG_S", 0.5)
    database = open_database(any_place.settings.jobs)
    lost: list[int] = []
    lease = leases.Lease(database, leases.Post("hangs", ("default",), 1), 0.5, lambda: lost.append(1))
    await asyncio.to_thread(lease.start)
    try:
        async with asyncio.timeout(10):
            for _ in range(10):
                lease.turn()
                await asyncio.sleep(0.1)
            assert lease.holds and not await database.write(lambda c: leases.bury(c, 0.5, 5))
            # From here on nothing turns.
            while not await database.write(lambda c: leases.bury(c, 0.5, 5)):
                await asyncio.sleep(0.05)
            assert not lease.holds
            while not lost:
                lease.turn()
                await asyncio.sleep(0.05)
    finally:
        await asyncio.to_thread(lease.stop)
        await database.aclose()
