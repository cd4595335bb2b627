"""Submitting jobs, one or many. Imports models, state, idempotency."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Response

from agentflow.errors import AgentflowError, FetchRefused, JobStoreError, UsageError
from agentflow.jobs.job import JobView
from agentflow.research.sources.addresses import check_literal
from agentflow.server.access import AdmittingRoute, Caller, Submitter
from agentflow.server.problems import Problem
from agentflow.server.research.models import (
    BatchItem,
    BatchRequest,
    BatchView,
    ResearchRequest,
    Submitted,
    asked,
    asked_for,
    poll_after,
    urls_of,
)
from agentflow.server.state import Server, TheServer

router = APIRouter(prefix="/v1", tags=["research"], route_class=AdmittingRoute)
_KEY: Final = r"^[\x21-\x7e]{1,255}$"
IdempotencyKey = Annotated[
    str | None,
    Header(pattern=_KEY, description="the same key with the same body gives the same job back, for 24 hours"),
]


@router.post("/research", status_code=202, summary="Submit a job")
async def submit_research(
    server: TheServer,
    caller: Submitter,
    request: ResearchRequest,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Submitted:
    """A job id at once; the work is done by `agentflow worker`."""
    accepted = await _submit(server, caller, request, idempotency_key)
    response.headers["Location"] = accepted.urls.self
    return accepted


@router.post("/research/batch", status_code=202, summary="Submit many jobs")
async def submit_batch(
    server: TheServer, caller: Submitter, batch: BatchRequest, idempotency_key: IdempotencyKey = None
) -> BatchView:
    """Each request is accepted or refused by itself; an Idempotency-Key covers each at its place."""
    items: list[BatchItem] = []
    away: JobStoreError | None = None
    for place, request in enumerate(batch.requests):
        key = None if idempotency_key is None else f"{idempotency_key}#{place}"
        try:
            # A database that is away has been waited for once; the rest of the batch need not wait again.
            if away is not None:
                raise away
            items.append(BatchItem(job=await _submit(server, caller, request, key)))
        except AgentflowError as error:
            away = error if isinstance(error, JobStoreError) else away
            items.append(BatchItem(problem=Problem.of(error).body()))
    return BatchView(data=tuple(items))


async def _submit(server: Server, caller: Caller, request: ResearchRequest, key: str | None) -> Submitted:
    settings = server.settings.server
    if key is not None:
        key = await server.idempotency.name(caller.tenant or "", key)
        there = await server.jobs.of_key(key, tenant=caller.tenant)
        if there is not None and asked(there) == asked_for(request):
            # What it looks in may have changed since; it was submitted all the same.
            return await _accepted(server, caller, request, there)
    origins = await origins_of(server, caller, request)
    if request.webhook is not None:
        _check_host(request.webhook.url, "webhook.url", allow_private=settings.allow_private)
    spec = request.spec(caller.tenant, origins, allow_private=settings.allow_private)
    return await _accepted(server, caller, request, await server.jobs.submit(spec, idempotency_key=key))


async def _accepted(server: Server, caller: Caller, request: ResearchRequest, job: JobView) -> Submitted:
    """What a client is told of a job that was accepted; its webhook is watched for from here on."""
    if request.webhook is not None:
        await server.webhooks.watch(job.id, caller.tenant or "", request.webhook.url)
    return Submitted(id=job.id, status=job.state, urls=urls_of(job.id), poll_after=poll_after(job.state))


async def origins_of(server: Server, caller: Caller, request: ResearchRequest) -> tuple[str, ...]:
    """Every source of a request but its collections, as workers read them.

    Raises:
        UsageError: there is none, or one that may not be read; a collection is empty.
    """
    settings, wanted = server.settings.server, request.sources
    if wanted.paths and not settings.allow_paths:
        raise UsageError(
            "sources.paths: files of the server's machine are not read. Upload them as a collection, or set "
            "server.allow_paths."
        )
    for url in wanted.urls:
        _check_host(url, "sources.urls", allow_private=settings.allow_private)
    # A collection that is unknown or empty is told now, not by a worker.
    if wanted.collections:
        await server.catalogue.uploads(wanted.collections, caller.tenant or "", "")
    origins = (*wanted.urls, *wanted.paths)
    if not origins and not wanted.collections and request.previous_id is None:
        raise UsageError("sources: there is nothing to look in. Give urls, or collections with files in them.")
    return origins


def _check_host(url: str, field: str, *, allow_private: bool) -> None:
    """Refuse an address that is written as a private one; names are judged when they are dialled."""
    host = urlsplit(url).hostname or ""
    try:
        if host.lower().rstrip(".") in ("localhost", "localhost.localdomain") and not allow_private:
            raise FetchRefused("leads to a loopback address")
        check_literal(host, allow_private=allow_private)
    except FetchRefused as error:
        raise UsageError(f"{field}: '{host}' {error}") from error
