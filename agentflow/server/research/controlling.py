"""Controlling jobs: cancel, stop, resume, approve, budget, delete. Imports models, state."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path

from agentflow.jobs.job import JobBudget
from agentflow.server.access import AdmittingRoute, Submitter
from agentflow.server.research.models import PlanChoice, ResearchView
from agentflow.server.state import TheServer

router = APIRouter(prefix="/v1/research", tags=["research"], route_class=AdmittingRoute)
JobId = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="the job's id")]


@router.post("/{id}/cancel", summary="End a job and discard what it found")
async def cancel_research(server: TheServer, caller: Submitter, id: JobId) -> ResearchView:
    """A job that has ended already is left as it is."""
    return ResearchView.of(await server.jobs.cancel(id, tenant=caller.tenant))


@router.post("/{id}/stop", summary="Let a job finish early")
async def stop_research(server: TheServer, caller: Submitter, id: JobId) -> ResearchView:
    """It ends with what it has found, marked partial."""
    return ResearchView.of(await server.jobs.stop(id, tenant=caller.tenant))


@router.post("/{id}/resume", summary="Go on with a job that failed or is paused")
async def resume_research(server: TheServer, caller: Submitter, id: JobId) -> ResearchView:
    """What it has paid for is not paid again."""
    return ResearchView.of(await server.jobs.resume(id, tenant=caller.tenant))


@router.post("/{id}/approve", summary="Let a job go on that waits for its plan to be approved")
async def approve_research(
    server: TheServer, caller: Submitter, id: JobId, choice: Annotated[PlanChoice | None, Body()] = None
) -> ResearchView:
    """With its own plan, or with another."""
    plan = None if choice is None else choice.plan
    return ResearchView.of(await server.jobs.approve(id, plan=plan, tenant=caller.tenant))


@router.post("/{id}/budget", summary="Give a job other limits")
async def set_research_budget(server: TheServer, caller: Submitter, id: JobId, budget: JobBudget) -> ResearchView:
    """A running job holds to them within a second; a paused one needs `resume` too."""
    return ResearchView.of(await server.jobs.set_budget(id, budget, tenant=caller.tenant))


@router.delete("/{id}", status_code=204, summary="Remove a job that has ended, with everything it kept")
async def delete_research(server: TheServer, caller: Submitter, id: JobId) -> None:
    """What it cost stays in the ledger."""
    await server.jobs.delete(id, tenant=caller.tenant)
    await server.webhooks.forget(id)
