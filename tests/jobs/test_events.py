"""Events: each number once and for ever, for every reader, live and afterwards, across runs of a job."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from agentflow.errors import RunError
from agentflow.jobs import transitions
from agentflow.jobs.database import Database, Work
from agentflow.jobs.job import JobBudget, JobEvent, JobSources, JobSpec, JobState
from agentflow.jobs.journal import Journal
from agentflow.jobs.kinds import JobContext, Outcome
from agentflow.jobs.opening import open_database
from agentflow.jobs.research import research_kind
from agentflow.jobs.service import Jobs
from agentflow.jobs.transitions import Fence, Progress
from agentflow.research.report import Report
from tests.jobs.places import Place, at_work, calls_of
from tests.jobs.test_queues import hand_out
from tests.servers.counting import CountingServer


async def read(jobs: Jobs, id: str, since: int = 0) -> list[JobEvent]:
    return [event async for event in jobs.events(id, since=since)]


async def test_every_reader_gets_every_event_once(any_place: Place, counting: CountingServer) -> None:
    counting.settings(delay=0.005)
    async with at_work(any_place) as (jobs, _), any_place.jobs() as elsewhere:
        query = any_place.folder.name + any_place.settings.jobs.kind
        job = await jobs.submit(calls_of(query, pause=0.01))
        async with asyncio.TaskGroup() as group:
            live = [group.create_task(read(one, job.id)) for one in (jobs, elsewhere) for _ in range(3)]
            late = group.create_task(read(jobs, job.id, since=5))
        afterwards = await read(elsewhere, job.id)
    numbers = [event.number for event in afterwards]
    assert numbers == list(range(1, len(numbers) + 1))
    for task in live:
        assert task.result() == afterwards
    assert late.result() == afterwards[5:]
    assert afterwards[0].data["state"] == "queued" and afterwards[-1].data["state"] == "completed"
    assert sum(event.kind == "attempt" for event in afterwards) == 20


async def test_readers_who_come_at_any_moment_get_every_event_once(any_place: Place) -> None:
    """What is read once for all of them reaches each exactly from where it stands, however it came there."""
    chance = random.Random(3)
    async with at_work(any_place) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="telling", query="a", input={"every": 0.003, "count": 400}))

        async def come_and_read(wait: float, since: int, pace: float) -> list[int]:
            await asyncio.sleep(wait)
            numbers: list[int] = []
            async for event in jobs.events(job.id, since=since):
                numbers.append(event.number)
                await asyncio.sleep(pace)
            return numbers

        async with asyncio.TaskGroup() as group:
            reading = [
                (since, group.create_task(come_and_read(chance.random(), since, chance.choice([0, 0, 0.002, 0.01]))))
                for since in (chance.choice([0, 1, 20, 200]) for _ in range(30))
            ]
        latest = (await jobs.get(job.id)).events
    assert latest > 400
    for since, task in reading:
        assert task.result() == list(range(since + 1, latest + 1))


async def test_a_slow_reader_misses_nothing(place: Place) -> None:
    database = open_database(place.settings.jobs)
    async with place.jobs() as jobs:
        one = await jobs.submit(JobSpec(kind="echo", query="a"))
        await hand_out(database)
        fence = Fence(one.id, 1, "me")
        await database.write(lambda c: transitions.take(c, fence, "run"))
        seen: list[int] = []
        stream = jobs.events(one.id)
        for number in range(1_200):
            note = Progress(fence, 1, [("note", {"note": number})], batch=str(number))
            await database.write(lambda c, note=note: transitions.progress(c, [note]))
            if number % 400 == 0:
                seen.append((await anext(stream)).number)
        await database.write(lambda c: transitions.finish(c, fence, 1, transitions.Ending(JobState.COMPLETED)))
        seen += [event.number async for event in stream]
        assert seen == list(range(1, 1_204))
    await database.aclose()


async def test_a_log_goes_on_where_an_earlier_run_left_it(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    async with at_work(place) as (jobs, _):
        spec = JobSpec(kind="keeping", query=query, budget=JobBudget(calls=2, on_limit="pause"))
        job = await jobs.submit(spec)
        first = await read(jobs, job.id)
        assert first[-1].data["state"] == "paused_budget"
        await jobs.set_budget(job.id, JobBudget(calls=9))
        await jobs.resume(job.id)
        rest = await read(jobs, job.id, since=first[-1].number)
    numbers = [event.number for event in [*first, *rest]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {event.run for event in rest if event.kind == "attempt"} == {2}
    replayed = [event.data["replayed"] for event in rest if event.kind == "attempt"]
    assert replayed == [True, True, False, False, False]


async def test_a_research_job_tells_what_it_does(place: Place) -> None:
    source = place.folder / "source.md"
    source.write_text("# Tides\n\nThe tides are caused by the gravity of the moon and of the sun.\n")
    query = "What causes the tides?"
    async with at_work(place, {"research": research_kind}) as (jobs, _):
        job = await jobs.submit(JobSpec(query=query, sources=JobSources(origins=(str(source),))))
        events = await read(jobs, job.id)
        result = await jobs.result(job.id)
        sources = await jobs.sources(job.id)
        report = (await jobs.read(job.id, "report.md")).decode()
        text = (await jobs.read(job.id, sources[0].name)).decode()
    kinds = {event.kind for event in events}
    assert {"state", "plan", "task", "attempt", "source", "claim", "note"} <= kinds
    states = [event.data["state"] for event in events if event.kind == "state"]
    assert states[:2] == ["queued", "planning"] and states[-1] == "completed" and "verifying" in states
    assert isinstance(result.output, dict) and result.output["job"] == job.id
    assert sources[0].facts["origin"] == str(source) and "gravity of the moon" in text
    assert report.startswith(f"# {query}")


async def test_the_bill_of_a_report_has_what_earlier_runs_of_the_job_cost(place: Place) -> None:
    source = place.folder / "source.md"
    source.write_text("# Tides\n\nThe tides are caused by the gravity of the moon and of the sun.\n")

    async def at_the_second_try(context: JobContext) -> Outcome:
        outcome = await research_kind(context)
        if context.run == 1:
            raise RunError("on purpose")
        return outcome

    async with at_work(place, {"research": at_the_second_try}) as (jobs, _):
        spec = JobSpec(
            query="What causes the tides?", sources=JobSources(origins=(str(source),)), budget=JobBudget(calls=50)
        )
        job = await jobs.submit(spec)
        result = await jobs.result(job.id, wait_s=30)
        view = await jobs.get(job.id)
    report = Report.model_validate(result.output)
    assert view.runs == 2 and view.spend.calls > len(report.meter.attempts)
    assert report.meter.total.calls == view.spend.calls
    assert report.meter.total.joules.mean == pytest.approx(view.spend.joules, abs=1e-5)
    (limit,) = report.meter.limits
    assert limit.spent.startswith(str(view.spend.calls))


async def test_what_was_written_by_a_lost_commit_is_not_written_again(postgres_place: Place) -> None:
    class LosesAnswers(Database):
        """Repeats every write, as when the connection breaks during a commit."""

        async def write(self, work: Work[Any]) -> Any:
            await super().write(work)
            return await super().write(work)

    database = open_database(postgres_place.settings.jobs)
    loses = LosesAnswers(database.address)
    journal = Journal(loses, lambda fences: None)
    async with postgres_place.jobs() as jobs:
        one = await jobs.submit(JobSpec(kind="echo", query="a"))
        await hand_out(database)
        fence = Fence(one.id, 1, "me")
        await database.write(lambda c: transitions.take(c, fence, "run"))
        writing = asyncio.create_task(journal.write())
        for number in (1, 3):
            journal.tell(fence, 1, [("note", {"note": number}), ("note", {"note": number + 1})])
            await journal.flush()
        writing.cancel()
        events = [event async for event in jobs.events(one.id, follow=False)]
        assert [event.data.get("note") for event in events if event.kind == "note"] == [1, 2, 3, 4]
    await loses.aclose()
    await database.aclose()


async def test_who_waits_for_what_was_told_waits_for_what_is_just_being_written(place: Place) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Database):
        async def write(self, work: Work[Any]) -> Any:
            begun.set()
            await go_on.wait()
            return await super().write(work)

    database = Slow(place.folder / "jobs.db")
    journal = Journal(database, lambda _: None)
    writing = asyncio.create_task(journal.write())
    journal.tell(Fence("job", 1, "me"), 1, [("note", {"note": "last words"})])
    await begun.wait()
    flushing = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    assert not flushing.done(), "a run would be ended before its last events are written"
    go_on.set()
    await flushing
    writing.cancel()
    await database.aclose()
