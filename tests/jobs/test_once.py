"""What a job does to the world is done once, over all its runs; what was cut off is left for a person to look at."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentflow.budget.ledger import EntryFilter, open_ledger
from agentflow.errors import UsageError
from agentflow.jobs.job import JobBudget, JobSpec, JobState
from agentflow.jobs.kinds import JobContext
from tests.jobs.places import Place, at_work, until
from tests.jobs.workers import Workers


def letters(place: Place, **asked: Any) -> tuple[JobSpec, Path]:
    file = place.folder / "letters.txt"
    return JobSpec(kind="mailing", query="a", input={"file": str(file), **asked}, budget=JobBudget(usd="1")), file  # type: ignore[arg-type]


def sent(file: Path) -> list[str]:
    return [line.rsplit(" ", 1)[-1] for line in file.read_text().splitlines()]


async def test_a_run_that_comes_after_does_nothing_twice(any_place: Place) -> None:
    spec, file = letters(any_place, fails=True)
    async with at_work(any_place) as (jobs, _):
        job = await jobs.submit(spec)
        view = await until(jobs, job.id, JobState.COMPLETED)
        assert view.runs == 2
        assert (await jobs.result(job.id)).output == {"said": ["sent to ada", "sent to bob", "sent to ada"]}
        # The same letter to the same person is one effect.
        assert sent(file) == ["ada", "bob"]
        assert view.spend.usd == "0.02"
        attempts = [event async for event in jobs.events(job.id, follow=False) if event.kind == "attempt"]
        assert [event.data["replayed"] for event in attempts] == [False, False, True, True, True, True]


async def test_the_key_is_the_same_in_every_run_and_of_no_other_effect(place: Place) -> None:
    spec, file = letters(place, refused=True)
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(spec)
        await until(jobs, job.id, JobState.COMPLETED)
    keys = [line.rsplit(" ", 1)[0] for line in file.read_text().splitlines()]
    assert len(keys) == 3 and keys[0] == keys[1] != keys[2] and job.id in keys[0]


async def test_what_says_that_it_was_not_done_costs_nothing_and_is_tried_again(place: Place) -> None:
    spec, file = letters(place, refused=True)
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(spec)
        view = await until(jobs, job.id, JobState.COMPLETED)
        assert (view.runs, view.failures, view.spend.usd, view.spend.in_doubt) == (2, 1, "0.02", 0)
        assert sent(file) == ["ada", "ada", "bob"]


@pytest.mark.timeout(150)
@pytest.mark.parametrize("done", [True, False])
async def test_what_was_cut_off_is_asked_of_a_person(place: Place, done: bool) -> None:
    spec, file = letters(place, dies=True)
    with Workers(place.folder, place.environment) as workers:
        async with place.jobs() as jobs:
            job = await jobs.submit(spec)
            await asyncio.to_thread(workers.gone, workers.start())
            workers.start()
            view = await until(jobs, job.id, JobState.FAILED)
            assert view.error is not None and "nobody knows whether it was done" in view.error.message
            assert sent(file) == ["ada"] and view.spend.in_doubt == 1

            ledger = open_ledger(place.settings.ledger)
            (doubted,) = [e for e in await ledger.entries(EntryFilter(job=job.id)) if e.state == "in_doubt"]
            assert f"reconcile '{doubted.key}'" in view.error.message
            spend = doubted.held.amounts and None if not done else doubted.spend
            await ledger.reconcile(doubted.key, spend, "looked into the postbox")
            await ledger.aclose()
            await jobs.resume(job.id)
            view = await until(jobs, job.id, JobState.COMPLETED)
            said = (await jobs.result(job.id)).output["said"]  # type: ignore[call-overload, index]
            if done:
                assert said == [None, "sent to bob", None] and sent(file) == ["ada", "bob"]
            else:
                assert said == ["sent to ada", "sent to bob", "sent to ada"] and sent(file) == ["ada", "ada", "bob"]
            assert view.spend.usd == "0.02"


@pytest.mark.timeout(150)
async def test_what_bears_to_be_repeated_is_done_again_by_itself(place: Place) -> None:
    spec, file = letters(place, dies=True, repeatable=True)
    with Workers(place.folder, place.environment) as workers:
        async with place.jobs() as jobs:
            job = await jobs.submit(spec)
            await asyncio.to_thread(workers.gone, workers.start())
            workers.start()
            view = await until(jobs, job.id, JobState.COMPLETED)
            assert sent(file) == ["ada", "ada", "bob"]
            # The one that was cut off may have cost something.
            assert (view.spend.usd, view.spend.in_doubt) == ("0.03", 1)


async def test_without_room_in_the_budget_it_is_not_done(place: Place) -> None:
    spec, file = letters(place)
    spec = spec.model_copy(update={"budget": JobBudget(usd="0.015", on_limit="fail")})  # type: ignore[arg-type]
    async with at_work(place) as (jobs, _):
        job = await jobs.submit(spec)
        view = await until(jobs, job.id, JobState.FAILED)
        assert sent(file) == ["ada"] and view.spend.usd == "0.01"


async def test_what_is_no_json_is_told_and_not_done_again(place: Place) -> None:
    done: list[str] = []

    async def strange(context: JobContext) -> Any:
        async def act(key: str, _: Any) -> Any:
            done.append(key)
            return object()

        try:
            return {"said": await context.once("strange", act)}
        except UsageError as error:
            assert "is done, but" in str(error)
            return {"said": await context.once("strange", act)}

    async with at_work(place, {"strange": strange}) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="strange", query="a"))
        assert (await jobs.result(job.id)).output == {"said": None}
        assert len(done) == 1


@pytest.mark.parametrize("usd", ["-1", "nan"])
async def test_a_price_that_is_none_is_refused(place: Place, usd: str) -> None:
    async def wrong(context: JobContext) -> Any:
        async def act(key: str, _: Any) -> Any:
            raise AssertionError("it must not be done")

        return await context.once("wrong", act, usd=usd)

    async with at_work(place, {"wrong": wrong}) as (jobs, _):
        job = await jobs.submit(JobSpec(kind="wrong", query="a"))
        view = await until(jobs, job.id, JobState.FAILED)
        assert view.error is not None and "dollars" in view.error.message
