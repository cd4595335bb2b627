"""Jobs, ledger and files on a disk that fills up while a job runs, and has room again: a program of its own.

``python -m tests.jobs.full_disk FOLDER MODEL_URL``, where FOLDER is a small disk of its own. It ends with an error when
something was lost, made twice or half written.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import sys
from pathlib import Path

from agentflow.budget.ledger import open_ledger
from agentflow.budget.ledger.durable import DurableLedger
from agentflow.errors import JobStoreError
from agentflow.jobs.job import JobSpec, JobState
from agentflow.jobs.opening import open_store
from agentflow.jobs.runner import Tries
from agentflow.jobs.worker import WorkerOptions
from tests.jobs.places import at_work, calls_of, make_place, until
from tests.jobs.test_states import said


def fill(path: Path) -> None:
    """Take the last byte there is."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass


async def main(folder: Path, model_url: str) -> None:
    place = make_place(folder, model_url)
    options = WorkerOptions(lease_s=2.0, tries=Tries(50, 0.0))
    async with at_work(place, options=options) as (jobs, _):
        job = await jobs.submit(calls_of("disk", branches=2, calls=6, pause=0.3))
        await until(jobs, job.id, JobState.RUNNING)
        fill(folder / "filler")
        store = open_store(place.settings.jobs.store)
        data = b"y" * 100_000
        try:
            await store.put(job.id, hashlib.sha256(data).hexdigest(), data)
        except JobStoreError as error:
            assert "No space left on device" in str(error), error
        else:
            raise AssertionError("the disk was not full")
        big = JobSpec(kind="echo", query="x" * 4_000, metadata={str(n): "y" * 512 for n in range(32)})
        told = ""
        for _ in range(200):
            try:
                await jobs.submit(big)
            except JobStoreError as error:
                told = str(error)
                break
        assert "full" in told and "Nothing is half written" in told and "space" in told, told
        await asyncio.sleep(1.5)
        (folder / "filler").unlink()
        view = await until(jobs, job.id, JobState.COMPLETED, JobState.FAILED)
        assert view.state == JobState.COMPLETED, view
        assert (await jobs.result(job.id)).output == {"said": said("disk", 2, 6)}
        numbers = [event.number async for event in jobs.events(job.id)]
        assert numbers == list(range(1, len(numbers) + 1)), numbers
        more = await jobs.submit(JobSpec(kind="echo", query="more"))
        assert (await jobs.wait(more.id, seconds=20)).state == JobState.COMPLETED
        assert not [path for path in (folder / "store").rglob("unfinished-*")]
    ledger = open_ledger(place.settings.ledger)
    assert isinstance(ledger, DurableLedger)
    assert await ledger.audit() == []
    assert not [entry for entry in await ledger.entries() if entry.state == "held"]
    await ledger.aclose()
    for name in ("jobs.db", "ledger.db"):
        with contextlib.closing(sqlite3.connect(folder / name)) as connection:
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    print("all is well")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
