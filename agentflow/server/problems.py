"""Problems: every error of the API as RFC 9457 ``application/problem+json``. Imports errors and Starlette's responses.

A problem says what happened, whether asking again may help, and when. OpenAI clients read its ``error`` member.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from agentflow.budget.budget import Period
from agentflow.budget.windows import period_end, period_name, utc_now
from agentflow.errors import (
    AgentflowError,
    BackendTimeout,
    BackendUnavailable,
    BudgetExceeded,
    CallFailed,
    ConfigError,
    ContextOverflow,
    JobFailed,
    JobStateConflict,
    JobStoreError,
    KeyReused,
    LedgerError,
    RequestRejected,
    RunError,
    UnknownJob,
    UnknownModel,
    UsageError,
)

MEDIA_TYPE: Final = "application/problem+json"
_log = logging.getLogger("agentflow.server")
_TYPE: Final = "urn:agentflow:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its name, its title, its HTTP status, and whether the same request may succeed later."""

    name: str
    title: str
    status: int
    retryable: bool = False


INVALID: Final = Kind("invalid-request", "The request is not valid", 400)
UNAUTHENTICATED: Final = Kind("unauthenticated", "No valid key was given", 401)
BUDGET: Final = Kind("budget-exceeded", "A budget leaves no room", 402)
FORBIDDEN: Final = Kind("forbidden", "The key may not do this", 403)
NOT_FOUND: Final = Kind("not-found", "There is no such thing", 404)
METHOD: Final = Kind("method-not-allowed", "The method is not offered here", 405)
TIMED_OUT: Final = Kind("request-timeout", "The request came too slowly", 408, retryable=True)
CONFLICT: Final = Kind("conflict", "The job does not stand so that this can be done", 409)
KEY_REUSED: Final = Kind("idempotency-key-reused", "The Idempotency-Key came before with another body", 409)
JOB_FAILED: Final = Kind("job-failed", "The job ended without a result", 409)
TOO_LARGE: Final = Kind("too-large", "The request is too large", 413)
MEDIA: Final = Kind("unsupported-media-type", "The body is of a type that is not read here", 415)
INVALID_FIELDS: Final = Kind("invalid-fields", "Fields of the request are not valid", 422)
TOO_MANY: Final = Kind("rate-limited", "Too many requests", 429, retryable=True)
HEADERS: Final = Kind("headers-too-large", "The headers are too large", 431)
INTERNAL: Final = Kind("internal", "Something is wrong with the server", 500)
NO_REPLY: Final = Kind("no-valid-reply", "No model gave a valid reply", 502)
UNAVAILABLE: Final = Kind("unavailable", "The server cannot do this now", 503, retryable=True)
MODEL_TIMEOUT: Final = Kind("model-timeout", "A model gave no reply in time", 504, retryable=True)

# From the most to the least particular: the first that an error is an instance of.
_KINDS: Final[tuple[tuple[type[AgentflowError], Kind], ...]] = (
    (BudgetExceeded, BUDGET),
    (UnknownJob, NOT_FOUND),
    (UnknownModel, NOT_FOUND),
    (KeyReused, KEY_REUSED),
    (JobStateConflict, CONFLICT),
    (JobFailed, JOB_FAILED),
    (JobStoreError, UNAVAILABLE),
    (LedgerError, UNAVAILABLE),
    (ContextOverflow, INVALID),
    (RequestRejected, NO_REPLY),
    (BackendUnavailable, UNAVAILABLE),
    (BackendTimeout, MODEL_TIMEOUT),
    (CallFailed, NO_REPLY),
    (ConfigError, INTERNAL),
    (UsageError, INVALID),
    (RunError, NO_REPLY),
)
# Their own words name paths, addresses, accounts: nobody's business outside.
_DATABASE: Final = "The server's database cannot be used now. Nothing is half written: ask again later."
_DEFECT: Final = "The server is not set up for this. Its log says what to mend."
_OURS: Final[tuple[tuple[type[AgentflowError], str], ...]] = (
    (JobStoreError, _DATABASE), (LedgerError, _DATABASE), (ConfigError, _DEFECT),
)  # fmt: skip
_RETRY_AFTER_S: Final = 5.0
# What OpenAI's clients call the same.
_OPENAI_TYPES: Final = {
    401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error",
}  # fmt: skip


class Fault(BaseModel):
    """One field that is wrong: where it stands in the request, and why."""

    field: str
    message: str


class ProblemBody(BaseModel):
    """An error of the API (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:agentflow:problem:budget-exceeded",
                "title": "A budget leaves no room",
                "status": 402,
                "detail": "Budget exceeded: acme@2026-11-21 has spent $5 of $5 (and holds $0) ...",
                "retryable": True,
            }
        }
    )

    type: str = Field(description="names the kind of problem, for code")
    title: str
    status: int
    detail: str = Field(description="what happened, with figures, and what to do")
    retryable: bool = Field(description="the same request may succeed later: see the header Retry-After")
    faults: list[Fault] | None = Field(default=None, description="the fields that are wrong")


@dataclass(slots=True)
class Problem(Exception):
    """An error on its way to a client.

    Args:
        kind: what sort of problem it is.
        detail: what happened and what to do, for people.
        retry_after_s: when asking again makes sense.
        faults: the fields that are wrong.
        headers: more headers of the response.
    """

    kind: Kind
    detail: str
    retry_after_s: float | None = None
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, error: AgentflowError) -> Problem:
        """The problem that an error is to a client; what concerns the server's own parts is for its log alone."""
        kind = next((kind for known, kind in _KINDS if isinstance(error, known)), INTERNAL)
        detail = next((words for known, words in _OURS if isinstance(error, known)), None)
        if detail is None and kind is INTERNAL:
            detail = _DEFECT
        if detail is not None:
            _log.error("%s", error)
        after = getattr(error, "retry_after_s", None)
        if isinstance(error, BudgetExceeded):
            after = _resets_in_s(error.refusal.node)
        elif kind.retryable and after is None:
            after = _RETRY_AFTER_S
        return cls(kind, detail or str(error), after)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind.retryable or self.retry_after_s is not None

    def body(self) -> dict[str, Any]:
        """The members of RFC 9457, ours, and the one that OpenAI's clients read."""
        made = ProblemBody(
            type=_TYPE + self.kind.name, title=self.kind.title, status=self.kind.status, detail=self.detail,
            retryable=self.retryable, faults=list(self.faults) or None,
        ).model_dump(exclude_none=True)  # fmt: skip
        kind = _OPENAI_TYPES.get(
            self.kind.status, "server_error" if self.kind.status >= 500 else "invalid_request_error"
        )
        param = self.faults[0].field if self.faults else None
        made["error"] = {"message": self.detail, "type": kind, "param": param, "code": self.kind.name.replace("-", "_")}
        return made

    def response(self) -> JSONResponse:
        """The response that carries it."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        # OpenAI's clients ask again by status alone unless they are told.
        headers["X-Should-Retry"] = "true" if self.retryable and self.kind is not BUDGET else "false"
        return JSONResponse(self.body(), self.kind.status, headers, MEDIA_TYPE)


def _resets_in_s(node: str) -> float | None:
    """Seconds until the period of a budget that refused ends; None when the budget is not for a period."""
    now = utc_now()
    for per in get_args(Period):
        if node.rstrip("'").endswith(f"@{period_name(per, now)}"):
            return (period_end(per, now) - now).total_seconds()
    return None
