"""Queues: who starts when, and how many at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from agentflow.errors import KeyReused, UsageError
from agentflow.jobs import leases, tickets, transitions
from agentflow.jobs.database import Database, now_ms
from agentflow.jobs.job import JobFilter, JobSpec, JobState
from agentflow.jobs.leases import Post
from agentflow.jobs.opening import open_database
from agentflow.jobs.runner import Tries
from agentflow.jobs.tables import job
from agentflow.jobs.tickets import QueueLimits
from agentflow.jobs.transitions import Fence
from agentflow.jobs.worker import WorkerOptions
from tests.jobs.places import Place, at_work, until


async def hand_out(
    database: Database, limits: QueueLimits | None = None, slots: int = 100, me: str = "me"
) -> list[str]:
    """Ids of the jobs that may start, in the order in which they got their tickets."""
    post = Post(me, ("default",), slots)
    await database.write(lambda c: leases.beat(c, post, first=False, draining=False))
    written = await database.write(lambda c: tickets.hand_out(c, me, {}, limits or QueueLimits()))
    return [ticket.job for ticket in written.tickets]


async def age(database: Database, id: str, minutes: float) -> None:
    """Let a job have been submitted so much earlier."""
    ms = int(minutes * 60_000)
    await database.write(lambda c: c.execute(job.update().where(job.c.id == id).values(turn_ms=job.c.turn_ms - ms)))


async def test_priority_goes_first_and_a_starving_job_still_moves(any_place: Place) -> None:
    database = open_database(any_place.settings.jobs)
    async with any_place.jobs() as jobs:
        low = await jobs.submit(JobSpec(kind="echo", query="low", priority=-5))
        plain = await jobs.submit(JobSpec(kind="echo", query="plain"))
        high = await jobs.submit(JobSpec(kind="echo", query="high", priority=5))
        await age(database, low.id, 11)
        assert await hand_out(database) == [low.id, high.id, plain.id]
        assert await hand_out(database) == [], "a ticket was written twice"
    await database.aclose()


async def test_a_queue_and_each_tenant_keep_to_their_limits(any_place: Place) -> None:
    database = open_database(any_place.settings.jobs)
    async with any_place.jobs() as jobs:
        for number in range(30):
            await jobs.submit(JobSpec(kind="echo", query=f"flood {number}", tenant="loud"))
        quiet = await jobs.submit(JobSpec(kind="echo", query="quiet", tenant="quiet"))
        given = await hand_out(database, QueueLimits(concurrency=10, tenant_concurrency=3))
        assert len(given) == 4 and given[-1] == quiet.id, "a loud tenant keeps a quiet one waiting"
        assert await hand_out(database, QueueLimits(tenant_concurrency=3)) == []
        # One of them ends: its place is free.
        fence = Fence(given[0], 1, "me")
        await database.write(lambda c: transitions.take(c, fence, "run"))
        await database.write(lambda c: transitions.finish(c, fence, 1, transitions.Ending(JobState.COMPLETED)))
        assert len(await hand_out(database, QueueLimits(tenant_concurrency=3))) == 1
        assert len(await hand_out(database, QueueLimits(concurrency=6))) == 2
    await database.aclose()


async def test_limits_hold_over_workers_that_hand_out_at_the_same_moment(postgres_place: Place) -> None:
    databases = [open_database(postgres_place.settings.jobs) for _ in range(4)]
    async with postgres_place.jobs() as jobs:
        for number in range(40):
            await jobs.submit(JobSpec(kind="echo", query=str(number)))
        given: list[str] = []
        for _ in range(5):
            some = await asyncio.gather(
                *(hand_out(one, QueueLimits(concurrency=7), me=f"w{n}") for n, one in enumerate(databases))
            )
            given += [id for ids in some for id in ids]
        assert len(given) == len(set(given)) == 7
    for database in databases:
        await database.aclose()


async def test_a_delayed_job_waits_for_its_time(any_place: Place) -> None:
    database = open_database(any_place.settings.jobs)
    async with any_place.jobs() as jobs:
        soon = datetime.now(UTC) + timedelta(hours=1)
        later = await jobs.submit(JobSpec(kind="echo", query="later", not_before=soon))
        assert await hand_out(database) == []
        assert later.next_run is not None and abs((later.next_run - soon).total_seconds()) < 1
        await database.write(lambda c: c.execute(job.update().values(next_ms=now_ms(c))))
        assert await hand_out(database) == [later.id]
    await database.aclose()


async def test_a_job_starts_at_its_time(place: Place) -> None:
    async with at_work(place) as (jobs, _):
        soon = datetime.now(UTC) + timedelta(seconds=0.5)
        one = await jobs.submit(JobSpec(kind="echo", query="a", not_before=soon))
        view = await until(jobs, one.id, JobState.COMPLETED)
        assert view.started is not None and view.started >= soon - timedelta(milliseconds=2)


async def test_jobs_at_work_never_exceed_the_queues_limit(place: Place) -> None:
    options = WorkerOptions(slots=50, limits={"default": QueueLimits(concurrency=2)}, tries=Tries(1))
    most = 0

    async def watched(context: object) -> None:
        nonlocal most
        most = max(most, len(worker._runner.at_work))
        await asyncio.sleep(0.01)

    async with at_work(place, {"echo": watched}, options) as (jobs, worker):
        submitted = [await jobs.submit(JobSpec(kind="echo", query=str(n))) for n in range(10)]
        for one in submitted:
            assert (await jobs.wait(one.id, seconds=20)).state == JobState.COMPLETED
    assert most == 2


async def test_a_lost_ticket_is_written_anew(place: Place) -> None:
    database = open_database(place.settings.jobs)
    async with place.jobs() as jobs:
        one = await jobs.submit(JobSpec(kind="echo", query="a"))
        assert await hand_out(database) == [one.id]
        await database.write(lambda c: c.execute(job.update().values(ticketed_ms=job.c.ticketed_ms - 61_000)))
        assert await hand_out(database) == [one.id]
        # The lost one turns up after all: it is no longer good.
        assert await database.write(lambda c: transitions.take(c, Fence(one.id, 1, "me"), "run")) is None
        assert await database.write(lambda c: transitions.take(c, Fence(one.id, 2, "me"), "run")) is not None
    await database.aclose()


async def test_nobody_writes_past_a_fence(any_place: Place) -> None:
    database = open_database(any_place.settings.jobs)
    async with any_place.jobs() as jobs:
        one = await jobs.submit(JobSpec(kind="echo", query="a"))
        await hand_out(database, me="old")
        old = Fence(one.id, 1, "old")
        assert await database.write(lambda c: transitions.take(c, old, "run")) is not None
        # The worker is silent, and is buried.
        await database.write(lambda c: leases.bury(c, -1.0, 5))
        assert (await jobs.get(one.id)).state == JobState.RECOVERING
        told = [transitions.Progress(old, 1, [("note", {"note": "from the dead"})], batch="b")]
        assert await database.write(lambda c: transitions.progress(c, told)) == {old}
        assert not await database.write(lambda c: transitions.hand_back(c, old, 1, "late"))
        assert not await database.write(lambda c: transitions.finish(c, old, 1, transitions.Ending(JobState.COMPLETED)))
        assert await database.write(lambda c: transitions.take(c, old, "run")) is None
        events = [event async for event in jobs.events(one.id, follow=False)]
        assert "from the dead" not in str(events)
    await database.aclose()


async def test_a_dedup_key_gives_the_job_that_has_not_ended(any_place: Place) -> None:
    async with any_place.jobs() as jobs:
        spec = JobSpec(kind="echo", query="a", dedup_key="k")
        views = await asyncio.gather(*(jobs.submit(spec) for _ in range(8)))
        assert len({view.id for view in views}) == 1
        other = await jobs.submit(spec.model_copy(update={"tenant": "t"}))
        assert other.id != views[0].id
        await jobs.cancel(views[0].id)
        assert (await jobs.submit(spec)).id != views[0].id


async def test_an_idempotency_key_gives_the_same_job_and_refuses_another_request(any_place: Place) -> None:
    async with any_place.jobs() as jobs:
        spec = JobSpec(kind="echo", query="a")
        views = await asyncio.gather(*(jobs.submit(spec, idempotency_key="k") for _ in range(8)))
        assert len({view.id for view in views}) == 1
        await jobs.cancel(views[0].id)
        assert (await jobs.submit(spec, idempotency_key="k")).state == JobState.CANCELLED
        with pytest.raises(KeyReused):
            await jobs.submit(JobSpec(kind="echo", query="b"), idempotency_key="k")


async def test_pages_give_every_job_once(any_place: Place) -> None:
    async with any_place.jobs() as jobs:
        ids = [(await jobs.submit(JobSpec(kind="echo", query=str(n), metadata={"n": str(n % 2)}))).id for n in range(9)]
        found: list[str] = []
        cursor = None
        while True:
            page = await jobs.list(JobFilter(states=(JobState.QUEUED,)), cursor=cursor, limit=4)
            found += [view.id for view in page.jobs]
            cursor = page.cursor
            if cursor is None:
                break
        assert sorted(found) == sorted(ids) and len(found) == 9
        odd = await jobs.list(JobFilter(metadata={"n": "1"}))
        assert len(odd.jobs) == 4
        assert not (await jobs.list(JobFilter(metadata={'n"]\\': "1"}))).jobs
        for cursor in ("x", "=", "AAAA", "🙂"):
            with pytest.raises(UsageError, match="cursor"):
                await jobs.list(cursor=cursor)
        for limit in (0, 501):
            with pytest.raises(UsageError):
                await jobs.list(limit=limit)


async def test_statistics_tell_queues_and_workers(any_place: Place) -> None:
    database = open_database(any_place.settings.jobs)
    async with any_place.jobs() as jobs:
        await jobs.submit(JobSpec(kind="echo", query="a"))
        await jobs.submit(JobSpec(kind="echo", query="b", queue="other"))
        await hand_out(database, me="w1")
        statistics = await jobs.statistics()
        assert statistics.workers == ("w1",)
        assert [(q.queue, q.waiting, q.at_work) for q in statistics.queues] == [("default", 1, 0), ("other", 1, 0)]
        assert all(q.oldest_s is not None and q.oldest_s < 60 for q in statistics.queues)
    await database.aclose()
