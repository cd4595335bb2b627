"""What jobs tell and return may be anything: it harms neither their worker nor anybody else's jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentflow.errors import UnknownJob, UsageError
from agentflow.jobs.job import JobFilter, JobSpec, JobState, ask_for
from agentflow.jobs.kinds import JobContext
from agentflow.jobs.runner import Tries
from agentflow.jobs.worker import WorkerOptions
from tests.jobs.places import Place, at_work

ONCE = WorkerOptions(lease_s=2.0, tries=Tries(1, 0.0))


async def tells(context: JobContext) -> Any:
    """Tells of what pages and models may hold: half a character, the character zero, no number."""
    context.emit("note", {"note": "half \ud800, zero \x00, whole \U0001f642", "\udfff": float("nan")})
    await context.planned(("half \ud800",))
    return {"half": "\ud800 \x00", "none": [float("nan"), float("inf")]}


async def no_json(context: JobContext) -> Any:
    """Returns what is no JSON at all."""
    return {(1, 2): object()}


async def bottomless(context: JobContext) -> Any:
    """Returns what holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


KINDS = {"tells": tells, "nojson": no_json, "bottomless": bottomless}


async def test_a_job_tells_what_no_database_can_keep_and_its_worker_lives(any_place: Place) -> None:
    async with at_work(any_place, KINDS, ONCE) as (jobs, _):
        for _ in range(2):
            job = await jobs.submit(JobSpec(kind="tells", query="a"))
            view = await jobs.wait(job.id, seconds=20)
            assert view.state == JobState.COMPLETED, view.error
            events = [event async for event in jobs.events(job.id)]
            for event in events:
                json.dumps(dict(event.data), ensure_ascii=False, allow_nan=False).encode()
            assert any("whole \U0001f642" in str(event.data.get("note")) for event in events)
            output = (await jobs.result(job.id)).output
            json.dumps(output, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("kind", ["nojson", "bottomless"])
async def test_a_result_that_is_no_json_fails_the_job(place: Place, kind: str) -> None:
    async with at_work(place, KINDS, ONCE) as (jobs, _):
        job = await jobs.submit(JobSpec(kind=kind, query="a"))
        view = await jobs.wait(job.id, seconds=5)
        assert (view.state, view.runs) == (JobState.FAILED, 1)
        assert view.error is not None and "JSON" in view.error.message


@pytest.mark.parametrize("id", ["zero\x00", "half\ud800", "x" * 100_000, "../..", "", "\U0001f4a5"], ids=range(6))
async def test_an_id_that_is_none_is_an_unknown_job(any_place: Place, id: str) -> None:
    async with any_place.jobs() as jobs:
        for ask in (jobs.get, jobs.cancel, jobs.stop, jobs.resume, jobs.delete, jobs.artifacts, jobs.result):
            with pytest.raises(UnknownJob):
                await ask(id)


@pytest.mark.parametrize(
    "asked",
    [
        {"query": "zero \x00"},
        {"query": "a", "dedup_key": "zero \x00"},
        {"query": "a", "metadata": {"zero \x00": "a"}},
        {"query": "a", "metadata": {"a": "zero \x00"}},
        {"query": "a", "input": {"a": [{"zero \x00": 1}]}},
        {"query": "half \ud800"},
    ],
    ids=range(6),
)
async def test_what_postgres_cannot_keep_is_refused_before_it_is_written(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ask_for(kind="echo", **asked)


async def test_a_search_that_no_job_can_fit_finds_none(any_place: Place) -> None:
    async with any_place.jobs() as jobs:
        await jobs.submit(JobSpec(kind="echo", query="a", metadata={"a": "b"}))
        for which in (
            JobFilter(metadata={"a": "zero \x00"}), JobFilter(metadata={"zero \x00": "b"}), JobFilter(tenant="\x00"),
        ):  # fmt: skip
            assert (await jobs.list(which)).jobs == ()


@pytest.mark.parametrize("since", [2**31, 2**63, 10**30])
async def test_events_after_a_number_that_none_has(any_place: Place, since: int) -> None:
    async with any_place.jobs() as jobs:
        job = await jobs.submit(JobSpec(kind="echo", query="a"))
        assert [event async for event in jobs.events(job.id, since=since, follow=False)] == []
