"""``agentflow.Client``, ``AsyncClient`` and ``agentflow jobs --server``, against a real server and worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentflow import ApiError, AsyncClient, Client, Report, UsageError
from agentflow.errors import JobFailed, JobStateConflict, KeyReused, UnknownJob
from agentflow.jobs.job import JobBudget, JobState
from tests.servers.api import Api, Background, run
from tests.servers.openai_server import ScriptedServer

QUESTION = "How high does the tide rise in the Bay of Fundy?"
TIDES = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest on Earth.\n"
LATER = "2099-01-01T00:00:00Z"
pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def tides(tmp_path: Path, models: ScriptedServer) -> Path:
    models.script({"*": [{"status": 400}]})
    path = tmp_path / "tides.md"
    path.write_text(TIDES)
    return path


def test_a_program_submits_waits_and_reads(api: Api, worker: Background, tides: Path) -> None:
    with Client(api.url) as client:
        collection = client.upload("tides", [tides])
        asked: dict[str, Any] = {"sources": {"collections": [collection]}, "metadata": {"by": "client"}}
        job = client.submit(QUESTION, idempotency_key="client-1", **asked)
        assert client.submit(QUESTION, idempotency_key="client-1", **asked).id == job.id
        with pytest.raises(KeyReused):
            client.submit("Another?", idempotency_key="client-1", **asked)
        events = list(client.events(job.id))
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        found = client.result(job.id)
        report = Report.model_validate(found.output)
        assert found.status is JobState.COMPLETED and client.claims(job.id)[0].text == report.claims[0].text
        assert client.sources(job.id)[0].sha256 == report.claims[0].citations[0].sha256
        assert client.spend(job.id).spend.calls > 0 and "sixteen" in client.markdown(job.id)
        assert [one.id for one in client.list(metadata={"by": "client"}).data] == [job.id]
        assert client.estimate(QUESTION, **asked).joules.p90 > 0


async def test_an_event_loop_does_the_same(api: Api, worker: Background, tides: Path) -> None:
    async with AsyncClient(api.url) as client:
        collection = await client.upload("tides", [tides])
        job = await client.submit(QUESTION, sources={"collections": [collection]}, plan={"approve": True})
        assert (await client.wait(job.id)).status is JobState.AWAITING_APPROVAL
        with pytest.raises(JobStateConflict):
            await client.result(job.id)
        await client.approve(job.id, ["How high is the tide in the Bay of Fundy?"])
        assert not (await client.result(job.id)).partial
        assert "plan" in [event.kind async for event in client.events(job.id)]


def test_errors_are_those_of_jobs_here(api: Api, tides: Path) -> None:
    with Client(api.url) as client:
        collection = client.upload("tides", [tides])
        job = client.submit(QUESTION, sources={"collections": [collection]}, deferrable_until=LATER)
        assert client.set_budget(job.id, JobBudget(tokens=5)).budget.tokens == 5
        assert client.cancel(job.id).status is JobState.CANCELLED
        with pytest.raises(JobFailed):
            client.result(job.id)
        client.delete(job.id)
        for id in (job.id, "../../etc/passwd", ""):
            with pytest.raises(UnknownJob):
                client.get(id)
        with pytest.raises(UsageError, match="nothing to look in"):
            client.submit(QUESTION)
        with pytest.raises(UsageError, match="effort"):
            client.submit(QUESTION, effort="heroic")
        with pytest.raises(UsageError, match="cannot be read"):
            client.upload("none", [tides.with_name("none.md")])
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(ApiError, match="did not answer"):
        nobody.get("x")


def test_the_command_line_works_with_a_server_elsewhere(api: Api, worker: Background, tides: Path) -> None:
    jobs = ("jobs", "--server", api.url)
    folder = tides.parent
    id = run(folder, *jobs, "submit", QUESTION, str(tides)).stdout.split()[0]
    watched = run(folder, *jobs, "watch", id).stdout
    assert "completed" in watched
    assert "sixteen metres" in run(folder, *jobs, "show", id).stdout
    assert id in run(folder, *jobs, "list").stdout
    assert not (folder / ".agentflow").exists(), "nothing was opened here"
    refused = run(folder, *jobs, "submit", QUESTION, str(tides), "--queue", "night", check=False)
    assert refused.returncode == 2 and "--queue" in refused.stderr
