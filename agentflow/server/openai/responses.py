"""``POST /v1/responses``: whole, streamed, or in the background. Imports asking, response_bodies, response_events.

Next: ``kept_responses`` (what may be done with those that are stored).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from agentflow.cascade.reply import Reply
from agentflow.errors import JobStoreError, UsageError
from agentflow.server.access import AdmittingRoute, Caller, Submitter
from agentflow.server.answering import Head, WorkedResponse
from agentflow.server.openai.asking import Ask, pictures_for
from agentflow.server.openai.background import job_of, standing
from agentflow.server.openai.bill import headers
from agentflow.server.openai.kept_responses import apology, stream_of
from agentflow.server.openai.response_bodies import ResponseBody, ResponseRequest, new_item_id
from agentflow.server.openai.response_events import ResponseEvents
from agentflow.server.openai.stored import StoredResponse, new_response
from agentflow.server.state import Server, TheServer

router = APIRouter(prefix="/v1", tags=["openai"], route_class=AdmittingRoute)
_EXAMPLE = {"model": "default", "input": "Which of these tickets is urgent? ...", "max_output_tokens": 200}
_STREAM = {"x-accel-buffering": "no"}
_log = logging.getLogger("agentflow.server.responses")


@router.post(
    "/responses",
    summary="Ask a cascade or model, in the newer dialect",
    response_model=ResponseBody,
    responses={200: {"content": {"text/event-stream": {}}, "description": "The reply, whole or as events"}},
)
async def create_response(
    server: TheServer, caller: Submitter, body: Annotated[ResponseRequest, Body(examples=[_EXAMPLE])]
) -> Response:
    """The reply to a conversation, with what it cost in ``usage.agentflow`` and in the headers x-agentflow-*."""
    if body.background and not body.stored:
        raise UsageError("background: needs to be stored. Leave store out, or ask without background.")
    earlier = await server.responses.conversation(body.previous_response_id, caller.tenant)
    pictures = await pictures_for(server, body.addresses)
    asked = body.kept(pictures)
    new = new_response(caller.tenant or "", asked)
    ask = Ask(caller, "response", body.model, asked.request(earlier, pictures), body.agentflow)
    if body.background:
        return await _in_background(server, caller, new, ask)
    answer = _Answer(server, ask, new)
    if body.stream:
        return WorkedResponse(answer.streamed, lambda problem: apology(answer.events, problem), server.refused)
    return WorkedResponse(answer.whole, refused=server.refused)


async def _in_background(server: Server, caller: Caller, new: StoredResponse, ask: Ask) -> Response:
    """Write it down as a job; refused now is what the worker could only refuse."""
    async with await ask.chain(server):
        pass
    await server.responses.keep(new)
    job = await server.jobs.submit(job_of(new, caller.tenant), idempotency_key=new.id)
    await server.responses.given(new.id, job.id)
    given = replace(new, job=job.id)
    if new.asked.stream:
        return stream_of(server, given)
    return Response(standing(given, job).model_dump_json(), media_type="application/json")


@dataclass(frozen=True, slots=True)
class _Answer:
    """One reply on its way to a client."""

    server: Server
    ask: Ask
    new: StoredResponse
    events: ResponseEvents = field(default_factory=lambda: ResponseEvents(new_item_id()))

    async def whole(self) -> AsyncGenerator[Head | bytes]:
        """In one piece, its bill in the headers too."""
        async with await self.ask.chain(self.server) as chain:
            (reply,) = await self.ask.whole(chain)
        body = await self._ended(reply)
        yield Head("application/json", headers(reply))
        yield body.model_dump_json().encode()

    async def streamed(self) -> AsyncGenerator[Head | bytes]:
        """As it comes: the events that OpenAI's clients expect, each with its number."""
        begun, events = False, self.events
        async with await self.ask.chain(self.server) as chain, aclosing(self.ask.pieces(chain)) as pieces:
            async for _, piece in pieces:
                if not begun:
                    begun = True
                    yield Head("text/event-stream", _STREAM)
                    for event in events.begun(self.new.standing("in_progress")):
                        yield event
                if not isinstance(piece, str):
                    for event in events.ended(await self._ended(piece)):
                        yield event
                elif piece:
                    for event in events.text(piece):
                        yield event

    async def _ended(self, reply: Reply[str]) -> ResponseBody:
        """The response, and kept if it is to be: what was paid for is given also when it cannot be kept."""
        self.server.metrics.served(reply)
        body = self.new.standing("completed").ended(reply, self.events.item)
        if body.store:
            try:
                await self.server.responses.keep(replace(self.new, body=body))
            except JobStoreError as error:
                _log.warning("%s A response is given without being stored.", error)
                return body.model_copy(update={"store": False})
        return body
