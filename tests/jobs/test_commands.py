"""What people ask of jobs at awkward moments."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import JobStateConflict, JobStoreError, UnknownJob
from agentflow.jobs import records
from agentflow.jobs.job import JobBudget, JobSpec, JobState, StopReason
from agentflow.jobs.kinds import JobContext
from agentflow.jobs.runner import Tries
from agentflow.jobs.store.disk import DiskStore
from agentflow.jobs.worker import WorkerOptions
from tests.jobs.places import Place, at_work, until
from tests.jobs.test_states import came
from tests.servers.counting import CountingServer

ONCE = WorkerOptions(lease_s=2.0, tries=Tries(1, 0.0))


async def test_a_job_that_is_being_deleted_cannot_be_resumed(place: Place, counting: CountingServer) -> None:
    """Else it would go on without what the ledger kept, and pay for its finished calls again."""
    query = place.folder.name
    counting.settings(fail=0)
    async with at_work(place, options=ONCE) as (jobs, _):
        spec = JobSpec(kind="keeping", query=query, budget=JobBudget(calls=3, on_limit="fail"))
        job = await jobs.submit(spec)
        assert (await jobs.wait(job.id, seconds=20)).state == JobState.FAILED
        await jobs.set_budget(job.id, JobBudget(calls=10))
        delete = jobs._store.delete

        async def slow(id: str) -> None:
            with pytest.raises(JobStateConflict, match="being deleted"):
                await jobs.resume(job.id)
            await delete(id)

        jobs._store.delete = slow  # type: ignore[method-assign]
        await jobs.delete(job.id)
        with pytest.raises(UnknownJob):
            await jobs.get(job.id)
    assert all(times == (1, 1) for times in counting.counts(query).values())


async def test_what_a_job_keeps_after_it_was_cancelled_and_deleted_goes_too(place: Place) -> None:
    go_on = asyncio.Event()

    async def late(context: JobContext) -> Any:
        await context.save("early.txt", "early", "text/plain")
        try:
            await asyncio.Event().wait()
        finally:
            await go_on.wait()
            await context.save("late.txt", "late", "text/plain")

    def files() -> list[Path]:
        return [path for path in (place.folder / "store").rglob("*") if path.is_file()]

    async with at_work(place, {"late": late}, ONCE) as (jobs, worker):
        job = await jobs.submit(JobSpec(kind="late", query="a"))
        async with asyncio.timeout(10):
            while not files():
                await asyncio.sleep(0.02)
        await jobs.cancel(job.id)
        await jobs.delete(job.id)
        async with asyncio.timeout(10):
            while worker._runner.at_work[job.id].end is None:
                await asyncio.sleep(0.02)
            go_on.set()
            while worker._runner.at_work:
                await asyncio.sleep(0.02)
        assert files() == []


async def test_a_reader_of_a_job_that_is_deleted_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="echo", query="a"))
        await jobs.wait(job.id, seconds=20)
        read, deleted = records.events, False

        def late(*asked: Any) -> Any:
            # It goes between the look at the job and the look at its log.
            return [] if deleted else read(*asked)

        monkeypatch.setattr(records, "events", late)
        events = jobs.events(job.id)
        deleted = True
        async with asyncio.timeout(5):
            with pytest.raises(UnknownJob, match="deleted meanwhile"):
                async for _ in events:
                    pass


async def test_what_a_limit_leads_to_may_be_changed_while_the_job_runs(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    counting.shut(f"{query} 1")
    async with at_work(place) as (jobs, worker):
        job = await jobs.submit(JobSpec(kind="keeping", query=query, budget=JobBudget(calls=3)))
        await came(counting, query, 2)
        await jobs.set_budget(job.id, JobBudget(calls=3, on_limit="pause"))
        async with asyncio.timeout(10):
            while worker._runner.at_work[job.id].budget_changes < 1:
                await asyncio.sleep(0.02)
        counting.open(f"{query} 1")
        view = await until(jobs, job.id, JobState.PAUSED_BUDGET, JobState.COMPLETED)
        assert view.state == JobState.PAUSED_BUDGET


async def test_a_resumed_job_is_known_by_its_dedup_key_again(any_place: Place) -> None:
    async with at_work(any_place, options=ONCE) as (jobs, _):
        spec = JobSpec(kind="failing", query="a", dedup_key="k", input={"failures": 1})
        job = await jobs.submit(spec)
        await until(jobs, job.id, JobState.FAILED)
    async with any_place.jobs() as jobs:
        await jobs.resume(job.id)
        assert (await jobs.submit(spec)).id == job.id
        await jobs.cancel(job.id)


async def test_a_job_whose_dedup_key_another_has_is_not_resumed(any_place: Place) -> None:
    async with at_work(any_place, options=ONCE) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="failing", query="a", dedup_key="k", input={"failures": 1}))
        await until(jobs, job.id, JobState.FAILED)
    async with any_place.jobs() as jobs:
        other = await jobs.submit(JobSpec(kind="echo", query="a", dedup_key="k"))
        assert other.id != job.id
        with pytest.raises(JobStateConflict, match=f"'{other.id}' has the same dedup_key"):
            await jobs.resume(job.id)


async def test_a_deadline_ends_a_job_that_is_paused(place: Place, counting: CountingServer) -> None:
    async with at_work(place) as (jobs, _):
        soon = datetime.now(UTC) + timedelta(seconds=2)
        budget = JobBudget(calls=3, on_limit="pause")
        job = await jobs.submit(JobSpec(kind="keeping", query=place.folder.name, budget=budget, deadline=soon))
        paused = await until(jobs, job.id, JobState.PAUSED_BUDGET)
        assert paused.has_result
        view = await until(jobs, job.id, JobState.COMPLETED)
        assert (view.stop_reason, view.partial) == (StopReason.DEADLINE, True)


async def test_a_job_that_cannot_be_deleted_keeps_no_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at_work(place) as (jobs, _):
        ids = [(await jobs.submit(JobSpec(kind="echo", query=str(n)))).id for n in range(3)]
        for id in ids:
            await jobs.wait(id, seconds=20)
    delete = DiskStore.delete

    async def stuck(store: DiskStore, job: str) -> None:
        if job == ids[0]:
            raise JobStoreError("The store cannot be used.")
        await delete(store, job)

    monkeypatch.setattr(DiskStore, "delete", stuck)
    options = WorkerOptions(lease_s=2.0, keep_days=1e-9)
    async with at_work(place, options=options) as (jobs, _):
        async with asyncio.timeout(10):
            while len((await jobs.list()).jobs) > 1:
                await asyncio.sleep(0.05)
        assert [view.id for view in (await jobs.list()).jobs] == ids[:1]
