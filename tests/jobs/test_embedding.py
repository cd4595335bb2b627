"""The configured embedder where jobs run: in a worker's process, for research and for calls, each tenant's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentflow.budget.ledger import EntryFilter, open_ledger
from agentflow.config import load_settings
from agentflow.jobs.job import JobSources, JobSpec, JobState
from agentflow.jobs.opening import open_jobs
from tests.jobs.places import Place, until
from tests.jobs.workers import Workers
from tests.servers.openai_server import ServerProcess


@pytest.fixture(scope="module")
def embeddings() -> Iterator[str]:
    process = ServerProcess("tests.servers.embeddings")
    yield process.address
    process.stop()


async def test_a_worker_embeds_as_configured(place: Place, embeddings: str, tmp_path: Path) -> None:
    file = place.folder / "agentflow.toml"
    embedder = f'[research.embedder]\nkind = "openai"\nmodel = "words"\nbase_url = "{embeddings}/v1"\nprice = 10\n'
    file.write_text(f"{file.read_text()}{embedder}[tenants.acme]\n[tenants.rival]\n")
    settings = load_settings(file)
    for name in ("high", "low"):
        (tmp_path / f"{name}.md").write_text(f"The tide in the bay of {tmp_path.name} is {name} in spring.\n")
    with Workers(place.folder, {}) as workers:
        workers.start("--config", str(file))
        async with open_jobs(settings) as jobs:

            async def run(**asked: Any) -> Any:
                job = await jobs.submit(JobSpec(**asked))
                await until(jobs, job.id, JobState.COMPLETED, JobState.FAILED)
                return job.id, (await jobs.result(job.id)).output

            words = f"{tmp_path.name} the tide in the bay rises high"
            _, first = await run(kind="alike", query=words, tenant="acme")
            alike, again = await run(kind="alike", query=" ".join(reversed(words.split())), tenant="acme")
            _, other = await run(kind="alike", query=words, tenant="rival")
            assert (first["reused"], again["reused"], other["reused"]) == (False, True, False)
            sources = JobSources(origins=(str(tmp_path / "high.md"), str(tmp_path / "low.md")))
            _, report = await run(query="How high is the tide in the bay?", sources=sources, tenant="acme")
            assert report["rungs"]["retrieval"].startswith("BM25 + words at")
    ledger = open_ledger(settings.ledger)
    entries = await ledger.entries(EntryFilter(job=alike))
    assert sum(entry.spend.nano_usd for entry in entries if entry.spend is not None) > 0, "the tenant pays for it"
    await ledger.aclose()
