"""The life of a job: every state and every reason to stop, on both databases."""

from __future__ import annotations

import asyncio
import gc
import weakref
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from agentflow.budget.meter import Meter
from agentflow.errors import JobFailed, JobStateConflict, UnknownJob
from agentflow.jobs.job import JobBudget, JobSpec, JobState, StopReason
from agentflow.jobs.kinds import JobContext
from agentflow.jobs.service import Jobs
from tests.jobs.places import Place, at_work, calls_of, until
from tests.servers.counting import CountingServer, answer


def said(query: str, branches: int, calls: int) -> list[list[str]]:
    return [[answer(f"{query} {branch}.{call}") for call in range(calls)] for branch in range(branches)]


async def came(counting: CountingServer, prefix: str, most: int) -> None:
    """Wait until so many calls of a job have reached the server."""
    async with asyncio.timeout(20):
        while len(await asyncio.to_thread(counting.counts, prefix)) < most:
            await asyncio.sleep(0.01)


async def test_a_job_runs_to_its_end_and_gives_its_result(any_place: Place, counting: CountingServer) -> None:
    query = any_place.folder.name + any_place.settings.jobs.kind
    async with at_work(any_place) as (jobs, _):
        job = await jobs.submit(calls_of(query, metadata={"mine": "yes"}))
        assert job.state == JobState.QUEUED
        result = await jobs.result(job.id, wait_s=30)
        view = await jobs.get(job.id)
    assert result.output == {"said": said(query, 4, 5)} and not result.partial
    assert (view.state, view.stop_reason, view.runs) == (JobState.COMPLETED, StopReason.SATISFIED, 1)
    assert view.spend.calls == 20 and view.spend.tokens == 20 * 15
    # 10 input tokens at a dollar a million, 5 output tokens at two.
    assert Decimal(view.spend.usd) == 20 * Decimal("0.00002")
    assert view.spend.joules_low is not None and view.spend.joules_high is not None
    assert view.spend.joules_low <= view.spend.joules <= view.spend.joules_high
    assert all(count == (1, 1) for count in counting.counts(query).values())
    assert view.spec.metadata == {"mine": "yes"}


