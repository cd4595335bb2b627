"""A disk that is full, a database that restarts or is none: a clear error, nothing half written, and it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from agentflow.errors import ConfigError, JobStoreError, UsageError
from agentflow.jobs import database as database_module
from agentflow.jobs.database import Database
from agentflow.jobs.hiring import open_worker
from agentflow.jobs.job import JobSpec, JobState
from agentflow.jobs.opening import open_database
from agentflow.runtime import Runtime
from tests.jobs.places import Place, at_work, calls_of, make_place
from tests.jobs.test_kill import all_is_well, ended
from tests.jobs.workers import Workers
from tests.servers.counting import CountingServer
from tests.servers.postgres import PostgresServer


async def test_a_full_disk_is_told_and_what_was_there_stays(place: Place) -> None:
    async with place.jobs() as jobs:
        kept = [(await jobs.submit(JobSpec(kind="echo", query=str(n)))).id for n in range(5)]
        database = jobs._database

        def fill(connection: sa.Connection) -> None:
            pages = connection.exec_driver_sql("pragma page_count").scalar_one()
            connection.exec_driver_sql(f"pragma max_page_count = {pages}")

        # The pool hands the writing thread the same connection again.
        await database.write(fill)
        big = JobSpec(kind="echo", query="x" * 4_000, metadata={str(n): "y" * 512 for n in range(32)})
        with pytest.raises(JobStoreError, match=r"cannot be read or written: .*full.* Nothing is half written.*space"):
            for _ in range(20):
                kept.append((await jobs.submit(big)).id)
        await database.write(lambda c: c.exec_driver_sql("pragma max_page_count = 4294967294"))
        assert sorted(view.id for view in (await jobs.list(limit=100)).jobs) == sorted(kept)
        for id in kept:
            assert [event.number async for event in jobs.events(id, follow=False)] == [1]
        kept.append((await jobs.submit(big)).id)
    with contextlib.closing(sqlite3.connect(place.folder / "jobs.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.timeout(150)
async def test_a_disk_that_fills_up_under_a_running_job(tmp_path: Path, counting: CountingServer) -> None:
    """A disk of three megabytes, seen by one process alone, with all that jobs write on it."""
    disk = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"']
    probe = await asyncio.create_subprocess_exec(*disk, str(tmp_path), "true", stderr=asyncio.subprocess.PIPE)
    if (await probe.communicate()) and probe.returncode != 0:
        pytest.skip("no disk may be mounted here")
    process = await asyncio.create_subprocess_exec(
        *disk, str(tmp_path), sys.executable, "-m", "tests.jobs.full_disk", str(tmp_path), counting.url,
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0 and b"all is well" in output, output.decode()
    counts = await asyncio.to_thread(counting.counts, "disk ")
    # What was under way when the disk was full could not be written down; nothing else was made again.
    assert len(counts) == 12 and sum(came - 1 for came, _ in counts.values()) <= 4


async def test_a_store_that_is_full_fails_the_job_and_it_is_tried_again(place: Place) -> None:
    async with at_work(place) as (jobs, worker):
        put, left = worker._store.put, 1

        async def full(job: str, sha256: str, data: bytes) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise JobStoreError("The store cannot be used: No space left on device.")
            await put(job, sha256, data)

        worker._runner._store.put = full  # type: ignore[method-assign]
        job = await jobs.submit(JobSpec(kind="echo", query="a"))
        view = await jobs.wait(job.id, seconds=20)
        assert (view.state, view.failures, view.runs) == (JobState.COMPLETED, 1, 2)


async def test_a_file_that_is_none_of_ours_is_told_and_left(tmp_path: Path, counting: CountingServer) -> None:
    place = make_place(tmp_path, counting.url)
    (tmp_path / "jobs.db").write_text("my holiday plans, " * 1_000)
    async with place.jobs() as jobs:
        with pytest.raises(JobStoreError, match="not a database"):
            await jobs.submit(JobSpec(kind="echo", query="a"))
    assert (tmp_path / "jobs.db").read_text().startswith("my holiday plans")


async def test_jobs_of_another_version_are_not_written(any_place: Place) -> None:
    async with any_place.jobs() as jobs:
        await jobs.submit(JobSpec(kind="echo", query="a"))
        await jobs._database.write(lambda c: c.exec_driver_sql("update agentflow_jobs_about set version = 7"))
    async with any_place.jobs() as jobs:
        with pytest.raises(JobStoreError, match="of version 7, this program writes version 1"):
            await jobs.list()


async def test_the_files_are_their_owners_alone(place: Place) -> None:
    async with place.jobs() as jobs:
        await jobs.submit(JobSpec(kind="echo", query="a"))
    for path in place.folder.glob("jobs.db*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_a_server_that_is_away_is_an_error_in_time_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_module, "_PATIENCE_S", 0.2)
    database = Database("postgresql://someone:tiptoe-secret@127.0.0.1:9/nowhere")
    with pytest.raises(JobStoreError) as told:
        await database.read(lambda c: None)
    assert "tiptoe-secret" not in str(told.value) and "PostgreSQL" in str(told.value)
    await database.aclose()


async def test_an_address_that_is_not_given_is_told(tmp_path: Path, counting: CountingServer) -> None:
    place = make_place(tmp_path, counting.url, "postgresql:///nowhere")
    with pytest.raises(ConfigError, match=r"jobs\.url_env: the variable TEST_URL is not set"):
        open_database(place.settings.jobs)


async def test_durable_jobs_refuse_a_ledger_that_would_forget(place: Place) -> None:
    ledger = place.settings.ledger.model_copy(update={"kind": "memory"})
    settings = place.settings.model_copy(update={"ledger": ledger})
    with pytest.raises(UsageError, match="need a durable ledger"):
        open_worker(settings, Runtime(settings))


@pytest.mark.timeout(150)
async def test_jobs_wait_for_a_database_that_restarts_and_go_on(
    postgres_place: Place, postgres: PostgresServer, counting: CountingServer
) -> None:
    place = postgres_place
    counting.settings(delay=0.02)
    with Workers(place.folder, place.environment) as workers:
        async with place.jobs() as jobs:
            workers.start("--slots", "4")
            ids: dict[str, str] = {}
            for number in range(6):
                query = f"{place.folder.name}-{number}"
                ids[(await jobs.submit(calls_of(query, pause=0.2))).id] = query
            async with asyncio.timeout(30):
                while len(await asyncio.to_thread(counting.counts, place.folder.name)) < 20:
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(postgres.restart)
            # A submission in the middle of it waits, too.
            query = f"{place.folder.name}-late"
            ids[(await jobs.submit(calls_of(query))).id] = query
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)
            await ended(jobs, ids)
            await all_is_well(place, jobs, ids, counting, 4, 5)
