"""/readyz and /metrics against queues with jobs in them: waiting, delayed, at work, and none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from agentflow.config import load_settings
from agentflow.jobs.job import JobSpec
from agentflow.jobs.opening import open_database, open_jobs
from agentflow.jobs.tables import job
from tests.servers.api import Api, Background
from tests.servers.openai_server import ScriptedServer


@pytest.fixture
async def http(api: Api, models: ScriptedServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=api.url, timeout=30) as client:
        yield client


async def figures(http: httpx.AsyncClient, queue: str) -> dict[str, float]:
    """What /metrics says of one queue, and of the workers."""
    families = text_string_to_metric_families((await http.get("/metrics")).text)
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("agentflow_")]
    mine = {s.name: s.value for s in samples if s.labels.get("queue") == queue or s.name == "agentflow_workers"}
    return {name.removeprefix("agentflow_"): value for name, value in mine.items()}


async def submit(folder: Path, **asked: Any) -> str:
    async with open_jobs(settings_of(folder)) as jobs:
        return (await jobs.submit(JobSpec(kind="research", query="Why?", **asked))).id


def settings_of(folder: Path) -> Any:
    """The server's own, with its folder as what paths are relative to."""
    settings = load_settings(folder / "agentflow.toml")
    here = settings.jobs.model_copy(update={"path": folder / settings.jobs.path})
    return settings.model_copy(update={"jobs": here})


async def age(folder: Path, id: str, seconds: float) -> None:
    """As if the job had been there for so much longer."""
    database = open_database(settings_of(folder).jobs)
    older = sa.update(job).where(job.c.id == id).values(next_ms=job.c.next_ms - int(seconds * 1000))
    await database.write(lambda connection: connection.execute(older))
    await database.aclose()


async def test_a_job_that_waits_in_vain_is_told(api: Api, http: httpx.AsyncClient, folder: Path) -> None:
    assert (await figures(http, "slow")).get("jobs_waiting") is None
    waiting = await submit(folder, queue="slow")
    await submit(folder, queue="slow", not_before="2099-01-01T00:00:00Z")
    seen = await figures(http, "slow")
    assert (seen["jobs_waiting"], seen["jobs_at_work"], seen["workers"]) == (2, 0, 0)
    assert 0 <= seen["queue_lag_seconds"] < 30 and (await http.get("/readyz")).json()["queue"] == "ok"

    await age(folder, waiting, 300)
    assert 300 <= (await figures(http, "slow"))["queue_lag_seconds"] < 330
    ready = await http.get("/readyz")
    assert ready.status_code == 200, "other requests need no worker"
    assert ready.json() == {"status": "ready", "database": "ok", "queue": "lagging"}
    await submit(folder, queue="other")
    assert (await figures(http, "other"))["jobs_waiting"] == 1 and (await figures(http, "slow"))["jobs_waiting"] == 2


async def test_a_queue_that_is_done_has_no_lag(api: Api, http: httpx.AsyncClient, folder: Path) -> None:
    id = await submit(folder, queue="quick")
    await age(folder, id, 120)
    assert (await figures(http, "quick"))["queue_lag_seconds"] >= 120
    worker = Background(folder, "worker", "--queue", "quick")
    try:
        while (ended := await http.get(f"/v1/research/{id}/result", params={"wait": 20})).status_code == 202:
            pass
        assert ended.json()["type"].endswith("job-failed")
        seen = await figures(http, "quick")
        assert seen["workers"] == 1
        assert (seen["jobs_waiting"], seen["jobs_at_work"], seen["queue_lag_seconds"]) == (0, 0, 0)
    finally:
        worker.kill()