async def test_cancel_discards_what_was_found(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    counting.shut(f"{query} 3")
    try:
        async with at_work(place) as (jobs, worker):
            job = await jobs.submit(JobSpec(kind="keeping", query=query))
            await came(counting, query, 4)
            view = await jobs.cancel(job.id)
            assert (view.state, view.stop_reason) == (JobState.CANCELLED, StopReason.CANCELLED)
            async with asyncio.timeout(10):
                while worker._runner.at_work:
                    await asyncio.sleep(0.02)
            with pytest.raises(JobFailed, match="cancelled without a result"):
                await jobs.result(job.id)
            assert await jobs.artifacts(job.id) == []
            again = await jobs.cancel(job.id)
            assert again.state == JobState.CANCELLED
    finally:
        counting.open(f"{query} 3")
    assert len(counting.counts(query)) == 4


async def test_stop_delivers_what_was_found_marked_partial(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    counting.shut(f"{query} 3")
    try:
        async with at_work(place) as (jobs, _):
            job = await jobs.submit(JobSpec(kind="keeping", query=query))
            await came(counting, query, 4)
            await jobs.stop(job.id)
            result = await jobs.result(job.id, wait_s=20)
    finally:
        counting.open(f"{query} 3")
    assert (result.state, result.stop_reason, result.partial) == (JobState.COMPLETED, StopReason.STOPPED, True)
    assert result.output == {"said": [answer(f"{query} {call}") for call in range(3)]}


async def test_a_job_that_waits_is_stopped_and_cancelled_at_once(place: Place) -> None:
    async with place.jobs() as jobs:
        one, two = await jobs.submit(calls_of("a")), await jobs.submit(calls_of("b"))
        assert (await jobs.stop(one.id)).state == JobState.COMPLETED
        assert (await jobs.cancel(two.id)).state == JobState.CANCELLED
        with pytest.raises(JobFailed):
            await jobs.result(one.id)


async def test_a_deadline_ends_a_running_job_with_what_it_has(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    counting.shut(f"{query} 2")
    try:
        async with at_work(place) as (jobs, _):
            soon = datetime.now(UTC) + timedelta(seconds=1)
            job = await jobs.submit(JobSpec(kind="keeping", query=query, deadline=soon))
            result = await jobs.result(job.id, wait_s=20)
    finally:
        counting.open(f"{query} 2")
    assert (result.stop_reason, result.partial) == (StopReason.DEADLINE, True)
    assert result.output == {"said": [answer(f"{query} {call}") for call in range(2)]}


async def test_a_deadline_that_passes_in_the_queue_is_told(place: Place) -> None:
    async with at_work(place) as (jobs, _):
        now = datetime.now(UTC)
        late = JobSpec(kind="echo", query="a", deadline=now + timedelta(seconds=0.2), queue="nobody-serves")
        job = await jobs.submit(late)
        view = await jobs.wait(job.id, seconds=20)
        assert (view.state, view.stop_reason) == (JobState.FAILED, StopReason.DEADLINE)
        assert view.error is not None and "deadline passed" in view.error.message


@pytest.mark.parametrize(
    ("on_limit", "state"),
    [("answer", JobState.COMPLETED), ("pause", JobState.PAUSED_BUDGET), ("fail", JobState.FAILED)],
)
async def test_a_budget_that_is_used_up(place: Place, counting: CountingServer, on_limit: str, state: JobState) -> None:
    query = f"{place.folder.name} {on_limit}"
    async with at_work(place) as (jobs, _):
        spec = JobSpec(kind="keeping", query=query, budget=JobBudget(calls=3).model_copy(update={"on_limit": on_limit}))
        job = await jobs.submit(spec)
        view = await jobs.wait(job.id, seconds=20)
        assert (view.state, view.stop_reason, view.partial) == (state, StopReason.BUDGET_REACHED, True)
        result = await jobs.result(job.id)
        assert result.partial and result.output == {"said": [answer(f"{query} {call}") for call in range(3)]}
        assert len(counting.counts(query)) == 3
        if on_limit == "answer":
            with pytest.raises(JobStateConflict, match="nothing more will be spent"):
                await jobs.set_budget(job.id, JobBudget(calls=10))
            return
        await jobs.set_budget(job.id, JobBudget(calls=10))
        await jobs.resume(job.id)
        result = await jobs.result(job.id, wait_s=20)
        assert not result.partial
        assert result.output == {"said": [answer(f"{query} {call}") for call in range(5)]}
        assert all(count == (1, 1) for count in counting.counts(query).values()), "a finished call was paid again"
        assert (await jobs.get(job.id)).spend.calls == 5


async def test_the_budget_of_a_running_job_is_lowered_and_raised(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    counting.shut(f"{query} 1")
    async with at_work(place) as (jobs, worker):
        budget = JobBudget(calls=100, on_limit="pause")
        job = await jobs.submit(JobSpec(kind="keeping", query=query, budget=budget))
        await came(counting, query, 2)
        await jobs.set_budget(job.id, JobBudget(calls=3, on_limit="pause"))
        async with asyncio.timeout(10):
            while worker._runner.at_work[job.id].budget_changes < 1:
                await asyncio.sleep(0.02)
        counting.open(f"{query} 1")
        view = await until(jobs, job.id, JobState.PAUSED_BUDGET, JobState.COMPLETED)
        assert view.state == JobState.PAUSED_BUDGET
        assert len(counting.counts(query)) == 3
        assert "budget" in [event.kind async for event in jobs.events(job.id, follow=False)]


async def test_a_failing_job_is_tried_again(place: Place) -> None:
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="failing", query="a", input={"failures": 2}))
        view = await jobs.wait(job.id, seconds=20)
        assert (view.state, view.runs, view.failures) == (JobState.COMPLETED, 3, 2)
        assert (await jobs.result(job.id)).output == {"run": 3}


async def test_a_job_that_keeps_failing_becomes_a_dead_letter_and_can_be_resumed(place: Place) -> None:
    from agentflow.jobs.job import JobFilter

    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="failing", query="a", input={"failures": 3}))
        view = await jobs.wait(job.id, seconds=20)
        assert (view.state, view.stop_reason, view.failures) == (JobState.FAILED, StopReason.ERROR, 3)
        assert view.error is not None and view.error.dead_letter and "run 3 failed on purpose" in view.error.message
        assert [one.id for one in (await jobs.list(JobFilter(dead_letter=True))).jobs] == [job.id]
        await jobs.resume(job.id)
        view = await jobs.wait(job.id, seconds=20)
        assert view.state == JobState.COMPLETED
        assert not (await jobs.list(JobFilter(dead_letter=True))).jobs


async def test_an_unforeseen_error_tells_no_secret(place: Place) -> None:
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="broken", query="a"))
        view = await jobs.wait(job.id, seconds=20)
        assert view.state == JobState.FAILED and view.error is not None
        assert "ZeroDivisionError" in view.error.message and "secret" not in view.model_dump_json()


async def test_a_job_that_cannot_be_is_not_tried_again(place: Place) -> None:
    async with at_work(place) as (jobs, _):
        nobody = await jobs.submit(JobSpec(kind="echo", query="a", tenant="nobody"))
        for job, words in ((nobody, "No tenant is called"),):
            view = await jobs.wait(job.id, seconds=20)
            assert (view.state, view.runs) == (JobState.FAILED, 1)
            assert view.error is not None and words in view.error.message and not view.error.retryable


