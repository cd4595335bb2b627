"""What each call sends, and how its answer is read: values, which either client makes. Imports the server's models."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

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
    BatchView,
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
    "too-large": UsageError,
    "unsupported-media-type": UsageError,
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


def submit_many(
    requests: Sequence[ResearchRequest | Mapping[str, Any]], idempotency_key: str | None
) -> Call[BatchView]:
    """Submit many jobs; a key is made where none is given."""
    headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
    made = [one if isinstance(one, ResearchRequest) else request_of("", one) for one in requests]
    body = {"requests": [request.model_dump(mode="json", exclude_defaults=True) for request in made]}
    return Call("POST", f"{_BASE}/batch", _reader(BatchView), body, headers=headers)


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


def source(id: str, source: str) -> Call[str]:
    """The stored text of a source."""
    return Call("GET", _of(id, f"/sources/{quote(source, safe='')}"), lambda response: response.text)


def markdown(id: str) -> Call[str]:
    """The report as Markdown."""
    return Call("GET", _of(id, "/report.md"), lambda response: response.text)


def html(id: str) -> Call[str]:
    """The report as a page."""
    return Call("GET", _of(id, "/report.html"), lambda response: response.text)


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
    error = error_from(problem, response.status_code)
    if isinstance(error, ApiError):
        error.retry_after_s = _seconds(response.headers.get("retry-after"))
    return error


def error_from(problem: Mapping[str, Any], status: int) -> AgentflowError:
    """The error that a problem (RFC 9457) is."""
    kind = str(problem.get("type", "")).rsplit(":", 1)[-1]
    detail = str(problem.get("detail") or f"The server answered HTTP {status}, and not in our words.")
    known = _ERRORS.get(kind)
    if known is not None:
        return known(detail)
    error = ApiError(detail)
    error.status, error.problem = status, problem
    return error


def unreachable(error: httpx.HTTPError) -> ApiError:
    """What it is to get no answer."""
    return ApiError(f"The server did not answer: {type(error).__name__}. Check its address, and that it runs.")


def pause_before_again(response: httpx.Response, tries: int) -> float | None:
    """Seconds before the same request may succeed; None when it will not, or later than one waits for."""
    asked = _seconds(response.headers.get("retry-after"))
    if response.status_code in (429, 503) and asked is not None:
        return asked if asked <= LONGEST_PAUSE_S else None
    # A proxy whose server is being started again says so in words of its own.
    ours = response.headers.get("content-type", "").startswith("application/problem+json")
    return None if ours or response.status_code not in (502, 503, 504) else pause_s(tries)


def pause_s(tries: int) -> float:
    """Seconds before another try, after so many that failed."""
    return 0.5 * 2.0 ** min(tries, 4)


def read(call: Call[Value], response: httpx.Response) -> Value:
    """What an answer says that is no error.

    Raises:
        ApiError: it is none of ours.
    """
    if response.has_redirect_location:
        where = response.headers["location"][:200]
        raise ApiError(f"The server is elsewhere: it names {where}. Use that address.")
    return call.read(response)


def _of(id: str, tail: str = "") -> str:
    if not id or not all(letter.isalnum() or letter == "-" for letter in id):
        raise UnknownJob(f"'{id[:80]}' is no job's id.")
    return f"{_BASE}/{id}{tail}"


def _reader(shape: type[Value]) -> Callable[[httpx.Response], Value]:
    return lambda response: _read(shape, response)


def _read(shape: type[Value], response: httpx.Response) -> Value:
    try:
        # What a later version tells besides is passed over.
        return TypeAdapter(shape).validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise ApiError("The server's answer is not of this version. Use the same version on both sides.") from error


def _json(response: httpx.Response) -> dict[str, Any]:
    return _read(dict[str, Any], response)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
