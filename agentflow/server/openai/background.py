"""Responses in the background: the kind of job that a worker does, and how it stands meanwhile. Imports stored, jobs.

No web framework: this is what a worker loads.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from pydantic import JsonValue

from agentflow.config import Settings
from agentflow.errors import UnknownJob
from agentflow.jobs.annex import Annex
from agentflow.jobs.job import JobSpec, JobState, JobView, StopReason
from agentflow.jobs.kinds import JobContext, Kind
from agentflow.jobs.opening import open_database
from agentflow.server.openai.parameters import checks_of
from agentflow.server.openai.response_bodies import ResponseBody, ResponseFault, Status
from agentflow.server.openai.stored import Responses, StoredResponse
from agentflow.server.openai.targets import target
from agentflow.server.tables import metadata

KIND: Final = "response"
_STATUS: Final[dict[JobState, Status]] = {
    JobState.QUEUED: "queued", JobState.COMPLETED: "failed", JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}  # fmt: skip


def job_of(response: StoredResponse, tenant: str | None) -> JobSpec:
    """The job that does a response. A budget that leaves no room fails it: there is no part of a reply."""
    budget = response.asked.agentflow.budget.model_copy(update={"on_limit": "fail"})
    return JobSpec(
        kind=KIND, query=f"response {response.id}", input={"response": response.id}, budget=budget, tenant=tenant
    )


@contextlib.asynccontextmanager
async def response_kind(settings: Settings) -> AsyncGenerator[Kind]:
    """What a worker runs for jobs of the kind ``response``; the database is let go of at the end.

    Raises:
        ConfigError: the variable with the address of PostgreSQL is not set.
    """
    annex = Annex(open_database(settings.jobs), metadata)
    responses = Responses(annex)

    async def respond(context: JobContext) -> JsonValue:
        id = str(context.spec.input.get("response"))
        response = await responses.find(id)
        if response.body is None:
            await responses.end(await _answered(context, response, responses))
        return {"response": id}

    try:
        yield respond
    finally:
        await annex.aclose()


async def _answered(context: JobContext, response: StoredResponse, responses: Responses) -> ResponseBody:
    asked = response.asked
    earlier = await responses.conversation(asked.previous_response_id, response.tenant)
    request = asked.request(earlier, {})
    context.enter(JobState.RUNNING)
    cascade = target(context.runtime, asked.model)
    async with context.runtime.chain(KIND, parent=context.meter, cascade=cascade, observe=context.attempt) as chain:
        reply = await chain.call(request, name=KIND, checks=checks_of(request))
    # Named after the response: whoever runs this again writes the same.
    return response.standing("completed").ended(reply, f"msg_{response.id.removeprefix('resp_')}")


def standing(response: StoredResponse, job: JobView | None) -> ResponseBody:
    """How a response stands, by what is known of its job."""
    if response.body is not None:
        return response.body
    if job is None:
        return response.standing("queued")
    found = response.standing(_STATUS.get(job.state, "in_progress"))
    if found.status != "failed":
        return found
    over = job.stop_reason == StopReason.BUDGET_REACHED
    said = "The job ended without a reply." if job.error is None else job.error.message
    fault = ResponseFault(code="budget_exceeded" if over else "server_error", message=said)
    return found.model_copy(update={"error": fault})


def not_found(id: str) -> UnknownJob:
    """What is said of a response whose job is no longer kept."""
    return UnknownJob(f"There is no response '{id[:80]}': it was not stored, or deleted, or is too old.")