async def test_a_kind_that_a_worker_does_not_know_is_tried_again_for_another_may(place: Place) -> None:
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="no-such-kind", query="a"))
        view = await jobs.wait(job.id, seconds=20)
        assert (view.state, view.runs) == (JobState.FAILED, 3)
        assert view.error is not None and view.error.dead_letter and "cannot run jobs of kind" in view.error.message


async def test_a_failed_call_is_made_again_when_the_job_is_tried_again(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    counting.settings(fail=1)
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="keeping", query=query, input={"calls": 2}))
        view = await jobs.wait(job.id, seconds=20)
    assert (view.state, view.failures) == (JobState.COMPLETED, 1), view.error
    assert counting.counts(query)[f"{query} 0"] == (2, 1)
    assert view.spend.in_doubt == 1


async def test_a_plan_waits_for_approval_and_is_not_paid_for_twice(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="planned", query=query, plan_approval=True))
        view = await jobs.wait(job.id, seconds=20)
        assert (view.state, view.plan) == (JobState.AWAITING_APPROVAL, ("one", "two"))
        with pytest.raises(JobStateConflict, match="awaiting_approval and has no result"):
            await jobs.result(job.id)
        await jobs.approve(job.id, plan=["three"])
        result = await jobs.result(job.id, wait_s=20)
        assert result.output == {"said": [answer(f"{query} three")]}
        with pytest.raises(JobStateConflict, match="does not wait"):
            await jobs.approve(job.id, plan=["four"])
    assert counting.counts(query) == {f"{query} plan": (1, 1), f"{query} three": (1, 1)}


async def test_only_what_failed_or_is_paused_can_be_resumed(place: Place) -> None:
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="echo", query="a"))
        await jobs.wait(job.id, seconds=20)
        with pytest.raises(JobStateConflict, match="is completed"):
            await jobs.resume(job.id)


async def test_a_deleted_job_leaves_nothing_but_its_bill(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    async with at_work(place) as (jobs, worker):
        job = await jobs.submit(calls_of(query))
        with pytest.raises(JobStateConflict, match="Cancel it first"):
            await jobs.delete(job.id)
        await jobs.wait(job.id, seconds=20)
        files = [path for path in (place.folder / "store").rglob("*") if path.is_file()]
        assert files
        await jobs.delete(job.id)
        for ask in (jobs.get, jobs.result, jobs.artifacts, jobs.delete):
            with pytest.raises(UnknownJob):
                await ask(job.id)
        with pytest.raises(UnknownJob):
            _ = [event async for event in jobs.events(job.id)]
        assert not [path for path in (place.folder / "store").rglob("*") if path.is_file()]
        ledger = worker._runner._runtime.ledger
        entries = await ledger.entries()
        assert len(entries) == 20
        for entry in entries:
            kept = await ledger.find(entry.key)
            assert kept is not None and kept.completion is None and kept.spend is not None
    for path in place.folder.glob("*.db*"):
        if path.is_file() and "engine" not in path.name:
            replies = [answer(f"{query} {n}.{m}").encode() for n in range(4) for m in range(5)]
            assert path.name != "jobs.db" or not any(reply in path.read_bytes() for reply in replies)


async def test_a_tenant_sees_its_own_jobs_only(place: Place) -> None:
    from agentflow.jobs.job import JobFilter

    async with place.jobs() as jobs:
        job = await jobs.submit(JobSpec(kind="echo", query="a", tenant="one"))
        assert (await jobs.get(job.id, tenant="one")).id == job.id

        async def ask(jobs: Jobs) -> None:
            await jobs.get(job.id, tenant="two")

        with pytest.raises(UnknownJob) as theirs:
            await ask(jobs)
        with pytest.raises(UnknownJob) as nobodys:
            await jobs.get("20260101-000000-0000000000000000", tenant="two")
        assert str(theirs.value).replace(job.id, "X") == str(nobodys.value).replace(
            "20260101-000000-0000000000000000", "X"
        )
        for act in (jobs.cancel, jobs.stop, jobs.resume, jobs.delete, jobs.approve):
            with pytest.raises(UnknownJob):
                await act(job.id, tenant="two")
        assert (await jobs.list(JobFilter(tenant="two"))).jobs == ()


async def test_nothing_of_a_job_stays_in_memory_once_it_has_ended(place: Place) -> None:
    left: list[weakref.ref[Meter]] = []

    async def remembered(context: JobContext) -> str:
        left.append(weakref.ref(context.meter))
        return "done"

    async with at_work(place, {"remembered": remembered}) as (jobs, worker):
        job = await jobs.submit(JobSpec(kind="remembered", query="a"))
        await until(jobs, job.id, JobState.COMPLETED)
        while worker._runner.at_work:
            await asyncio.sleep(0.01)
        gc.collect()
        assert [meter() for meter in left] == [None]
