"""``POST /v1/chat/completions``: whole or streamed, tools included. Imports asking, chat_bodies, answering."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body
from starlette.responses import Response

from agentflow.cascade.reply import Reply
from agentflow.server.access import AdmittingRoute, Submitter
from agentflow.server.answering import Head, WorkedResponse
from agentflow.server.openai.asking import Ask, pictures_for
from agentflow.server.openai.bill import headers
from agentflow.server.openai.chat_bodies import (
    ChatCompletion,
    ChatRequest,
    Choice,
    Usage,
    finish_of,
    logprobs_of,
    tool_calls_of,
)
from agentflow.server.problems import Problem
from agentflow.server.state import Server, TheServer

router = APIRouter(prefix="/v1", tags=["openai"], route_class=AdmittingRoute)
_EXAMPLE = {
    "model": "default",
    "messages": [{"role": "user", "content": "Which of these tickets is urgent? ..."}],
    "agentflow": {"budget": {"usd": "0.01", "joules": 500}},
}


@router.post(
    "/chat/completions",
    summary="Ask a cascade or model",
    response_model=ChatCompletion,
    responses={200: {"content": {"text/event-stream": {}}, "description": "The reply, whole or as events"}},
)
async def chat_completions(
    server: TheServer, caller: Submitter, body: Annotated[ChatRequest, Body(examples=[_EXAMPLE])]
) -> Response:
    """The reply to a conversation, with what it cost in ``usage.agentflow`` and in the headers x-agentflow-*."""
    request = body.request(await pictures_for(server, body.addresses))
    ask = Ask(caller, "chat", body.model, request, body.agentflow, body.n or 1)
    answer = _Answer(server, ask, f"chatcmpl-{secrets.token_hex(12)}", int(time.time()))
    if not body.stream:
        return WorkedResponse(answer.whole, refused=server.refused)
    usage = body.stream_options is not None and body.stream_options.include_usage
    return WorkedResponse(lambda: answer.streamed(usage=usage), _apology, server.refused)


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer on its way to a client."""

    server: Server
    ask: Ask
    id: str
    created: int

    async def whole(self) -> AsyncGenerator[Head | bytes]:
        """In one piece, its bill in the headers too."""
        async with await self.ask.chain(self.server) as chain:
            replies = await self.ask.whole(chain)
        for reply in replies:
            self.server.metrics.served(reply)
        completion = ChatCompletion(
            id=self.id, created=self.created, model=self.ask.model, usage=Usage.of(replies),
            choices=[Choice.of(reply, place) for place, reply in enumerate(replies)],
        )  # fmt: skip
        yield Head("application/json", headers(*replies))
        yield completion.model_dump_json().encode()

    async def streamed(self, *, usage: bool) -> AsyncGenerator[Head | bytes]:
        """As it comes; nothing is sent before its first words, so that what goes wrong until then has its status."""
        begun: set[int] = set()
        replies: list[Reply[str]] = []
        async with await self.ask.chain(self.server) as chain, aclosing(self.ask.pieces(chain)) as pieces:
            async for place, piece in pieces:
                if not begun:
                    yield Head("text/event-stream", {"x-accel-buffering": "no"})
                if place not in begun:
                    begun.add(place)
                    yield self._chunk(place, {"role": "assistant", "content": ""})
                if isinstance(piece, str):
                    if piece:
                        yield self._chunk(place, {"content": piece})
                else:
                    self.server.metrics.served(piece)
                    replies.append(piece)
                    bill = Usage.of(replies).model_dump()["agentflow"] if len(replies) == self.ask.times else None
                    for chunk in self._ending(place, piece, bill):
                        yield chunk
        if usage:
            yield self._event({"choices": [], "usage": Usage.of(replies).model_dump()})
        yield b"data: [DONE]\n\n"

    def _ending(self, place: int, reply: Reply[str], bill: dict[str, Any] | None) -> Iterator[bytes]:
        calls, tokens = tool_calls_of(reply), logprobs_of(reply)
        if tokens:
            yield self._chunk(place, {}, logprobs=tokens.model_dump())
        if calls:
            yield self._chunk(
                place, {"tool_calls": [{"index": i, **call.model_dump()} for i, call in enumerate(calls)]}
            )
        more = {} if bill is None else {"agentflow": bill}
        yield self._event({"choices": [{"index": place, "delta": {}, "finish_reason": finish_of(reply)}], **more})

    def _chunk(self, place: int, delta: dict[str, Any], **more: Any) -> bytes:
        return self._event({"choices": [{"index": place, "delta": delta, "finish_reason": None, **more}]})

    def _event(self, members: dict[str, Any]) -> bytes:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.ask.model}
        return b"data: " + json.dumps({**head, **members}, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _apology(problem: Problem) -> bytes:
    """What a stream that broke off says last; OpenAI's clients raise it."""
    return b"data: " + json.dumps(problem.body()).encode() + b"\n\n"
