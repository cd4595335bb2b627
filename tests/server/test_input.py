"""Values at the edge of what can be counted, written or read: each is refused by name, and none is a defect."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from agentflow import Budget
from agentflow.errors import UsageError
from tests.servers.api import Api

FIRST, LAST = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"
ASKED: dict[str, Any] = {"query": "Why?", "sources": {"urls": ["https://example.org/"]}}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"deadline": FIRST}, "deadline"),
        ({"deferrable_until": LAST}, "deferrable_until"),
        ({"budget": {"joules": 1e13}}, "budget.joules"),
        ({"budget": {"grams_co2e": 1e300}}, "budget.grams_co2e"),
        ({"budget": {"seconds": 1e300}}, "budget.seconds"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(api: Api, wrong: dict[str, Any], field: str) -> None:
    with api.client() as http:
        reply = http.post("/v1/research", json={**ASKED, **wrong})
    assert reply.status_code == 422, reply.text
    assert [fault["field"] for fault in reply.json()["faults"]] == [field]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"created_after": FIRST}, 422),
        ({"created_before": LAST}, 422),
        ({"metadata": "a\0b=1"}, 422),
        ({"metadata": "a=\0"}, 422),
        ({"metadata": "a"}, 400),
        ({"metadata": """a"]') or 1=1 --=1"""}, 200),
        ({"cursor": "9" * 100 + ":x"}, 400),
        ({"cursor": "1:" + "x" * 100}, 400),
        ({"cursor": "1:\0"}, 400),
        ({"cursor": "-1:x"}, 400),
        ({"cursor": "1:x"}, 200),
    ],
)
def test_lists_bear_any_filter(api: Api, query: dict[str, str], status: int) -> None:
    if "cursor" in query:
        query = {"cursor": base64.urlsafe_b64encode(query["cursor"].encode()).decode().rstrip("=")}
    with api.client() as http:
        reply = http.get("/v1/research", params=query)
    assert reply.status_code == status, reply.text


def test_a_budget_beyond_what_can_be_counted_is_refused() -> None:
    wrong: list[dict[str, Any]] = [{"joules": 1e13}, {"grams_co2e": 1e13}, {"usd": 1e10}, {"tokens": 2**63 + 1}]
    for limits in wrong:
        with pytest.raises(UsageError, match="more than can be counted"):
            Budget(**limits)
