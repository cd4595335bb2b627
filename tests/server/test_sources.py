"""Which sources a job reads: days, domains, the network; through the HTTP API, with a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.api import toml
from tests.servers.openai_server import ScriptedServer

QUESTION = "How high does the tide rise in the Bay of Fundy?"
OLD = "---\ndate: 2015-03-04\n---\n# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres.\n"
NEW = "---\ndate: 2024-05-06\n---\n# Tides\n\nThe tide in the Bay of Fundy rises by seventeen metres.\n"


@pytest.fixture(scope="module")
def folder(models: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server that may read pages of this machine, where the test's pages are."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "agentflow.toml").write_text(toml(models, "[server]\nallow_private = true\n"))
    return folder


@pytest.fixture
def tides(http: httpx.Client) -> Iterator[str]:
    """A collection with two files about tides, of 2015 and of 2024."""
    made = http.post("/v1/collections", json={"name": "tides"}).json()["id"]
    for name, text in (("old.md", OLD), ("new.md", NEW)):
        assert http.post(f"/v1/collections/{made}/files", files={"file": (name, text)}).status_code == 201
    yield made
    http.delete(f"/v1/collections/{made}")


def submit(http: httpx.Client, **sources: Any) -> str:
    accepted = http.post("/v1/research", json={"query": QUESTION, "sources": sources})
    assert accepted.status_code == 202, accepted.text
    return accepted.json()["id"]


def ended(http: httpx.Client, id: str) -> httpx.Response:
    """What a job came to, or why to nothing."""
    while (found := http.get(f"/v1/research/{id}/result", params={"wait": 20})).status_code == 202:
        pass
    return found


def result(http: httpx.Client, id: str) -> dict[str, Any]:
    found = ended(http, id)
    assert found.status_code == 200, found.text
    return found.json()


def test_a_span_of_days_reads_only_what_is_dated_in_it(http: httpx.Client, tides: str) -> None:
    id = submit(http, collections=[tides], after="2020-01-01")
    report = result(http, id)["output"]
    assert ["seventeen" in claim["text"] for claim in report["claims"]] == [True]
    (entry,) = report["sources"]
    assert (entry["date"], entry["date_from"]) == ("2024-05-06", "document")
    (skipped,) = report["skipped"]
    assert skipped["cause"] == "date" and skipped["reason"] == (
        "dated 2015-03-04 (as the document says), before 2020-01-01"
    )
    (source,) = http.get(f"/v1/research/{id}/sources").json()
    assert (source["date"], source["date_from"]) == ("2024-05-06", "document")
    events = http.get(f"/v1/research/{id}/events", params={"cursor": 0, "limit": 1_000}).json()["data"]
    (note,) = [e["data"] for e in events if e["kind"] == "note"]
    assert (note["sources"], note["left_out"]) == (1, {"date": 1})
    (told,) = [e["data"] for e in events if e["kind"] == "source"]
    assert told["date"] == "2024-05-06"
    markdown = http.get(f"/v1/research/{id}/report.md").text
    assert "2024-05-06 (as the document says)" in markdown and "Not read: 1 (1 outside the dates asked for)" in markdown
    assert "2024-05-06 (as the document says)" in http.get(f"/v1/research/{id}/report.html").text


def test_nothing_in_the_span_is_no_new_evidence_and_no_error(http: httpx.Client, tides: str) -> None:
    found = result(http, submit(http, collections=[tides], before="2001-01-01"))
    assert (found["status"], found["stop_reason"], found["partial"]) == ("completed", "no_new_evidence", False)
    assert found["output"]["answered"] is False and found["output"]["sources_read"] == 0
    assert [s["cause"] for s in found["output"]["skipped"]] == ["date", "date"]


def test_undated_pages_are_left_out_unless_they_are_to_be_kept(http: httpx.Client, pages: str) -> None:
    where = {"urls": [f"{pages}/article"], "after": "2020-01-01"}
    found = result(http, submit(http, **where))
    assert found["stop_reason"] == "no_new_evidence"
    assert [s["cause"] for s in found["output"]["skipped"]] == ["undated"]
    assert result(http, submit(http, **where, undated="keep"))["output"]["answered"]


def test_a_redirect_does_not_lead_around_the_domain_rules(http: httpx.Client, pages: str) -> None:
    elsewhere = pages.replace("127.0.0.1", "localhost")
    id = submit(http, urls=[f"{pages}/away?to={elsewhere}/article"], include_domains=["127.0.0.1"])
    failed = ended(http, id)
    assert failed.status_code == 409 and "not below include_domains" in failed.json()["detail"]
    id = submit(http, urls=[f"{pages}/away?to=/article"], include_domains=["127.0.0.1"], exclude_domains=["localhost"])
    assert result(http, id)["output"]["answered"]


def test_an_effort_says_which_models_are_asked(http: httpx.Client, tides: str, models: ScriptedServer) -> None:
    shown = {one["effort"]: one for one in http.get("/v1/efforts").json()["data"]}
    assert (shown["lite"]["rungs"], shown["core"]["rungs"]) == (["code", "small"], ["code", "small", "large"])
    assert shown["lite"]["budget"]["joules"] == 40_000 and shown["pro"]["most_passages"] == 32
    for effort, asked in (("lite", {"small"}), ("base", {"small", "large"})):
        models.script({"*": [{"text": "never what was asked for"}]})
        before = len(models.requests())
        accepted = http.post(
            "/v1/research", json={"query": QUESTION, "effort": effort, "sources": {"collections": [tides]}}
        )
        assert result(http, accepted.json()["id"])["output"]["answered"], "code answers where models do not"
        assert {request["body"]["model"] for request in models.requests()[before:]} == asked


@pytest.mark.parametrize(
    ("sources", "field", "words"),
    [
        ({"after": "2024-01-02", "before": "2024-01-01"}, "sources", "after: is later than before"),
        ({"after": "2024-01-01T00:00:00Z"}, "sources.after", "is not a day"),
        ({"after": 1_704_067_200}, "sources.after", "is not a day"),
        ({"before": "2024-02-30"}, "sources.before", "day"),
        ({"before": "20240101"}, "sources.before", "is not a day"),
        ({"undated": "perhaps"}, "sources.undated", "skip"),
        ({"include_domains": ["exa mple.org"]}, "sources.include_domains", "pattern"),
        ({"exclude_domains": [""]}, "sources.exclude_domains", "at least 1"),
        ({"urls": ["https://example.org"], "allow_network": False}, "sources", "allow_network is false"),
        ({"urls": ["https://www.example.org"], "exclude_domains": ["example.org"]}, "sources", "exclude_domains"),
        ({"urls": ["https://ｅｘａｍｐｌｅ.org"], "exclude_domains": ["example.org"]}, "sources", "exclude_domains"),
        ({"urls": ["https://example.org"], "include_domains": ["example.com"]}, "sources", "include_domains"),
    ],
)
def test_bad_bounds_are_told_with_their_field(
    http: httpx.Client, sources: dict[str, Any], field: str, words: str
) -> None:
    for path in ("/v1/research", "/v1/research:estimate"):
        refused = http.post(path, json={"query": QUESTION, "sources": sources})
        assert refused.status_code == 422, refused.text
        (fault, *_) = refused.json()["faults"]
        assert fault["field"].startswith(field) and words in fault["message"], fault
