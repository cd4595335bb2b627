"""Whether the server lives, whether it can work, and its figures. Imports state, access, metrics."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from agentflow.errors import AgentflowError
from agentflow.server.access import Admin, AdmittingRoute
from agentflow.server.metrics import CONTENT_TYPE
from agentflow.server.state import Server, TheServer

router = APIRouter(tags=["health"], route_class=AdmittingRoute)
_PATIENCE_S: Final = 5.0
# A job that may start and has waited for longer than this finds no worker.
_LAG_S: Final = 60.0


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether the server can do its work: ``lagging`` jobs find no worker, which keeps no other request waiting."""

    status: Literal["ready", "unavailable"]
    database: Literal["ok", "unavailable"]
    queue: Literal["ok", "lagging", "unknown"]


@router.get("/healthz", summary="Whether the process lives")
async def healthz() -> Health:
    """Answers whenever the process can answer at all."""
    return Health()


@router.get("/readyz", summary="Whether the server can work", responses={503: {"model": Readiness}})
async def readyz(server: TheServer, response: Response) -> Readiness:
    """The database answers, and jobs do not wait for a worker in vain."""
    ready = await _readiness(server)
    response.status_code = 200 if ready.status == "ready" else 503
    return ready


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
async def metrics(server: TheServer, _: Admin) -> Response:
    """Requests, spend, queues and workers, in Prometheus' text format."""
    server.metrics.jobs(await server.jobs.statistics())
    return Response(server.metrics.page(), media_type=CONTENT_TYPE)


async def _readiness(server: Server) -> Readiness:
    if server.stopping.is_set():
        return Readiness(status="unavailable", database="ok", queue="unknown")
    try:
        async with asyncio.timeout(_PATIENCE_S):
            statistics = await server.jobs.statistics()
    except (AgentflowError, TimeoutError):
        return Readiness(status="unavailable", database="unavailable", queue="unknown")
    lag = max((queue.oldest_s or 0.0 for queue in statistics.queues), default=0.0)
    return Readiness(status="ready", database="ok", queue="lagging" if lag > _LAG_S else "ok")
