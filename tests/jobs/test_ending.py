"""Jobs that are told to end while something else goes wrong: the word is kept, and nothing more is spent."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from agentflow.cascade.rung import Answer
from agentflow.jobs import commands, leases
from agentflow.jobs.job import JobBudget, JobSpec, JobState, StopReason
from agentflow.jobs.kinds import JobContext
from agentflow.jobs.runner import Tries
from agentflow.jobs.worker import WorkerOptions
from tests.jobs import kinds as test_kinds
from tests.jobs.places import Place, at_work
from tests.jobs.test_states import came
from tests.servers.counting import CountingServer, answer


async def deaf(context: JobContext) -> Any:
    """Makes call after call, and does not heed that it is told to end."""
    async with context.chain("main") as chain:
        for call in range(100):
            try:
                await chain.call(f"{context.spec.query} {call}", name="step")
            except asyncio.CancelledError:
                context.emit("note", {"note": "not now"})
    return None


async def landing(context: JobContext) -> Any:
    """Told to end, it puts together what it has with a call of code, as research does."""
    try:
        async with context.chain("main") as chain:
            await chain.call(context.spec.query, name="step")
    except asyncio.CancelledError:
        rung = context.runtime.code_rung("summary", lambda _: Answer("all there is"))
        async with context.chain("end") as chain:
            reply = await chain.call("what is there?", cascade=context.runtime.code(rung))
        return {"found": reply.output}


KINDS = {**test_kinds.ALL, "deaf": deaf, "landing": landing}
QUICK = WorkerOptions(lease_s=2.0, drain_s=1.0, tries=Tries(3, 0.0))


async def test_a_stop_outlives_the_worker_that_was_told(any_place: Place, counting: CountingServer) -> None:
    query = any_place.folder.name + any_place.settings.jobs.kind
    counting.shut(f"{query} 3")
    try:
        async with at_work(any_place) as (jobs, worker):
            job = await jobs.submit(JobSpec(kind="keeping", query=query))
            await came(counting, query, 4)

            def stop_and_die(connection: Any) -> None:
                commands.stop(connection, job.id, None)
                leases.bury_others(connection, "nobody", 5)

            await worker._database.write(stop_and_die)
            result = await jobs.result(job.id, wait_s=20)
            view = await jobs.get(job.id)
    finally:
        counting.open(f"{query} 3")
    assert (result.state, result.stop_reason, result.partial) == (JobState.COMPLETED, StopReason.STOPPED, True)
    assert result.output == {"said": [answer(f"{query} {call}") for call in range(3)]}
    assert view.runs == 2
    assert all(times == 1 for times, _ in counting.counts(query).values()), "it went on after it was stopped"


async def test_a_stop_of_a_job_that_recovers_delivers_what_its_last_run_paid_for(
    place: Place, counting: CountingServer
) -> None:
    query = place.folder.name
    counting.shut(f"{query} 3")
    try:
        async with at_work(place, options=QUICK) as (jobs, _):
            job = await jobs.submit(JobSpec(kind="keeping", query=query))
            await came(counting, query, 4)
    finally:
        counting.open(f"{query} 3")
    async with place.jobs() as jobs:
        before = await jobs.stop(job.id)
        assert before.state == JobState.RECOVERING
    async with at_work(place) as (jobs, _):
        result = await jobs.result(job.id, wait_s=20)
    assert (result.stop_reason, result.partial) == (StopReason.STOPPED, True)
    said = [answer(f"{query} {call}") for call in range(4)]
    assert result.output in ({"said": said[:3]}, {"said": said})
    assert len(counting.counts(query)) == 4


async def test_a_stop_that_comes_with_the_plan_does_not_wait_for_a_person(
    place: Place, counting: CountingServer
) -> None:
    query = place.folder.name
    counting.shut(f"{query} plan")
    async with at_work(place) as (jobs, worker):
        job = await jobs.submit(JobSpec(kind="planned", query=query, plan_approval=True))
        await came(counting, query, 1)
        # The worker sees it too late: its run ends first.
        worker._heed = lambda *_: None  # type: ignore[method-assign]
        await jobs.stop(job.id)
        counting.open(f"{query} plan")
        view = await jobs.wait(job.id, seconds=20)
        assert (view.state, view.stop_reason) == (JobState.COMPLETED, StopReason.STOPPED)


async def test_a_cancelled_job_that_does_not_heed_it_makes_no_more_calls(
    place: Place, counting: CountingServer
) -> None:
    query = place.folder.name
    counting.settings(delay=0.05)
    async with at_work(place, KINDS, QUICK) as (jobs, worker):
        job = await jobs.submit(JobSpec(kind="deaf", query=query))
        await came(counting, query, 3)
        await jobs.cancel(job.id)
        async with asyncio.timeout(10):
            while worker._runner.at_work[job.id].end is None:
                await asyncio.sleep(0.01)
        made = await asyncio.to_thread(counting.counts, query)
        await asyncio.sleep(0.6)
        more = await asyncio.to_thread(counting.counts, query)
        assert len(more) <= len(made) + 1, "it went on paying"


async def test_a_stopped_job_that_does_not_heed_it_makes_no_more_calls(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    counting.settings(delay=0.05)
    async with at_work(place, KINDS, QUICK) as (jobs, worker):
        job = await jobs.submit(JobSpec(kind="deaf", query=query, budget=JobBudget(calls=500)))
        await came(counting, query, 3)
        await jobs.stop(job.id)
        async with asyncio.timeout(10):
            while worker._runner.at_work[job.id].end is None:
                await asyncio.sleep(0.01)
        made = await asyncio.to_thread(counting.counts, query)
        await asyncio.sleep(0.6)
        more = await asyncio.to_thread(counting.counts, query)
        assert len(more) <= len(made) + 1, "it went on paying"


async def test_a_worker_that_ends_does_not_wait_for_a_job_that_does_not_heed_it(
    place: Place, counting: CountingServer
) -> None:
    started = 0.0
    async with at_work(place, KINDS, QUICK) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="deaf", query=place.folder.name))
        await came(counting, place.folder.name, 3)
        started = time.monotonic()
    assert time.monotonic() - started < 10
    async with place.jobs() as jobs:
        assert (await jobs.get(job.id)).state == JobState.RECOVERING


async def test_a_job_that_lands_with_a_call_of_code_is_handed_over_at_once(
    place: Place, counting: CountingServer
) -> None:
    query = place.folder.name
    counting.shut(query)
    try:
        async with at_work(place, KINDS, QUICK) as (jobs, _):
            job = await jobs.submit(JobSpec(kind="landing", query=query))
            await came(counting, query, 1)
            started = time.monotonic()
        assert time.monotonic() - started < 10
        async with at_work(place, KINDS, QUICK) as (jobs, _):
            await came(counting, query, 1)
            await jobs.stop(job.id)
            result = await jobs.result(job.id, wait_s=20)
    finally:
        counting.open(query)
    assert (result.output, result.partial) == ({"found": "all there is"}, False)
