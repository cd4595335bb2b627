"""The research API against a real server and a real worker, each in a process of its own."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentflow.jobs.annex import Annex
from agentflow.jobs.database import Database
from agentflow.research.report import Report
from agentflow.server.research.idempotency import Idempotency
from agentflow.server.tables import idempotency, metadata
from tests.servers.api import Api, Background
from tests.servers.openai_server import ScriptedServer

JSON = {"Content-Type": "application/json"}
QUESTION = "How high does the tide rise in the Bay of Fundy?"
TIDES = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres. It is the highest on Earth.\n"


@pytest.fixture
def http(api: Api, models: ScriptedServer) -> Iterator[httpx.Client]:
    models.script({"*": [{"status": 400}]})
    with api.client() as client:
        yield client


@pytest.fixture
def tides(http: httpx.Client) -> Iterator[str]:
    """A collection with one file about tides."""
    made = http.post("/v1/collections", json={"name": "tides"}).json()["id"]
    added = http.post(f"/v1/collections/{made}/files", files={"file": ("tides.md", TIDES)})
    assert added.status_code == 201, added.text
    yield made
    http.delete(f"/v1/collections/{made}")


def ask(tides: str, **more: Any) -> dict[str, Any]:
    return {"query": QUESTION, "sources": {"collections": [tides]}, **more}


def result(http: httpx.Client, id: str) -> httpx.Response:
    return http.get(f"/v1/research/{id}/result", params={"wait": 20})


def frames(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Number, kind and data of every event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((int(fields.get("id", 0)), fields["event"], json.loads(fields["data"])))
    return found


def test_a_job_from_submission_to_its_cited_report(http: httpx.Client, tides: str, worker: Background) -> None:
    asked = ask(tides, effort="ultra", metadata={"ticket": "4711"})
    accepted = http.post("/v1/research", json=asked)
    assert accepted.status_code == 202, accepted.text
    job = accepted.json()
    assert set(job) == {"id", "status", "urls", "poll_after"} and accepted.headers["location"] == job["urls"]["self"]
    found = result(http, job["id"])
    assert found.status_code == 200, found.text
    report = Report.model_validate(found.json()["output"])
    assert report.answered and "sixteen metres" in report.claims[0].text
    for known in (found.headers["etag"], f'"x", W/{found.headers["etag"]}', "*"):
        assert http.get(f"/v1/research/{job['id']}/result", headers={"If-None-Match": known}).status_code == 304

    view = http.get(job["urls"]["self"]).json()
    assert view["status"] == "completed" and view["stop_reason"] == "satisfied" and view["poll_after"] is None
    assert view["metadata"] == {"ticket": "4711"} and view["spend"]["calls"] > 0
    (source,) = http.get(job["urls"]["sources"]).json()
    text = http.get(source["text"]).text
    (citation,) = report.claims[0].citations
    assert text[citation.start : citation.end] == citation.quote and source["sha256"] == citation.sha256
    assert http.get(job["urls"]["claims"]).json() == [c.model_dump(mode="json") for c in report.claims]
    spend = http.get(job["urls"]["spend"]).json()
    assert spend["spend"]["joules"] > 0 and spend["meter"]["attempts"]
    assert "sixteen metres" in http.get(job["urls"]["report_md"]).text
    page = http.get(job["urls"]["report_html"])
    assert (
        page.headers["content-type"].startswith("text/html") and "script" not in page.headers["content-security-policy"]
    )


def test_events_have_numbers_without_gaps_and_a_reader_goes_on_where_it_was(
    http: httpx.Client, tides: str, worker: Background
) -> None:
    job = http.post("/v1/research", json=ask(tides)).json()
    with http.stream("GET", job["urls"]["events"]) as stream:
        live = frames(stream.read().decode())
    numbers = [number for number, kind, _ in live if kind != "end"]
    assert numbers == list(range(1, len(numbers) + 1)) and live[-1][1:] == (
        "end",
        {"status": "completed", "events": numbers[-1]},
    )
    assert {"state", "task", "attempt", "plan"} <= {kind for _, kind, _ in live}
    rest = frames(http.get(job["urls"]["events"], headers={"Last-Event-ID": "3"}).text)
    assert rest == live[3:]
    beyond = frames(http.get(job["urls"]["events"], params={"since": 10_000}).text)
    assert beyond[0][1:] == ("gap", {"asked": 10_000, "latest": numbers[-1]}) and beyond[-1][1] == "end"

    page = http.get(job["urls"]["events"], params={"cursor": 0, "limit": 2}).json()
    assert [event["number"] for event in page["data"]] == [1, 2] and not page["ended"]
    page = http.get(job["urls"]["events"], params={"cursor": page["cursor"], "limit": 1_000}).json()
    assert page["ended"] and page["cursor"] == numbers[-1]


def test_a_stream_of_a_job_that_is_deleted_says_so(http: httpx.Client, tides: str) -> None:
    job = http.post("/v1/research", json=ask(tides, plan={"approve": True}, deferrable_until="2099-01-01T00:00:00Z"))
    with http.stream("GET", job.json()["urls"]["events"]) as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("event")) == "event: state"
        with httpx.Client(base_url=http.base_url) as other:
            other.post(f"/v1/research/{job.json()['id']}/cancel")
            other.delete(job.json()["urls"]["self"]).raise_for_status()
        ending = list(lines)
    # Whichever comes first: its last event, or that it is no more.
    assert "event: end" in ending or ("event: error" in ending and "not-found" in ending[-2])


def test_a_request_sent_twice_is_one_job(http: httpx.Client, tides: str) -> None:
    headers = {"Idempotency-Key": f"key-{time.time_ns()}"}
    one, two = (http.post("/v1/research", json=ask(tides), headers=headers).json() for _ in range(2))
    assert one["id"] == two["id"]
    other = http.post("/v1/research", json=ask(tides, effort="pro"), headers=headers)
    assert other.status_code == 409 and other.json()["type"].endswith("idempotency-key-reused")
    assert http.post("/v1/research", json=ask(tides), headers={"Idempotency-Key": "a key"}).status_code == 422


def test_a_request_sent_again_is_its_job_whatever_became_of_what_it_looks_in(http: httpx.Client, tides: str) -> None:
    headers = {"Idempotency-Key": f"key-{time.time_ns()}"}
    job = http.post("/v1/research", json=ask(tides, deferrable_until="2099-01-01T00:00:00Z"), headers=headers).json()
    for change in (
        lambda: http.post(f"/v1/collections/{tides}/files", files={"file": ("more.md", "More of it.")}),
        lambda: http.delete(f"/v1/collections/{tides}"),
    ):
        change().raise_for_status()
        again = http.post("/v1/research", json=ask(tides, deferrable_until="2099-01-01T00:00:00Z"), headers=headers)
        assert again.status_code == 202 and again.json()["id"] == job["id"], again.text
    assert http.post("/v1/research", json=ask(tides, effort="pro"), headers=headers).status_code == 404


def test_a_plan_is_approved_and_changed(http: httpx.Client, tides: str, worker: Background) -> None:
    job = http.post("/v1/research", json=ask(tides, plan={"approve": True})).json()
    waiting = http.get(f"/v1/research/{job['id']}/result", params={"wait": 20})
    assert waiting.status_code == 202 and waiting.json()["status"] == "awaiting_approval"
    plan = ["How high is the tide in the Bay of Fundy?"]
    assert http.post(f"/v1/research/{job['id']}/approve", json={"plan": plan}).status_code == 200
    report = result(http, job["id"]).json()["output"]
    assert [part["text"] for part in report["sub_questions"]] == plan
    assert http.post(f"/v1/research/{job['id']}/approve").status_code == 200, "once more changes nothing"
    again = http.post(f"/v1/research/{job['id']}/approve", json={"plan": plan})
    assert again.status_code == 409 and again.json()["type"].endswith("conflict")


def test_delayed_cancelled_stopped_and_deleted(http: httpx.Client, tides: str, worker: Background) -> None:
    later = "2099-01-01T00:00:00Z"
    job = http.post("/v1/research", json=ask(tides, deferrable_until=later)).json()
    assert http.get(job["urls"]["result"]).status_code == 202
    assert http.delete(job["urls"]["self"]).status_code == 409
    budget = http.post(f"/v1/research/{job['id']}/budget", json={"usd": "0.5"}).json()
    assert budget["budget"]["usd"] == "0.5"
    assert http.post(f"/v1/research/{job['id']}/cancel").json()["status"] == "cancelled"
    gone = http.get(job["urls"]["result"])
    assert gone.status_code == 409 and gone.json()["type"].endswith("job-failed")
    assert http.post(f"/v1/research/{job['id']}/resume").status_code == 409
    assert http.delete(job["urls"]["self"]).status_code == 204
    assert http.get(job["urls"]["self"]).status_code == 404


def test_jobs_are_listed_newest_first_filtered_and_paged(http: httpx.Client, tides: str) -> None:
    mark = f"list-{time.time_ns()}"
    made = [
        http.post("/v1/research", json=ask(tides, metadata={"mark": mark, "n": str(n)})).json()["id"] for n in range(3)
    ]
    wanted = {"metadata": f"mark={mark}", "limit": 2}
    page = http.get("/v1/research", params=wanted).json()
    rest = http.get("/v1/research", params={**wanted, "cursor": page["cursor"]}).json()
    assert [job["id"] for job in page["data"] + rest["data"]] == made[::-1] and rest["cursor"] is None
    assert http.get("/v1/research", params={"metadata": "mark=none"}).json()["data"] == []
    assert http.get("/v1/research", params={**wanted, "status": "awaiting_approval"}).json()["data"] == []
    assert http.get("/v1/research", params={"cursor": "'; drop table agentflow_job; --"}).status_code == 400
    assert http.get("/v1/research", params={"status": "flying"}).status_code == 422


def test_a_batch_accepts_what_it_can(http: httpx.Client, tides: str) -> None:
    requests = [ask(tides), {"query": QUESTION}, ask("col_0000")]
    items = http.post("/v1/research/batch", json={"requests": requests}).json()["data"]
    assert items[0]["job"]["id"] and [item["problem"] and item["problem"]["status"] for item in items] == [
        None,
        400,
        404,
    ]


def test_an_estimate_is_made_from_the_jobs_that_ran(
    http: httpx.Client, tides: str, worker: Background, models: ScriptedServer
) -> None:
    jobs = [http.post("/v1/research", json=ask(tides)).json()["id"] for _ in range(5)]
    assert [result(http, id).status_code for id in jobs] == [200] * 5
    asked = len(models.requests())
    estimate = http.post("/v1/research:estimate", json=ask(tides)).json()
    assert estimate["basis"] == "history" and estimate["error"]["jobs"] >= 5
    assert 0 < estimate["joules"]["p50"] <= estimate["joules"]["p90"]
    low = http.post("/v1/research:estimate", json=ask(tides, budget={"joules": 0.001})).json()
    assert low["joules"] == {"p50": 0.001, "p90": 0.001}
    assert len(models.requests()) == asked, "no model was asked"


def test_text_is_given_where_it_was_asked_for(http: httpx.Client, tides: str, worker: Background) -> None:
    job = http.post("/v1/research", json=ask(tides, output={"format": "text"})).json()
    output = result(http, job["id"]).json()["output"]
    assert output.startswith("# ") and "sixteen metres" in output


def test_a_budget_ends_a_job_with_what_it_has(http: httpx.Client, tides: str, worker: Background) -> None:
    job = http.post("/v1/research", json=ask(tides, budget={"calls": 3, "on_limit": "answer"})).json()
    found = result(http, job["id"]).json()
    assert found["partial"] and found["stop_reason"] == "budget_reached"


def test_collections_take_files_that_can_be_read(http: httpx.Client, tides: str) -> None:
    def add(name: str, content: bytes | str) -> httpx.Response:
        return http.post(f"/v1/collections/{tides}/files", files={"file": (name, content)})

    shown = http.get(f"/v1/collections/{tides}").json()
    assert [(file["name"], file["media_type"]) for file in shown["files"]] == [("tides.md", "text/markdown")]
    assert add("more.txt", "More of it.").json()["characters"] == 11
    assert add("more.txt", "Less.").status_code == 201
    listed = http.get("/v1/collections").json()["data"]
    assert [file["name"] for one in listed if one["id"] == tides for file in one["files"]] == ["more.txt", "tides.md"]
    for name, content in [
        ("../../etc/passwd.txt", "x"), ("..", "x"), (".hidden.txt", "x"), ("a/b.txt", "x"), ("run.exe", "x"),
        ("a\\b.txt", "x"),
        ("empty.txt", ""), ("broken.pdf", b"%PDF-1.4 nothing"), ("zero\x00.txt", "x"), ("x" * 200 + ".txt", "x"),
    ]:  # fmt: skip
        refused = add(name, content)
        assert refused.status_code in (400, 422), (name, refused.text)
        assert "/tmp" not in refused.text, "where things lie is nobody's business"
    assert http.delete(f"/v1/collections/{tides}/files/more.txt").status_code == 204
    assert http.delete(f"/v1/collections/{tides}/files/more.txt").status_code == 404
    assert http.post("/v1/research", json=ask("col_abc")).status_code == 404


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"query": ""}, "query"),
        ({"query": "   "}, "query"),
        ({"query": "x" * 4_001}, "query"),
        ({"query": 7}, "query"),
        ({"query": "a\x00b"}, "query"),
        ({"effort": "heroic"}, "effort"),
        ({"budget": {"usd": 0}}, "budget.usd"),
        ({"budget": {"usd": "NaN"}}, "budget.usd"),
        ({"budget": {"joules": 1e400}}, "budget.joules"),
        ({"budget": {"tokens": 1.5}}, "budget.tokens"),
        ({"budget": {"on_limit": "explode"}}, "on_limit"),
        ({"output": {"format": "pdf"}}, "output.format"),
        ({"output": {"language": "german"}}, "output.language"),
        ({"output": {"language": "en_US"}}, "output.language"),
        ({"output": {"language": 7}}, "output.language"),
        ({"output": {"max_words": 0}}, "output.max_words"),
        ({"output": {"max_words": "many"}}, "output.max_words"),
        ({"output": {"citations": "endnotes"}}, "output.citations"),
        ({"output": {"json_schema": True}}, "output.json_schema"),
        ({"output": {"json_schema": {"type": "heroic"}}}, "output.json_schema"),
        ({"output": {"json_schema": {"$ref": "http://127.0.0.1/x"}}}, "output.json_schema"),
        ({"output": {"json_schema": {"$ref": "#"}}}, "output.json_schema"),
        ({"output": {"json_schema": {"type": "object"}, "format": "text"}}, "json_schema"),
        ({"verify": "none"}, "verify"),
        ({"verify": ["judged"]}, "verify"),
        ({"plan": {"approve": "perhaps"}}, "plan.approve"),
        ({"previous_id": "../x"}, "previous_id"),
        ({"metadata": {"a": "x" * 600}}, "metadata"),
        ({"metadata": {str(n): "" for n in range(40)}}, "metadata"),
        ({"deferrable_until": "yesterday"}, "deferrable_until"),
        ({"deferrable_until": "2099-01-01T00:00:00"}, "deferrable_until"),
        ({"priority": 1_000}, "priority"),
        ({"webhook": {"url": "ftp://example.org"}}, "webhook.url"),
        ({"webhook": {"url": "http://user:pw@example.org/"}}, "webhook.url"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_field_that_is_wrong_is_named(http: httpx.Client, tides: str, wrong: dict[str, Any], word: str) -> None:
    reply = http.post("/v1/research", content=json.dumps({**ask(tides), **wrong}), headers=JSON)
    assert reply.status_code == 422, reply.text
    assert any(word in f"{fault['field']} {fault['message']}" for fault in reply.json()["faults"])


PRIVATE = [
    "http://127.0.0.1/", "http://localhost:8080/", "http://[::1]/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/",
    "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/", "http://100.64.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_refused_where_they_are_written(http: httpx.Client, tides: str, url: str) -> None:
    for wrong in ({"sources": {"urls": [url]}}, {"webhook": {"url": url}}):
        reply = http.post("/v1/research", json={**ask(tides), **wrong})
        assert reply.status_code == 400 and re.search(r"urls|webhook", reply.json()["detail"]), reply.text


@pytest.mark.parametrize("url", ["http://2130706433/", "http://127.1/", "http://0x7f.1/", "http://017700000001/"])
def test_private_addresses_in_disguise_are_not_fetched(http: httpx.Client, worker: Background, url: str) -> None:
    job = http.post("/v1/research", json={"query": QUESTION, "sources": {"urls": [url]}})
    assert job.status_code == 202
    failed = result(http, job.json()["id"])
    assert failed.status_code == 409
    assert re.search("loopback|not a well-formed", failed.json()["detail"]), failed.text


def test_domains_bound_the_addresses(http: httpx.Client) -> None:
    def submit(**sources: Any) -> httpx.Response:
        return http.post(
            "/v1/research", json={"query": QUESTION, "sources": {"urls": ["https://a.example.org/x"], **sources}}
        )

    assert submit(include_domains=["example.org"]).status_code == 202
    assert submit(include_domains=["ample.org"]).status_code == 422
    assert submit(exclude_domains=["example.org"]).status_code == 422
    assert submit(allow_network=False).status_code == 422
    assert http.post("/v1/research", json={"query": QUESTION, "sources": {"paths": ["/etc/passwd"]}}).status_code == 400


async def test_an_idempotency_key_names_another_request_after_a_day(here: Path) -> None:
    annex = Annex(Database(here / "jobs.db"), metadata)
    keys = Idempotency(annex)
    first = await keys.name("acme", "k")
    assert await keys.name("acme", "k") == first
    await annex.write(lambda c: c.execute(idempotency.update().values(since_ms=idempotency.c.since_ms - 86_400_001)))
    second = await keys.name("acme", "k")
    assert second != first and await keys.name("acme", "k") == second
    await keys.name("acme", "other")
    await annex.write(lambda c: c.execute(idempotency.update().values(since_ms=idempotency.c.since_ms - 86_400_001)))
    await keys.sweep()
    assert await annex.read(lambda c: c.execute(idempotency.select()).all()) == []
    await annex.aclose()
