"""Workers killed, frozen and ended at random moments: every job ends right, and no finished call is paid for again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentflow.budget.ledger import Entry, EntryFilter, open_ledger
from agentflow.budget.ledger.durable import DurableLedger
from agentflow.jobs.job import JobBudget, JobSpec, JobState, JobView
from agentflow.jobs.service import Jobs
from tests.jobs.places import Place, calls_of, until
from tests.jobs.test_states import said
from tests.jobs.workers import Workers
from tests.servers.counting import CountingServer

KILLS = 3
# Processes start and die here; a machine that is busy with other things needs its time.
pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def workers(any_place: Place) -> Iterator[Workers]:
    with Workers(any_place.folder, any_place.environment) as workers:
        yield workers


async def entries_of(place: Place, job: str) -> list[Entry]:
    ledger = open_ledger(place.settings.ledger)
    try:
        return list(await ledger.entries(EntryFilter(job=job)))
    finally:
        await ledger.aclose()


async def all_is_well(place: Place, jobs: Jobs, ids: dict[str, str], counting: CountingServer, branches: int, calls: int) -> None:  # fmt: skip  # noqa: E501
    """Every job is done and right; what was repeated is no more than what was in doubt; the log has no gap."""
    for id, query in ids.items():
        view = await jobs.get(id)
        assert view.state == JobState.COMPLETED, view
        assert (await jobs.result(id)).output == {"said": said(query, branches, calls)}
        counts = await asyncio.to_thread(counting.counts, f"{query} ")
        assert len(counts) == branches * calls
        entries = await entries_of(place, id)
        settled = [entry for entry in entries if entry.state == "settled"]
        doubted = [entry for entry in entries if entry.state == "in_doubt"]
        assert len(settled) == branches * calls, "a finished call was made again, or is missing"
        assert not [entry for entry in entries if entry.state == "held"]
        repeated = sum(came - 1 for came, _ in counts.values())
        assert repeated <= len(doubted), (repeated, len(doubted))
        numbers = [event.number async for event in jobs.events(id, follow=False)]
        assert numbers == list(range(1, view.events + 1))
        assert view.spend.calls == len(settled) + len(doubted)
    ledger = open_ledger(place.settings.ledger)
    assert isinstance(ledger, DurableLedger)
    assert await ledger.audit() == []
    await ledger.aclose()


async def ended(jobs: Jobs, ids: dict[str, str]) -> None:
    for id in ids:
        await until(jobs, id, JobState.COMPLETED, JobState.FAILED, seconds=45)


async def test_kills_at_random_moments_lose_nothing(
    any_place: Place, workers: Workers, counting: CountingServer
) -> None:
    chance = random.Random(7)
    counting.settings(delay=0.02)
    async with any_place.jobs() as jobs:
        ids: dict[str, str] = {}
        budget = JobBudget(calls=200)
        for number in range(4):
            query = f"{any_place.folder.name}-{any_place.settings.jobs.kind}-{number}"
            ids[(await jobs.submit(calls_of(query, pause=0.02, budget=budget))).id] = query
        for _ in range(KILLS):
            pid = workers.start("--slots", "4")
            enough = await asyncio.to_thread(counting.total) + chance.randint(1, 18)
            async with asyncio.timeout(20):
                while await asyncio.to_thread(counting.total) < enough:
                    await asyncio.sleep(0.003)
            await asyncio.sleep(0.02 * chance.random())
            await asyncio.to_thread(workers.end, pid)
        workers.start("--slots", "4")
        await ended(jobs, ids)
        await all_is_well(any_place, jobs, ids, counting, 4, 5)
        for id in ids:
            assert (await jobs.get(id)).spend.calls <= 200


async def test_a_worker_that_is_ended_hands_its_jobs_over(
    any_place: Place, workers: Workers, counting: CountingServer
) -> None:
    counting.settings(delay=0.05)
    query = f"{any_place.folder.name}-{any_place.settings.jobs.kind}"
    async with any_place.jobs() as jobs:
        ids = {(await jobs.submit(calls_of(query, pause=0.2))).id: query}
        first = workers.start()
        (id,) = ids
        await until(jobs, id, JobState.RUNNING)
        await asyncio.sleep(0.3)
        assert await asyncio.to_thread(workers.end, first, signal.SIGTERM) == 0
        view = await jobs.get(id)
        assert (view.state, view.worker, view.recoveries) == (JobState.RECOVERING, None, 0)
        assert not [entry for entry in await entries_of(any_place, id) if entry.state in ("held", "in_doubt")]
        workers.start()
        await ended(jobs, ids)
        await all_is_well(any_place, jobs, ids, counting, 4, 5)
        assert all(count == (1, 1) for count in counting.counts(query).values())


async def test_a_job_that_kills_its_workers_is_left_for_a_person(place: Place) -> None:
    place = Place(place.folder, place.settings, place.environment)
    text = (place.folder / "agentflow.toml").read_text()
    (place.folder / "agentflow.toml").write_text(text.replace("[jobs]\n", "[jobs]\nworker_deaths = 2\n"))
    with Workers(place.folder, {}) as workers:
        async with place.jobs() as jobs:
            job = await jobs.submit(JobSpec(kind="deadly", query="a"))
            for _ in range(3):
                assert await asyncio.to_thread(workers.gone, workers.start()) == -signal.SIGKILL
            workers.start()
            view = await until(jobs, job.id, JobState.FAILED)
            assert (view.runs, view.recoveries) == (3, 3)
            assert view.error is not None and view.error.dead_letter and "died 3 times" in view.error.message


async def takeover(jobs: Jobs, id: str, old: str | None) -> JobView:
    async with asyncio.timeout(20):
        while (view := await jobs.get(id)).worker in (None, old):
            await asyncio.sleep(0.02)
    return view


@pytest.mark.parametrize("count", [2, 4])
async def test_jobs_of_a_killed_worker_go_on_elsewhere(
    postgres_place: Place, counting: CountingServer, count: int
) -> None:
    place = postgres_place
    counting.settings(delay=0.02)
    with Workers(place.folder, place.environment) as workers:
        async with place.jobs() as jobs:
            pids = [workers.start("--slots", "3") for _ in range(count)]
            async with asyncio.timeout(40):
                while len((await jobs.statistics()).workers) < count:
                    await asyncio.sleep(0.02)
            ids: dict[str, str] = {}
            for number in range(3 * count):
                query = f"{place.folder.name}-{number}"
                ids[(await jobs.submit(calls_of(query, pause=0.3))).id] = query
            for id in ids:
                await until(jobs, id, JobState.RUNNING, JobState.COMPLETED)
            started = time.monotonic()
            await asyncio.to_thread(workers.end, pids[0])
            await ended(jobs, ids)
            await all_is_well(place, jobs, ids, counting, 4, 5)
            print(f"all ended {time.monotonic() - started:.1f} s after the kill")
            assert sum([(await jobs.get(id)).recoveries for id in ids]) >= 1


@pytest.mark.parametrize("count", [2, 4])
async def test_a_worker_that_slept_through_its_lease_is_fenced(
    postgres_place: Place, counting: CountingServer, count: int
) -> None:
    place, query = postgres_place, postgres_place.folder.name
    counting.shut(f"{query} 0.1")
    with Workers(place.folder, place.environment) as workers:
        async with place.jobs() as jobs:
            zombie = workers.start()
            job = await jobs.submit(calls_of(query, branches=2, calls=3))
            async with asyncio.timeout(20):
                while len(await asyncio.to_thread(counting.counts, query)) < 4:
                    await asyncio.sleep(0.02)
            old = (await jobs.get(job.id)).worker
            os.kill(zombie, signal.SIGSTOP)
            started = time.monotonic()
            for _ in range(count - 1):
                workers.start()
            view = await takeover(jobs, job.id, old)
            took_s = time.monotonic() - started
            print(f"taken over after {took_s:.1f} s")
            assert took_s < 10 and view.recoveries == 1
            async with asyncio.timeout(20):
                while (await asyncio.to_thread(counting.counts, query))[f"{query} 0.1"][0] < 2:
                    await asyncio.sleep(0.02)
            # The zombie wakes in the middle of its call, which ends now; the job is another's.
            os.kill(zombie, signal.SIGCONT)
            counting.open(f"{query} 0.1")
            await ended(jobs, {job.id: query})
            assert (await jobs.result(job.id)).output == {"said": said(query, 2, 3)}
            view = await jobs.get(job.id)
            numbers = [event.number async for event in jobs.events(job.id, follow=False)]
            assert numbers == list(range(1, view.events + 1))
            runs = [event.run async for event in jobs.events(job.id, follow=False) if event.run]
            assert runs == sorted(runs), "the zombie wrote after its job was another's"
            counts = await asyncio.to_thread(counting.counts, query)
            # Only what was under way when it was stopped was made by both: a call of each branch at most.
            twice = {prompt: came for prompt, (came, _) in counts.items() if came > 1}
            assert twice[f"{query} 0.1"] == 2
            assert twice.keys() <= {f"{query} 0.1", f"{query} 1.1", f"{query} 1.2"} and set(twice.values()) == {2}
            # It goes on as a worker like any other.
            more = await jobs.submit(calls_of(f"{query}-more"))
            await ended(jobs, {more.id: ""})
            assert await asyncio.to_thread(workers.end, zombie, signal.SIGTERM) == 0


async def test_one_process_at_a_time_works_on_sqlite(place: Place) -> None:
    with Workers(place.folder, {}) as workers:
        workers.start()
        async with place.jobs() as jobs:
            job = await jobs.submit(JobSpec(kind="echo", query="a"))
            await until(jobs, job.id, JobState.COMPLETED)
        assert await asyncio.to_thread(workers.gone, workers.start()) == 2
        assert "SQLite allows one at a time" in Path(workers.log).read_text()
