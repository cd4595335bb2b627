"""Durable jobs as an app builder has them: from Python, and from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from filelock import FileLock

from agentflow import Budget, Flow, JobContext, UsageError
from agentflow.cli.main import main
from agentflow.jobs.job import JobSpec, JobState
from agentflow.jobs.runner import Tries
from agentflow.jobs.worker import WorkerOptions
from tests.conftest import PROJECT
from tests.jobs import kinds as test_kinds
from tests.jobs.places import Place, at_work, calls_of, until
from tests.jobs.workers import Workers
from tests.servers.counting import CountingServer, answer


async def ask_twice(context: JobContext) -> Any:
    async with context.chain("main") as chain:
        return [(await chain.call(f"{context.spec.query} {number}")).output for number in range(2)]


async def test_a_job_from_python(place: Place) -> None:
    query = place.folder.name
    async with Flow(place.settings) as flow:
        flow.register("ask-twice", ask_twice)
        job = await flow.submit("ask-twice", query=query, budget=Budget(usd=1), metadata={"a": "b"})
        kinds = [event.kind async for event in job.events()]
        assert kinds.count("attempt") == 2 and kinds[-1] == "state"
        result = await job.result()
        assert result.output == [answer(f"{query} 0"), answer(f"{query} 1")]
        assert await job.state() == JobState.COMPLETED
        assert [one.name for one in await job.artifacts()] == ["result.json"]
        assert json.loads(await job.read("result.json")) == result.output
        with pytest.raises(UsageError, match="before the first job"):
            flow.register("late", ask_twice)


async def test_a_program_that_ends_hands_its_jobs_to_the_next(place: Place, counting: CountingServer) -> None:
    query = place.folder.name
    counting.shut(f"{query} 1")
    settings = place.settings.model_copy(update={"jobs": place.settings.jobs.model_copy(update={"drain_s": 0.2})})
    try:
        async with Flow(settings) as flow:
            flow.register("ask-twice", ask_twice)
            job = await flow.submit("ask-twice", query=query)
            async with asyncio.timeout(20):
                while len(await asyncio.to_thread(counting.counts, query)) < 2:
                    await asyncio.sleep(0.02)
    finally:
        counting.open(f"{query} 1")
    async with Flow(settings) as flow:
        flow.register("ask-twice", ask_twice)
        again = await flow.submit("ask-twice", query="another")
        await again.result()
        result = await flow.jobs.result(job.id, wait_s=20)
    assert result.output == [answer(f"{query} 0"), answer(f"{query} 1")]
    assert counting.counts(query)[f"{query} 0"] == (1, 1), "a finished call was paid again"


async def test_who_submitted_goes_on_when_the_process_that_worked_has_ended(place: Place) -> None:
    other = FileLock(place.folder / "jobs.engine.db.lock", thread_local=False)
    other.acquire()
    async with Flow(place.settings) as flow:
        flow.register("echo", test_kinds.echo)
        job = await flow.submit("echo", query="a")
        assert flow._worker is None
        assert (await job.view()).state == JobState.QUEUED
        other.release()
        assert (await job.result(wait_s=20)).output == {"echo": "a"}


async def test_what_cannot_be_asked_is_told_in_a_line(place: Place) -> None:
    async with Flow(place.settings) as flow:
        for asked, words in (
            ({"query": " "}, "query: is empty"),
            ({"query": "a", "priority": 101}, "priority: "),
            ({"query": "a", "nonsense": 1}, "nonsense: "),
            ({"query": "a", "queue": "../x"}, "queue: "),
            ({"query": "a", "metadata": {"k": "x" * 600}}, "metadata: "),
            ({"query": "a", "budget": Budget(usd=1, per="day")}, "budget per day"),
            ({"query": "a", "after": "2026-01-02", "before": "2026-01-01"}, "sources: after: is later than before"),
            ({"query": "a", "sources": ["https://example.org"], "allow_network": False}, "allow_network is false"),
        ):
            with pytest.raises(UsageError, match=words):
                await flow.submit("research", **asked)  # type: ignore[arg-type]


async def test_old_jobs_are_deleted_when_their_time_is_over(place: Place) -> None:
    options = WorkerOptions(tries=Tries(1), keep_days=0.5 / 86_400)
    async with at_work(place, options=options) as (jobs, worker):
        job = await jobs.submit(calls_of(place.folder.name))
        await until(jobs, job.id, JobState.COMPLETED)
        ledger = worker._runner._runtime.ledger
        async with asyncio.timeout(20):
            while (await jobs.list()).jobs:
                await asyncio.sleep(0.05)
                worker.retire_now()
        assert len(await ledger.entries()) == 20
        assert not [path for path in (place.folder / "store").rglob("*") if path.is_file()]


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def agentflow(place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command, in this process and in the place's folder."""
    monkeypatch.chdir(place.folder)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["agentflow", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return Done(int(end.value.code or 0), said.out, said.err)

    return run


def test_the_command_line_from_submission_to_deletion(place: Place, agentflow: Callable[..., Done]) -> None:
    source = place.folder / "tides.md"
    source.write_text("# Tides\n\nThe tides are caused by the gravity of the moon and of the sun.\n")
    done = agentflow("jobs", "submit", "What causes the tides?", "tides.md", "--max-usd", "0.5", "--json")
    assert done.code == 0, done.err
    view = json.loads(done.out)
    assert view["state"] == "queued" and view["spec"]["sources"]["origins"] == [str(source)]
    id = view["id"]
    with Workers(place.folder, {}) as workers:
        pid = workers.start()
        watched = agentflow("jobs", "watch", id)
        assert "completed" in watched.out.splitlines()[-1], watched
        assert workers.end(pid, signal.SIGTERM) == 0
    assert "handed over" in workers.log.read_text()
    assert "gravity of the moon" in agentflow("jobs", "show", id).out
    assert json.loads(agentflow("jobs", "show", id, "--file", "result.json").out)["job"] == id
    assert id in agentflow("jobs", "list", "--state", "completed").out
    assert agentflow("jobs", "resume", id).code == 2
    assert agentflow("jobs", "delete", id).code == 0
    gone = agentflow("jobs", "show", id)
    assert gone.code == 2 and "There is no job" in gone.err and "Traceback" not in gone.err


def test_the_command_line_cancels_stops_and_limits(agentflow: Callable[..., Done]) -> None:
    one, two = (agentflow("jobs", "submit", query, "--kind", "echo").out.split()[0] for query in "ab")
    assert "cancelled" in agentflow("jobs", "cancel", one).out
    limited = agentflow("jobs", "budget", two, "--usd", "0.25", "--json")
    assert json.loads(limited.out)["spec"]["budget"]["usd"] == "0.25"
    assert "completed (stopped)" in agentflow("jobs", "stop", two).out
    assert agentflow("jobs", "budget", two, "--usd", "1").code == 2
    assert agentflow("jobs", "approve", two).code == 2


async def test_importing_and_submitting_load_no_engine(place: Place) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom agentflow.config import load_settings\n"
        "from agentflow.jobs.opening import open_jobs\nfrom agentflow.jobs.job import JobSpec\n"
        "async def main():\n    async with open_jobs(load_settings(Path(sys.argv[1]))) as jobs:\n"
        "        await jobs.submit(JobSpec(kind='echo', query='a'))\n"
        "asyncio.run(main())\nprint('dbos' in sys.modules, 'boto3' in sys.modules)\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(place.folder / "agentflow.toml")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert done.stdout.split() == ["False", "False"], done.stderr
    async with place.jobs() as jobs:
        assert [view.spec for view in (await jobs.list()).jobs] == [JobSpec(kind="echo", query="a")]
