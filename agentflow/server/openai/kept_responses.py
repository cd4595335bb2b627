"""Stored responses: read, followed, cancelled, deleted, and let go of when they are old. Imports stored, background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, JsonValue
from starlette.responses import Response

from agentflow.errors import AgentflowError, UnknownJob, UsageError
from agentflow.server.access import AdmittingRoute, Reader, Submitter
from agentflow.server.answering import Head, WorkedResponse
from agentflow.server.openai.background import not_found, standing
from agentflow.server.openai.response_bodies import ResponseBody
from agentflow.server.openai.response_events import ResponseEvents
from agentflow.server.openai.stored import StoredResponse
from agentflow.server.problems import Problem
from agentflow.server.state import Server, TheServer

router = APIRouter(prefix="/v1/responses", tags=["openai"], route_class=AdmittingRoute)
ResponseName = Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9_-]+$", description="the response's id")]
_LAST_NUMBER: Final = 2**31 - 1
_LOOK_S: Final = 1.0
_RETIRE_S: Final = 600.0
_log = logging.getLogger("agentflow.server.responses")


class ItemList(BaseModel):
    """The turns that a response was the reply to."""

    object: Literal["list"] = "list"
    data: list[dict[str, JsonValue]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """A response that is no more."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


@router.get(
    "/{response_id}",
    summary="A stored response",
    response_model=ResponseBody,
    responses={200: {"content": {"text/event-stream": {}}, "description": "The response, whole or as events"}},
)
async def get_response(
    server: TheServer,
    caller: Reader,
    response_id: ResponseName,
    stream: Annotated[bool, Query(description="of one in the background: its events, until it has ended")] = False,
    starting_after: Annotated[
        int, Query(ge=-1, le=_LAST_NUMBER, description="the number of the last event known")
    ] = -1,
) -> Response:
    """How it stands, and what it came to."""
    found = await server.responses.find(response_id, caller.tenant)
    if not stream:
        return Response((await _standing(server, found)).model_dump_json(), media_type="application/json")
    if not found.asked.background:
        raise UsageError("stream: only a response in the background has events to be read later. Leave stream out.")
    return stream_of(server, found, starting_after)


@router.get("/{response_id}/input_items", summary="What a stored response was the reply to")
async def list_input_items(
    server: TheServer,
    caller: Reader,
    response_id: ResponseName,
    after: Annotated[str | None, Query(max_length=512)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> ItemList:
    """Every turn of the conversation before it, the newest first."""
    found = await server.responses.find(response_id, caller.tenant)
    earlier = await server.responses.conversation(found.asked.previous_response_id, caller.tenant)
    items = [item.shown() for item in (*earlier, *found.asked.items)]
    if order == "desc":
        items.reverse()
    names = [str(item.get("id")) for item in items]
    if after is not None and after not in names:
        raise UsageError("after: there is no item of this id. Take the last_id of the page before.")
    begin = 0 if after is None else names.index(after) + 1
    page = items[begin : begin + limit]
    shown = names[begin : begin + limit]
    return ItemList(
        data=page, first_id=shown[0] if shown else None, last_id=shown[-1] if shown else None,
        has_more=begin + limit < len(items),
    )  # fmt: skip


@router.post("/{response_id}/cancel", summary="End a response that is made in the background")
async def cancel_response(server: TheServer, caller: Submitter, response_id: ResponseName) -> ResponseBody:
    """One that has ended already is left as it is."""
    found = await server.responses.find(response_id, caller.tenant)
    if not found.asked.background:
        raise UsageError("Only a response in the background can be cancelled; this one was not.")
    now = await _standing(server, found)
    if now.status in ("queued", "in_progress"):
        await server.responses.end(found.standing("cancelled"))
        await _cancel_job(server, found)
    return await _standing(server, await server.responses.find(response_id, caller.tenant))


@router.delete("/{response_id}", summary="Delete a stored response, with all that was kept of it")
async def delete_response(server: TheServer, caller: Submitter, response_id: ResponseName) -> Deleted:
    """What it cost stays in the ledger. Responses that went on from it can no longer be gone on from."""
    found = await server.responses.find(response_id, caller.tenant)
    await _forget(server, found)
    return Deleted(id=response_id)


def stream_of(server: Server, response: StoredResponse, after: int = -1) -> WorkedResponse:
    """The events of a response in the background, until it has ended or the server is asked to.

    What a model writes is told once it is whole and written down: so the numbers are the same for every reader.

    Args:
        server: the server.
        response: the response.
        after: the number of the last event that the reader has.
    """
    events = ResponseEvents(after=after)
    return WorkedResponse(
        lambda: _followed(server, response, events), lambda problem: apology(events, problem), server.refused
    )


async def _followed(server: Server, response: StoredResponse, events: ResponseEvents) -> AsyncGenerator[Head | bytes]:
    yield Head("text/event-stream", {"x-accel-buffering": "no"})
    for event in events.begun(response.standing("queued")):
        yield event
    told, quiet_since = False, time.monotonic()
    while not server.stopping.is_set():
        now = await _standing(server, await server.responses.find(response.id))
        ended = now.status not in ("queued", "in_progress")
        if not told and now.status != "queued":
            told = True
            yield events.standing(response.standing("in_progress"))
        if ended:
            for event in events.ended(now):
                yield event
            return
        if response.job is None:
            await asyncio.sleep(_LOOK_S)
        else:
            await server.jobs.wait(response.job, seconds=_LOOK_S)
        if time.monotonic() - quiet_since > server.settings.server.heartbeat_s:
            quiet_since = time.monotonic()
            yield b": still here\n\n"


def apology(events: ResponseEvents, problem: Problem) -> bytes:
    """What a stream that broke off says last."""
    code = problem.kind.name.replace("-", "_")
    return events.event("error", code=code, message=problem.detail, param=None)


async def retire_responses(server: Server) -> None:
    """Delete responses that were made longer ago than they are kept, until cancelled."""
    days = server.settings.server.keep_responses_days
    while True:
        try:
            while old := await server.responses.older_than(days):
                for response in old:
                    await _forget(server, response)
        except AgentflowError as error:
            _log.warning("%s Old responses are deleted later.", error)
        except Exception:
            # A defect here must not take the server with it.
            _log.exception("Old responses cannot be deleted now.")
        await asyncio.sleep(_RETIRE_S)


async def _standing(server: Server, response: StoredResponse) -> ResponseBody:
    if response.body is not None or response.job is None:
        return standing(response, None)
    try:
        job = await server.jobs.get(response.job)
    except UnknownJob as error:
        raise not_found(response.id) from error
    # How it ended is written before its job ends, but perhaps after it was looked up here.
    return standing(await server.responses.find(response.id) if job.state.ended else response, job)


async def _forget(server: Server, response: StoredResponse) -> None:
    """Its job first, with the replies that the ledger keeps of it: while the row stands, the rest can be done again."""
    if response.job is not None:
        await _cancel_job(server, response)
        with contextlib.suppress(UnknownJob):
            await server.jobs.delete(response.job)
    await server.responses.forget(response.id)


async def _cancel_job(server: Server, response: StoredResponse) -> Any:
    with contextlib.suppress(UnknownJob):
        await server.jobs.cancel(response.job or "")
