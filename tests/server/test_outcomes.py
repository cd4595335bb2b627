"""What is read of a job however it stands: waiting, whole, partial, failed, paused, cancelled, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

QUESTION = "How high does the tide rise in the Bay of Fundy?"
TIDES = "# Tides\n\nThe tide in the Bay of Fundy rises by sixteen metres.\n"
LATER = "2099-01-01T00:00:00Z"
# No model can be asked for that, so code answers, and says that the budget left no room.
TIGHT = {"usd": "0.000000001"}
MOVING = ("queued", "planning", "running", "verifying", "recovering")
PARTS = ("claims", "sources", "spend", "report.md", "report.html")


@pytest.fixture
def tides(http: httpx.Client) -> Iterator[str]:
    made = http.post("/v1/collections", json={"name": "tides"}).json()["id"]
    http.post(f"/v1/collections/{made}/files", files={"file": ("tides.md", TIDES)}).raise_for_status()
    yield made
    http.delete(f"/v1/collections/{made}")


def ended(http: httpx.Client, sources: dict[str, Any], **more: Any) -> str:
    """A job that has come to where it goes by itself."""
    accepted = http.post("/v1/research", json={"query": QUESTION, "sources": sources, **more})
    assert accepted.status_code == 202, accepted.text
    id = accepted.json()["id"]
    while http.get(f"/v1/research/{id}").json()["status"] in MOVING:
        http.get(f"/v1/research/{id}/result", params={"wait": 20})
    return id


def parts(http: httpx.Client, id: str) -> dict[str, httpx.Response]:
    return {part: http.get(f"/v1/research/{id}/{part}") for part in PARTS}


def codes(found: dict[str, httpx.Response]) -> list[int]:
    return [found[part].status_code for part in PARTS]


@pytest.mark.parametrize(
    ("on_limit", "status"), [("answer", "completed"), ("pause", "paused_budget"), ("fail", "failed")]
)
def test_a_partial_answer_is_read_like_a_whole_one(http: httpx.Client, tides: str, on_limit: str, status: str) -> None:
    id = ended(http, {"collections": [tides]}, budget={**TIGHT, "on_limit": on_limit})
    view = http.get(f"/v1/research/{id}").json()
    assert (view["status"], view["stop_reason"], view["partial"]) == (status, "budget_reached", True)
    result = http.get(f"/v1/research/{id}/result").json()
    assert (result["status"], result["partial"]) == (status, True)
    found = parts(http, id)
    assert codes(found) == [200] * 5
    assert "sixteen" in found["claims"].json()[0]["text"] and len(found["sources"].json()) == 1
    assert found["spend"].json()["meter"]["attempts"] and found["spend"].json()["status"] == status
    for page in ("report.md", "report.html"):
        assert "Ended early" in found[page].text or "budget" in found[page].text.lower()


def test_a_job_that_failed_without_a_result_says_why_wherever_it_is_asked(http: httpx.Client, tides: str) -> None:
    id = ended(http, {"collections": [tides], "urls": ["http://nothing.invalid/"]})
    found = parts(http, id)
    assert codes(found) == [409, 200, 200, 409, 409]
    for part in ("claims", "report.md", "report.html"):
        problem = found[part].json()
        assert problem["type"].endswith("job-failed") and "nothing.invalid" in problem["detail"]
    assert found["sources"].json() == [] and found["spend"].json()["meter"] is None
    assert found["spend"].json()["status"] == "failed"


def test_a_job_that_has_not_begun_has_nothing_yet(http: httpx.Client, tides: str) -> None:
    accepted = http.post(
        "/v1/research", json={"query": QUESTION, "sources": {"collections": [tides]}, "deferrable_until": LATER}
    )
    found = parts(http, accepted.json()["id"])
    assert codes(found) == [409, 200, 200, 409, 409]
    for part in ("claims", "report.md", "report.html"):
        problem = found[part].json()
        assert problem["type"].endswith("conflict") and "no result yet" in problem["detail"]
    assert found["spend"].json()["spend"]["calls"] == 0


def test_a_job_that_waits_for_a_person_tells_what_it_has_spent(http: httpx.Client, tides: str) -> None:
    id = ended(http, {"collections": [tides]}, plan={"approve": True})
    found = parts(http, id)
    assert codes(found) == [409, 200, 200, 409, 409]
    assert found["spend"].json()["status"] == "awaiting_approval" and found["spend"].json()["spend"]["calls"] > 0
    stopped = http.post(f"/v1/research/{id}/stop").json()
    assert (stopped["status"], stopped["stop_reason"]) == ("completed", "stopped")
    assert codes(parts(http, id))[1:3] == [200, 200]


def test_what_a_cancelled_job_found_is_gone_and_what_it_cost_is_not(http: httpx.Client, tides: str) -> None:
    id = ended(http, {"collections": [tides]}, budget={**TIGHT, "on_limit": "pause"})
    spent = http.get(f"/v1/research/{id}/spend").json()["spend"]
    http.post(f"/v1/research/{id}/cancel")
    found = parts(http, id)
    assert codes(found) == [409, 200, 200, 409, 409]
    assert found["sources"].json() == [] and found["spend"].json()["spend"] == spent
    for part in ("claims", "report.md", "report.html"):
        assert found[part].json()["type"].endswith("job-failed") and "cancelled" in found[part].json()["detail"]


def test_a_deleted_job_is_unknown_wherever_it_is_asked(http: httpx.Client, tides: str) -> None:
    id = ended(http, {"collections": [tides]})
    source = http.get(f"/v1/research/{id}/sources").json()[0]["text"]
    assert http.get(source).status_code == 200
    assert http.delete(f"/v1/research/{id}").status_code == 204
    for part in ("", "/result", "/events", *(f"/{part}" for part in PARTS)):
        gone = http.get(f"/v1/research/{id}{part}")
        assert gone.status_code == 404 and gone.json()["type"].endswith("not-found"), part
    assert http.get(source).status_code == 404
