"""What each call sends, and how its answer is read: values, which either client makes. Imports the server's models."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from agentflow.errors import (
    AgentflowError,
    ApiError,
    JobFailed,
    JobStateConflict,
    KeyReused,
    UnknownJob,
    UsageError,
)
from agentflow.jobs.job import JobBudget, JobState
from agentflow.research.report import Claim
from agentflow.server.research.models import (
    Estimate,
    PlanChoice,
    ResearchPage,
    ResearchRequest,
    ResearchResult,
    ResearchView,
    SourceView,
    SpendView,
    Submitted,
)

Value = TypeVar("Value")
# The longest that one request waits for a job to end: the server allows a minute.
WAIT_S = 25.0
TIMEOUT = httpx.Timeout(30.0, read=WAIT_S + 30.0)
# How often a call is made that does no harm twice, and the longest pause that a server may ask for in between.
TRIES = 4
LONGEST_PAUSE_S = 15.0
# How often a stream of events is taken up again without an event in between, each time half a second later: a server
# that is started anew is waited for, for 20 s and more.
BREAKS = 10
_BASE = "/v1/research"
_ERRORS: Mapping[str, type[AgentflowError]] = {
    "not-found": UnknownJob,
    "conflict": JobStateConflict,
    "idempotency-key-reused": KeyReused,
    "job-failed": JobFailed,
    "invalid-request": UsageError,
    "invalid-fields": UsageError,
}


@dataclass(frozen=True, slots=True)
class Call(Generic[Value]):
    """One request. ``again``: sending it twice does no harm, so it is repeated when the server asks for that."""

    method: str
    path: str
    read: Callable[[httpx.Response], Value]
    json: Any = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    files: Mapping[str, Any] | None = None
    again: bool = True


def submit(request: ResearchRequest, idempotency_key: str | None) -> Call[Submitted]:
    """Submit a job; a key is made where none is given, so that a repetition is the same job."""
    headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
    body = request.model_dump(mode="json", exclude_defaults=True)
    return Call("POST", _BASE, _reader(Submitted), body, headers=headers)


def estimate(request: ResearchRequest) -> Call[Estimate]:
    """Estimate what a job would cost."""
    return Call("POST", f"{_BASE}:estimate", _reader(Estimate), request.model_dump(mode="json", exclude_defaults=True))


def get(id: str) -> Call[ResearchView]:
    """How a job stands."""
    return Call("GET", _of(id), _reader(ResearchView))


def waited(id: str, seconds: float) -> Call[ResearchView | ResearchResult]:
    """What a job found, or how it stands while there is nothing."""

    def read(response: httpx.Response) -> ResearchView | ResearchResult:
        return _read(ResearchView if response.status_code == 202 else ResearchResult, response)

    return Call("GET", _of(id, "/result"), read, params={"wait": seconds})


def page(states: Sequence[JobState], metadata: Mapping[str, str], cursor: str | None, limit: int) -> Call[ResearchPage]:
    """Jobs, newest first."""
    params: dict[str, Any] = {
        "limit": limit,
        "status": [str(state) for state in states],
        "metadata": [f"{name}={value}" for name, value in metadata.items()],
    }
    if cursor is not None:
        params["cursor"] = cursor
    return Call("GET", _BASE, _reader(ResearchPage), params=params)


def control(id: str, verb: str, body: PlanChoice | JobBudget | None = None) -> Call[ResearchView]:
    """Cancel, stop, resume, approve, or give another budget."""
    json = None if body is None else body.model_dump(mode="json", exclude_defaults=True)
    return Call("POST", _of(id, f"/{verb}"), _reader(ResearchView), json)


def delete(id: str) -> Call[None]:
    """Remove a job that has ended."""
    return Call("DELETE", _of(id), lambda _: None)


def sources(id: str) -> Call[list[SourceView]]:
    """What a job read."""
    return Call("GET", _of(id, "/sources"), _reader(list[SourceView]))


def claims(id: str) -> Call[list[Claim]]:
    """What a job claims."""
    return Call("GET", _of(id, "/claims"), _reader(list[Claim]))


def spend(id: str) -> Call[SpendView]:
    """What a job has spent."""
    return Call("GET", _of(id, "/spend"), _reader(SpendView))


def markdown(id: str) -> Call[str]:
    """The report as Markdown."""
    return Call("GET", _of(id, "/report.md"), lambda response: response.text)


def collection(name: str) -> Call[str]:
    """Make a collection, and read its id."""
    return Call("POST", "/v1/collections", lambda r: str(_json(r)["id"]), {"name": name}, again=False)


def upload(collection: str, path: Path) -> Call[None]:
    """Upload a file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    files = {"file": (path.name, content)}
    return Call("POST", f"/v1/collections/{collection}/files", lambda _: None, files=files)


def request_of(query: str | ResearchRequest, fields: Mapping[str, Any]) -> ResearchRequest:
    """A request from a question and fields, or as it is.

    Raises:
        UsageError: a field is missing, unknown, or cannot be.
    """
    if isinstance(query, ResearchRequest) and not fields:
        return query
    given = {"query": query} if isinstance(query, str) else query.model_dump(exclude_unset=True)
    try:
        return ResearchRequest.model_validate({**given, **fields})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise UsageError(f"The request cannot be: {place}: {fault['msg'].removeprefix('Value error, ')}.") from error


def error_of(response: httpx.Response) -> AgentflowError:
    """The error that an answer is."""
    try:
        problem = _json(response)
    except ApiError:
        problem = {}
    kind = str(problem.get("type", "")).rsplit(":", 1)[-1]
    detail = str(problem.get("detail") or f"The server answered HTTP {response.status_code}, and not in our words.")
    known = _ERRORS.get(kind)
    if known is not None:
        return known(detail)
    error = ApiError(detail)
    error.status, error.problem = response.status_code, problem
    error.retry_after_s = _seconds(response.headers.get("retry-after"))
    return error


def unreachable(error: httpx.HTTPError) -> ApiError:
    """What it is to get no answer."""
    return ApiError(f"The server did not answer: {type(error).__name__}. Check its address, and that it runs.")


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds after which the same request may succeed; None when it will not, or nobody knows."""
    return _seconds(response.headers.get("retry-after")) if response.status_code in (429, 503) else None


def with_wait(call: Call[Value], seconds: float) -> Call[Value]:
    """The same call, waiting so long at the server."""
    return replace(call, params={**call.params, "wait": seconds})


def _of(id: str, tail: str = "") -> str:
    if not id or not all(letter.isalnum() or letter == "-" for letter in id):
        raise UnknownJob(f"'{id[:80]}' is no job's id.")
    return f"{_BASE}/{id}{tail}"


def _reader(shape: type[Value]) -> Callable[[httpx.Response], Value]:
    return lambda response: _read(shape, response)


def _read(shape: type[Value], response: httpx.Response) -> Value:
    try:
        return TypeAdapter(shape).validate_json(response.content)
    except ValidationError as error:
        raise ApiError("The server's answer is not of this version. Use the same version on both sides.") from error


def _json(response: httpx.Response) -> dict[str, Any]:
    return _read(dict[str, Any], response)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
