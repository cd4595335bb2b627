"""A job that follows another: what it is given, what it reads, and which jobs cannot be followed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentflow.research.report import Report
from tests.servers.openai_server import ScriptedServer

QUESTION = "How high does the tide rise in the Bay of Fundy?"
TIDES = (
    "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. "
    "The tide of the Bay of Fundy is so high because the bay resonates with the ocean.\n"
)
LATER = "2099-01-01T00:00:00Z"


@pytest.fixture
def first(http: httpx.Client) -> str:
    """A job that has ended; the collection that it read is gone by now."""
    collection = http.post("/v1/collections", json={"name": "tides"}).json()["id"]
    http.post(f"/v1/collections/{collection}/files", files={"file": ("tides.md", TIDES)})
    id = submit(http, QUESTION, sources={"collections": [collection]})
    assert "sixteen" in report_of(http, id).claims[0].text
    http.delete(f"/v1/collections/{collection}")
    return id


def submit(http: httpx.Client, query: str, **more: Any) -> str:
    accepted = http.post("/v1/research", json={"query": query, **more})
    assert accepted.status_code == 202, accepted.text
    return accepted.json()["id"]


def ended_as(http: httpx.Client, id: str) -> httpx.Response:
    """What a job came to, or why to nothing."""
    while (found := http.get(f"/v1/research/{id}/result", params={"wait": 20})).status_code == 202:
        pass
    return found


def report_of(http: httpx.Client, id: str) -> Report:
    found = ended_as(http, id)
    assert found.status_code == 200, found.text
    return Report.model_validate(found.json()["output"])


def test_a_follow_up_reads_the_earlier_jobs_sources_and_knows_its_question(http: httpx.Client, first: str) -> None:
    id = submit(http, "And why is that?", previous_id=first)
    report = report_of(http, id)
    assert report.sub_questions[0].text == "And why is that (How high does the tide rise in the Bay of Fundy)?"
    assert any("resonates" in claim.text for claim in report.claims)
    one, two = (http.get(f"/v1/research/{job}/sources").json() for job in (first, id))
    same = ("id", "origin", "title", "sha256", "read_at", "date")
    assert [[source[name] for name in same] for source in one] == [[source[name] for name in same] for source in two]
    (citation,) = report.claims[0].citations
    text = http.get(f"/v1/research/{id}/sources/{citation.source_id}").text
    assert text[citation.start : citation.end] == citation.quote, "it cites its own copy"
    assert http.get(f"/v1/research/{id}").json()["previous_id"] == first

    # What it read is its own: the earlier job may go.
    assert http.delete(f"/v1/research/{first}").status_code == 204
    assert http.get(f"/v1/research/{id}/sources/{citation.source_id}").text == text


def test_models_are_given_what_the_earlier_job_found(http: httpx.Client, first: str, models: ScriptedServer) -> None:
    models.script({"*": [{"responder": "planning"}, {"responder": "quoting"}]})
    before = len(models.requests())
    report = report_of(
        http, submit(http, "Why is the tide of the Bay of Fundy so high?", previous_id=first, effort="lite")
    )
    assert report.rungs["synthesis"] == "small (model)" and report.ending is None
    prompts = [request["body"]["messages"][-1]["content"] for request in models.requests()[before:]]
    assert len(prompts) == 2
    for prompt in prompts:
        (quoted,) = [line for line in prompt.splitlines() if line.startswith('{"question"')]
        given = json.loads(quoted)
        assert given["question"] == QUESTION and "sixteen metres" in given["claims"][0]


def test_sources_of_its_own_are_read_instead(http: httpx.Client, first: str) -> None:
    collection = http.post("/v1/collections", json={"name": "other"}).json()["id"]
    http.post(
        f"/v1/collections/{collection}/files", files={"file": ("other.md", "The Bay of Fundy resonates in winter.")}
    )
    id = submit(http, "Does the Bay of Fundy resonate?", previous_id=first, sources={"collections": [collection]})
    report_of(http, id)
    assert [source["title"] for source in http.get(f"/v1/research/{id}/sources").json()] == ["other.md"]


def test_bounds_hold_for_the_earlier_jobs_sources_too(http: httpx.Client, first: str) -> None:
    report = report_of(http, submit(http, QUESTION, previous_id=first, sources={"before": "2001-01-01"}))
    assert not report.answered and [skipped.cause for skipped in report.skipped] == ["date"]


def test_what_cannot_be_followed_is_told(http: httpx.Client, first: str) -> None:
    def refused(previous: str) -> httpx.Response:
        return http.post("/v1/research", json={"query": "And why?", "previous_id": previous})

    unknown = refused("20260101-000000-0000000000000000")
    assert unknown.status_code == 404 and unknown.json()["type"].endswith("not-found")
    collection = http.post("/v1/collections", json={"name": "tides"}).json()["id"]
    http.post(f"/v1/collections/{collection}/files", files={"file": ("tides.md", TIDES)})
    waiting = submit(http, QUESTION, sources={"collections": [collection]}, deferrable_until=LATER)
    unfinished = refused(waiting)
    assert unfinished.status_code == 409 and "Wait until it has ended" in unfinished.json()["detail"]
    http.post(f"/v1/research/{waiting}/cancel")
    cancelled = refused(waiting)
    assert cancelled.status_code == 409 and "no result that could be followed" in cancelled.json()["detail"]
    http.delete(f"/v1/research/{first}")
    deleted = refused(first)
    assert (deleted.status_code, deleted.json()["type"]) == (404, unknown.json()["type"])
    assert refused("no such id").status_code == 422
    for previous, answer in ((waiting, cancelled), (first, deleted)):
        asked = {"query": "And why?", "previous_id": previous}
        assert http.post("/v1/research:estimate", json=asked).json() == answer.json(), "an estimate is refused alike"


def test_a_follow_up_is_estimated_with_what_it_is_told_and_reads(http: httpx.Client, first: str) -> None:
    def tokens(**asked: Any) -> float:
        answer = http.post("/v1/research:estimate", json={"query": "And why?", **asked})
        assert answer.status_code == 200, answer.text
        return answer.json()["tokens"]["p90"]

    collection = http.post("/v1/collections", json={"name": "same"}).json()["id"]
    http.post(f"/v1/collections/{collection}/files", files={"file": ("tides.md", TIDES)})
    alone = tokens(sources={"collections": [collection]})
    assert alone < tokens(sources={"collections": [collection]}, previous_id=first) == tokens(previous_id=first)
    assert http.post("/v1/research:estimate", json={"query": "Why?"}).status_code == 400
    gone = {"query": "Why?", "sources": {"collections": ["col_0000"]}}
    assert http.post("/v1/research:estimate", json=gone).status_code == 404


def test_a_job_deleted_while_its_follow_up_waited_ends_that_with_a_clear_error(
    http: httpx.Client, first: str, folder: Path
) -> None:
    asked = {"query": "And why?", "previous_id": first, "deferrable_until": LATER}
    headers = {"Idempotency-Key": first}
    id = http.post("/v1/research", json=asked, headers=headers).json()["id"]
    assert http.delete(f"/v1/research/{first}").status_code == 204
    assert http.post("/v1/research", json=asked, headers=headers).json()["id"] == id, "the same request, the same job"
    with sqlite3.connect(folder / ".agentflow" / "jobs.db") as database:
        # Its time has come.
        assert database.execute("update agentflow_job set next_ms = 0 where id = ?", (id,)).rowcount == 1
    ended = ended_as(http, id)
    assert ended.status_code == 409 and f"'{first}', which this one follows, was deleted" in ended.json()["detail"]
    assert http.get(f"/v1/research/{id}").json()["failures"] <= 1, "what cannot be is not tried again"
