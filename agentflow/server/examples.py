"""Examples of what operations are asked and answer, by operation: the OpenAPI document shows them. Imports nothing.

A request whose model has an example of its own needs none here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_JOB: Final = "20261121-120000-7f3a9c0e5d218b46"
_SHA256: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_QUERY: Final = "How high does the tide rise in the Bay of Fundy?"
_BASE: Final = f"/v1/research/{_JOB}"
_SUBMITTED: Final = {
    "id": _JOB,
    "status": "queued",
    "urls": {
        "self": _BASE, "result": f"{_BASE}/result", "events": f"{_BASE}/events", "sources": f"{_BASE}/sources",
        "claims": f"{_BASE}/claims", "spend": f"{_BASE}/spend", "report_md": f"{_BASE}/report.md",
        "report_html": f"{_BASE}/report.html",
    },
    "poll_after": 2.0,
}  # fmt: skip
_SPEND: Final = {
    "calls": 4, "tokens": 2310, "usd": "0.0031", "joules": 412.5, "joules_low": 180.0, "joules_high": 900.0,
    "provenance": "modelled", "grams_co2e": 0.03, "seconds": 6.2, "in_doubt": 0,
}  # fmt: skip
_VIEW: Final = {
    **_SUBMITTED,
    "status": "running", "poll_after": 1.0, "object": "research", "query": _QUERY, "effort": "base",
    "budget": {"usd": "0.05", "on_limit": "answer"}, "spend": _SPEND, "plan": ["How high is the highest tide?"],
    "created": "2026-11-21T12:00:00Z", "started": "2026-11-21T12:00:01Z", "runs": 1, "failures": 0, "recoveries": 0,
    "events": 12, "metadata": {"ticket": "4711"},
}  # fmt: skip
_CLAIM: Final = {
    "text": "The tide in the Bay of Fundy rises by sixteen metres.",
    "citations": [
        {
            "source_id": "s1", "start": 9, "end": 62,
            "quote": "The tide in the Bay of Fundy rises by sixteen metres.", "sha256": _SHA256,
        }
    ],
    "question": 0,
    "support": 1.0,
}  # fmt: skip
_FILE: Final = {
    "name": "tides.md", "media_type": "text/markdown", "size": 96, "sha256": _SHA256, "characters": 96,
}  # fmt: skip
_COLLECTION: Final = {
    "id": "col_0c9d5f0a2b7e4c1d8f3a6b5e", "name": "tides", "created_ms": 1795262400000, "files": [_FILE],
}  # fmt: skip
_MODEL: Final = {
    "id": "default", "object": "model", "created": 0, "owned_by": "agentflow", "kind": "cascade",
    "rungs": ["small", "large"],
}  # fmt: skip
_BILL: Final = {
    "rung": "small", "confidence": 0.93, "usd": "0.00042", "grams_co2e": 0.004, "seconds": 0.81, "in_doubt": 0,
    "joules": {"mean": 35.2, "low": 12.0, "high": 80.0, "provenance": "modelled"},
    "attempts": [
        {"rung": "small", "outcome": "accepted", "tokens": 138, "usd": "0.00042", "joules": 35.2, "seconds": 0.81}
    ],
}  # fmt: skip
_CHAT: Final = {
    "id": "chatcmpl-5d218b467f3a9c0e",
    "object": "chat.completion",
    "created": 1795262400,
    "model": "default",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Ticket 2."}, "finish_reason": "stop"}
    ],
    "usage": {
        "prompt_tokens": 120, "completion_tokens": 18, "total_tokens": 138,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0},
        "agentflow": _BILL,
    },
}  # fmt: skip
_RESPONSE: Final[dict[str, Any]] = {
    "id": "resp_5d218b467f3a9c0e",
    "object": "response",
    "created_at": 1795262400,
    "status": "completed",
    "model": "default",
    "output": [
        {
            "id": "msg_7f3a9c0e5d218b46", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "Ticket 2.", "annotations": [], "logprobs": []}],
        }
    ],
    "background": False,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "top_p": 1.0,
    "max_output_tokens": None,
    "store": True,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "temperature": 1.0,
    "instructions": None,
    "metadata": {},
    "usage": {
        "input_tokens": 120, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 18,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 138, "agentflow": _BILL,
    },
}  # fmt: skip
_EVENTS: Final = {
    "data": [
        {"number": 1, "time": "2026-11-21T12:00:00Z", "kind": "state", "run": 0, "data": {"state": "queued"}}
    ],
    "cursor": 1,
    "ended": False,
}  # fmt: skip

REQUESTS: Final[Mapping[str, Any]] = {
    "submit_batch": {"requests": [{"query": _QUERY, "sources": {"collections": [_COLLECTION["id"]]}}]},
    "approve_research": {"plan": ["How high is the highest tide?"]},
    "set_research_budget": {"usd": "0.10", "on_limit": "answer"},
}
"""What an operation may be asked, by its id."""

ANSWERS: Final[Mapping[str, Any]] = {
    "healthz": {"status": "ok"},
    "readyz": {"status": "ready", "database": "ok", "queue": "ok"},
    "list_models": {"object": "list", "data": [_MODEL]},
    "get_model": _MODEL,
    "chat_completions": _CHAT,
    "create_response": _RESPONSE,
    "get_response": _RESPONSE,
    "cancel_response": _RESPONSE,
    "delete_response": {"id": "resp_5d218b467f3a9c0e", "object": "response", "deleted": True},
    "list_input_items": {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False},
    "create_embeddings": {
        "object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.12, -0.07]}],
        "model": "nomic-embed", "usage": {"prompt_tokens": 8, "total_tokens": 8, "agentflow": _BILL},
    },
    "list_efforts": {
        "data": [
            {
                "effort": "base", "budget": {"usd": "0.10"}, "rungs": ["small"], "sub_questions": 4, "passages": 8,
                "most_passages": 24,
            }
        ]
    },
    "submit_research": _SUBMITTED,
    "submit_batch": {"data": [{"job": _SUBMITTED}]},
    "estimate_research": {
        "tokens": {"p50": 1900.0, "p90": 7400.0}, "usd": {"p50": 0.002, "p90": 0.01},
        "joules": {"p50": 380.0, "p90": 1500.0}, "seconds": {"p50": 5.0, "p90": 21.0}, "basis": "configuration",
    },
    "list_research": {"data": [_VIEW], "cursor": None},
    "get_research": _VIEW,
    "get_result": {
        "id": _JOB, "status": "completed", "stop_reason": "satisfied", "partial": False,
        "output": {"question": _QUERY, "answered": True, "claims": [_CLAIM]},
    },
    "get_events": _EVENTS,
    "get_sources": [
        {
            "id": "s1", "origin": "tides.md", "title": "Tides", "media_type": "text/markdown", "size": 96,
            "sha256": _SHA256, "read_at": "2026-11-21T12:00:02Z", "text": f"{_BASE}/sources/s1",
        }
    ],
    "get_claims": [_CLAIM],
    "get_spend": {"id": _JOB, "status": "completed", "budget": {"usd": "0.05"}, "spend": _SPEND, "meter": None},
    "cancel_research": {**_VIEW, "status": "cancelled", "stop_reason": "cancelled", "poll_after": None},
    "stop_research": _VIEW,
    "resume_research": {**_VIEW, "status": "queued", "poll_after": 2.0},
    "approve_research": {**_VIEW, "status": "queued", "poll_after": 2.0},
    "set_research_budget": _VIEW,
    "create_collection": {**_COLLECTION, "files": []},
    "list_collections": {"data": [_COLLECTION]},
    "get_collection": _COLLECTION,
    "add_file": _FILE,
}  # fmt: skip
"""What an operation may answer when all is well, by its id."""
