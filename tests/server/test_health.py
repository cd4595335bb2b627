"""/readyz and /metrics against queues with jobs in them: waiting, delayed, at work, and none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
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
def http(api: Api, models: ScriptedServer) -> Iterator[httpx.Client]:
    with api.client() as client:
        yield client


def figures(http: httpx.Client, queue: str) -> dict[str, float]:
    """What /metrics says of one queue, and of the workers."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("agentflow_")]
    mine = {s.name: s.value for s in samples if s.labels.get("queue") == queue or s.name == "agentflow_workers"}
    return {name.removeprefix("agentflow_"): value for name, value in mine.items()}


def submit(folder: Path, **asked: Any) -> str:
    async def work() -> str:
        async with open_jobs(settings_of(folder)) as jobs:
            return (await jobs.submit(JobSpec(kind="research", query="Why?", **asked))).id

    return asyncio.run(work())


def settings_of(folder: Path) -> Any:
    """The server's own, with its folder as what paths are relative to."""
    settings = load_settings(folder / "agentflow.toml")
    here = settings.jobs.model_copy(update={"path": folder / settings.jobs.path})
    return settings.model_copy(update={"jobs": here})


def age(folder: Path, id: str, seconds: float) -> None:
    """As if the job had been there for so much longer."""
    database = open_database(settings_of(folder).jobs)
    older = sa.update(job).where(job.c.id == id).values(next_ms=job.c.next_ms - int(seconds * 1000))
    database.write_here(lambda connection: connection.execute(older))
    database.close()


def test_a_job_that_waits_in_vain_is_told(api: Api, http: httpx.Client, folder: Path) -> None:
    assert figures(http, "slow").get("jobs_waiting") is None
    waiting = submit(folder, queue="slow")
    submit(folder, queue="slow", not_before="2099-01-01T00:00:00Z")
    seen = figures(http, "slow")
    assert (seen["jobs_waiting"], seen["jobs_at_work"], seen["workers"]) == (2, 0, 0)
    assert 0 <= seen["queue_lag_seconds"] < 30 and http.get("/readyz").json()["queue"] == "ok"

    age(folder, waiting, 300)
    assert 300 <= figures(http, "slow")["queue_lag_seconds"] < 330
    ready = http.get("/readyz")
    assert ready.status_code == 200, "other requests need no worker"
    assert ready.json() == {"status": "ready", "database": "ok", "queue": "lagging"}
    submit(folder, queue="other")
    assert figures(http, "other")["jobs_waiting"] == 1 and figures(http, "slow")["jobs_waiting"] == 2


def test_a_queue_that_is_done_has_no_lag(api: Api, http: httpx.Client, folder: Path) -> None:
    id = submit(folder, queue="quick")
    age(folder, id, 120)
    assert figures(http, "quick")["queue_lag_seconds"] >= 120
    worker = Background(folder, "worker", "--queue", "quick")
    try:
        assert http.get(f"/v1/research/{id}/result", params={"wait": 25}).json()["type"].endswith("job-failed")
        seen = figures(http, "quick")
        assert seen["workers"] == 1
        assert (seen["jobs_waiting"], seen["jobs_at_work"], seen["queue_lag_seconds"]) == (0, 0, 0)
    finally:
        worker.kill()
