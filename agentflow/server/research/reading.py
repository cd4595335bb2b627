"""Reading jobs: how they stand, what they found, from what, at what cost. Imports models, streaming, answering."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import JsonValue

from agentflow.errors import UnknownJob, UsageError
from agentflow.jobs.job import Artifact, JobEvent, JobFilter, JobState, JobView, Moment
from agentflow.jobs.naming import REPORT
from agentflow.research.report import Claim, Report
from agentflow.research.sources.source import SourceDate, date_facts
from agentflow.server.access import AdmittingRoute, Reader, check_again
from agentflow.server.answering import WorkedResponse
from agentflow.server.research.controlling import JobId
from agentflow.server.research.models import (
    EventPage,
    ResearchPage,
    ResearchResult,
    ResearchView,
    SourceView,
    SpendView,
    Words,
)
from agentflow.server.research.streaming import EventReader, apology, stream_events
from agentflow.server.state import Server, TheServer

router = APIRouter(prefix="/v1/research", tags=["research"], route_class=AdmittingRoute)
LONGEST_WAIT_S: Final = 60.0
_MOST_EVENTS: Final = 1_000
# While it waits, how often it looks whether it still should.
_LOOK_S: Final = 1.0
_LAST_NUMBER: Final = 2**31 - 1
# A report is HTML that quotes strangers: it may style itself, and nothing else.
_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
Number = Annotated[int, Query(ge=0, le=_LAST_NUMBER)]


@router.get("", summary="List jobs, newest first")
async def list_research(
    server: TheServer,
    caller: Reader,
    status: Annotated[list[JobState] | None, Query(max_length=20)] = None,
    created_after: Moment | None = None,
    created_before: Moment | None = None,
    metadata: Annotated[list[Words] | None, Query(max_length=32, description="name=value; all must match")] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ResearchPage:
    """The key's tenant's jobs, a page at a time."""
    which = JobFilter(
        tenant=caller.tenant, states=tuple(status or ()), kind="research", created_after=created_after,
        created_before=created_before, metadata=_pairs(metadata or []),
    )  # fmt: skip
    page = await server.jobs.list(which, cursor=cursor, limit=limit)
    return ResearchPage(data=tuple(ResearchView.of(job) for job in page.jobs), cursor=page.cursor)


@router.get("/{id}", summary="How a job stands")
async def get_research(server: TheServer, caller: Reader, id: JobId) -> ResearchView:
    """Its state, its spend so far, and where everything else is."""
    return ResearchView.of(await server.jobs.get(id, tenant=caller.tenant))


@router.get(
    "/{id}/result",
    summary="What a job found",
    response_model=ResearchResult,
    responses={202: {"model": ResearchView}, 304: {"description": "It is as you know it"}},
)
async def get_result(
    server: TheServer,
    caller: Reader,
    id: JobId,
    request: Request,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="seconds to wait for the end")] = 0.0,
    if_none_match: Annotated[str | None, Header(max_length=4_096)] = None,
) -> Response:
    """200 with the result, partial ones included; 202 while there is none yet; 409 if there will be none."""
    with server.metrics.waits.track_inprogress():
        job = await _waited(server, request, id, wait, caller.tenant)
    if not job.has_result and not job.state.ended:
        view = ResearchView.of(job)
        after = {} if view.poll_after is None else {"Retry-After": str(int(view.poll_after) or 1)}
        return Response(view.model_dump_json(), 202, after, "application/json")
    found = await server.jobs.result(id, wait_s=0.0, tenant=caller.tenant)
    result = ResearchResult(
        id=found.id, status=found.state, stop_reason=found.stop_reason, partial=found.partial, output=found.output,
        basis=found.basis,
    )  # fmt: skip
    body = result.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")


@router.get(
    "/{id}/events",
    summary="What happened in a job, live",
    response_model=EventPage,
    responses={200: {"content": {"text/event-stream": {}}, "description": "A page of JSON, or a stream"}},
)
async def get_events(
    server: TheServer,
    caller: Reader,
    id: JobId,
    request: Request,
    cursor: Annotated[int | None, Query(ge=0, le=_LAST_NUMBER, description="a page after this number, as JSON")] = None,
    since: Annotated[int | None, Query(ge=0, le=_LAST_NUMBER, description="a stream after this number")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST_EVENTS)] = 100,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> Response:
    """A stream of server-sent events, each with its number; or, with `cursor`, a page of JSON.

    A reader that comes back with Last-Event-ID goes on where it was. `gap` says that numbers are missing, `end` that
    the job has ended and nothing follows.
    """
    job = await server.jobs.get(id, tenant=caller.tenant)
    accepts = request.headers.get("accept", "")
    if cursor is not None or ("application/json" in accepts and "text/event-stream" not in accepts):
        page = await _page(server, job, caller.tenant, cursor or 0, limit)
        return Response(page.model_dump_json(), media_type="application/json")
    after = since if since is not None else _number(last_event_id)
    reader = EventReader(caller.tenant, lambda: check_again(request))
    return WorkedResponse(lambda: stream_events(server, job, reader, after), apology)


@router.get("/{id}/sources", summary="What a job read")
async def get_sources(server: TheServer, caller: Reader, id: JobId) -> list[SourceView]:
    """Every source, with the hash of the text that claims cite."""
    found = await server.jobs.sources(id, tenant=caller.tenant)
    return [_source(id, one) for one in found]


@router.get("/{id}/sources/{source}", summary="The stored text of a source", response_class=Response)
async def get_source(server: TheServer, caller: Reader, id: JobId, source: str) -> Response:
    """Exactly what claims cite: positions in it are characters."""
    found = next((one for one in await server.jobs.sources(id, tenant=caller.tenant) if _id(one) == source), None)
    if found is None:
        raise UnknownJob(f"The job '{id}' has read no source '{source[:80]}'.")
    return await _file(server, caller.tenant, id, found.name, "text/plain; charset=utf-8")


@router.get("/{id}/claims", summary="What a job claims, each with its citations")
async def get_claims(server: TheServer, caller: Reader, id: JobId) -> list[Claim]:
    """Every claim that stood its check, with the verbatim spans that carry it; those left out of the report too."""
    report = await _report(server, id, caller.tenant)
    return [*report.claims, *report.left_out]


@router.get("/{id}/spend", summary="What a job has spent")
async def get_spend(server: TheServer, caller: Reader, id: JobId) -> SpendView:
    """So far; once there is a result, with the bill of every attempt."""
    job = await server.jobs.get(id, tenant=caller.tenant)
    meter: JsonValue = None
    if job.has_result:
        meter = (await _report(server, id, caller.tenant)).meter.model_dump(mode="json")
    return SpendView(id=id, status=job.state, budget=job.spec.budget, spend=job.spend, meter=meter)


@router.get("/{id}/report.md", summary="The report as Markdown", response_class=Response)
async def get_markdown(server: TheServer, caller: Reader, id: JobId) -> Response:
    """Its citations are as ``output.citations`` says."""
    return await _rendered(server, caller.tenant, id, "report.md", "text/markdown; charset=utf-8")


@router.get("/{id}/report.html", summary="The report as a page", response_class=Response)
async def get_page(server: TheServer, caller: Reader, id: JobId) -> Response:
    """One file without scripts, whose citations open on the quoted spans."""
    response = await _rendered(server, caller.tenant, id, "report.html", "text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _PAGE_POLICY
    return response


async def _rendered(server: Server, tenant: str | None, id: str, name: str, media_type: str) -> Response:
    """A report for people; where there is none, why there is no result."""
    try:
        return await _file(server, tenant, id, name, media_type)
    except UnknownJob:
        await server.jobs.result(id, wait_s=0.0, tenant=tenant)
        raise


async def _waited(server: Server, request: Request, id: str, seconds: float, tenant: str | None) -> JobView:
    """How a job stands once nothing more happens by itself, or after so many seconds.

    It waits no longer than the client does, nor than the server runs.
    """
    ends = time.monotonic() + seconds
    while True:
        left_s = max(ends - time.monotonic(), 0.0)
        job = await server.jobs.wait(id, seconds=min(left_s, _LOOK_S), tenant=tenant)
        if left_s <= _LOOK_S or not job.state.moves or server.stopping.is_set() or await request.is_disconnected():
            return job


async def _file(server: Server, tenant: str | None, id: str, name: str, media_type: str) -> Response:
    return Response(await server.jobs.read(id, name, tenant=tenant), media_type=media_type)


async def _report(server: Server, id: str, tenant: str | None) -> Report:
    # It says why, where there is none.
    await server.jobs.result(id, wait_s=0.0, tenant=tenant)
    return Report.model_validate(json.loads(await server.jobs.read(id, REPORT, tenant=tenant)))


async def _page(server: Server, job: JobView, tenant: str | None, cursor: int, limit: int) -> EventPage:
    events: list[JobEvent] = []
    async for event in server.jobs.events(job.id, since=cursor, follow=False, tenant=tenant):
        events.append(event)
        if len(events) == limit:
            break
    last = events[-1].number if events else cursor
    return EventPage(data=tuple(events), cursor=last, ended=job.state.ended and last >= job.events)


def _source(job: str, found: Artifact) -> SourceView:
    facts = {name: str(found.facts.get(name) or "") for name in ("origin", "title", "read_at")}
    facts |= date_facts(SourceDate.of(found.facts))
    return SourceView(
        id=_id(found), media_type=found.media_type, size=found.size, sha256=found.sha256,
        text=f"/v1/research/{job}/sources/{_id(found)}", **facts,
    )  # fmt: skip


def _id(source: Artifact) -> str:
    return str(source.facts.get("id") or source.name)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not all(equals for _, equals, _ in pairs):
        raise UsageError("metadata: write name=value, as in metadata=ticket=4711.")
    return {name: value for name, _, value in pairs}


def _number(last_event_id: str | None) -> int:
    """The number that a reader has; anything else is none, and it is told everything again."""
    text = last_event_id or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
