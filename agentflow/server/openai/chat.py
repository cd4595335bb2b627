"""``POST /v1/chat/completions``: whole or streamed, tools included. Imports asking, messages, bill, answering."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field
from starlette.responses import Response

from agentflow.cascade.reply import Reply
from agentflow.errors import UsageError
from agentflow.messages import Request, TokenUsage
from agentflow.server.access import AdmittingRoute, Submitter
from agentflow.server.answering import Head, WorkedResponse
from agentflow.server.openai.asking import Ask
from agentflow.server.openai.bill import Bill, headers
from agentflow.server.openai.messages import (
    DEFAULT_TEMPERATURE,
    ChatMessage,
    Extension,
    Neutral,
    Part,
    SchemaPart,
    ToolCallPart,
    ToolPart,
    message_of,
    schema_of,
    tool_of,
)
from agentflow.server.problems import Problem
from agentflow.server.state import Server, TheServer

router = APIRouter(prefix="/v1", tags=["openai"], route_class=AdmittingRoute)
_EXAMPLE = {
    "model": "default",
    "messages": [{"role": "user", "content": "Which of these tickets is urgent? ..."}],
    "agentflow": {"budget": {"usd": "0.01", "joules": 500}},
}


class FormatPart(Part):
    """How the reply is written."""

    type: str = "text"
    json_schema: SchemaPart | None = None


class StreamOptions(Part):
    """What a stream tells besides text."""

    include_usage: bool = False


class ChatRequest(Neutral):
    """What OpenAI's clients send to chat completions."""

    model: Annotated[str, Field(min_length=1, max_length=128, description="a cascade, or one model")]
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(default=None, gt=0, le=10_000_000)
    max_tokens: int | None = Field(default=None, gt=0, le=10_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    response_format: FormatPart | None = None
    tools: list[ToolPart] | None = Field(default=None, max_length=128)
    tool_choice: Literal["auto", "none"] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    agentflow: Extension = Extension()

    def request(self) -> Request:
        """The same as a chain reads it.

        Raises:
            UsageError: it asks for what cannot be done.
        """
        tools = () if self.tool_choice == "none" else tuple(tool_of(tool.function) for tool in self.tools or ())
        wanted = self.response_format or FormatPart()
        return Request(
            messages=tuple(message_of(message) for message in self.messages),
            max_output_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
            seed=self.seed,
            stop=_stops(self.stop),
            schema=schema_of(wanted.type, wanted.json_schema),
            tools=tools,
        )


class ReplyMessage(BaseModel):
    """What the model wrote."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[ToolCallPart] | None = None


class Choice(BaseModel):
    """The reply; there is one."""

    index: int = 0
    message: ReplyMessage
    finish_reason: str
    logprobs: None = None


class Usage(BaseModel):
    """Tokens of all attempts together, and the whole bill."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]
    agentflow: Bill


class ChatCompletion(BaseModel):
    """A reply, as OpenAI's clients read it; its bill is ``usage.agentflow``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


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
    ask = Ask(caller, "chat", body.model, body.request(), body.agentflow)
    answer = _Answer(server, ask, f"chatcmpl-{secrets.token_hex(12)}", int(time.time()))
    if not body.stream:
        return WorkedResponse(answer.whole, refused=server.refused)
    usage = body.stream_options is not None and body.stream_options.include_usage
    return WorkedResponse(lambda: answer.streamed(usage=usage), _apology, server.refused)


@dataclass(frozen=True, slots=True)
class _Answer:
    """One reply on its way to a client."""

    server: Server
    ask: Ask
    id: str
    created: int

    async def whole(self) -> AsyncGenerator[Head | bytes]:
        """In one piece, its bill in the headers too."""
        async with await self.ask.chain(self.server) as chain:
            reply = await self.ask.whole(chain)
        self.server.metrics.served(reply)
        message = ReplyMessage(content=reply.text or None, tool_calls=_tool_calls(reply))
        completion = ChatCompletion(
            id=self.id, created=self.created, model=self.ask.model, usage=_usage(reply),
            choices=[Choice(message=message, finish_reason=_finish(reply))],
        )  # fmt: skip
        yield Head("application/json", headers(reply))
        yield completion.model_dump_json().encode()

    async def streamed(self, *, usage: bool) -> AsyncGenerator[Head | bytes]:
        """As it comes; nothing is sent before its first words, so that what goes wrong until then has its status."""
        async with await self.ask.chain(self.server) as chain:
            begun = False
            async for piece in self.ask.pieces(chain):
                if not begun:
                    begun = True
                    yield Head("text/event-stream", {"x-accel-buffering": "no"})
                    yield self._chunk({"role": "assistant", "content": ""})
                if isinstance(piece, str):
                    if piece:
                        yield self._chunk({"content": piece})
                else:
                    self.server.metrics.served(piece)
                    for chunk in self._ending(piece, usage=usage):
                        yield chunk

    def _ending(self, reply: Reply[str], *, usage: bool) -> Iterator[bytes]:
        calls = _tool_calls(reply)
        if calls:
            yield self._chunk({"tool_calls": [{"index": i, **call.model_dump()} for i, call in enumerate(calls)]})
        bill = _usage(reply).model_dump()
        yield self._chunk({}, finish=_finish(reply), agentflow=bill["agentflow"])
        if usage:
            yield self._event({"choices": [], "usage": bill})
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        return self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})

    def _event(self, members: dict[str, Any]) -> bytes:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.ask.model}
        return b"data: " + json.dumps({**head, **members}, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _apology(problem: Problem) -> bytes:
    """What a stream that broke off says last; OpenAI's clients raise it."""
    return b"data: " + json.dumps(problem.body()).encode() + b"\n\n"


def _usage(reply: Reply[str]) -> Usage:
    used: TokenUsage = reply.spend.usage
    return Usage(
        prompt_tokens=used.input, completion_tokens=used.output, total_tokens=used.total,
        prompt_tokens_details={"cached_tokens": used.cached_input},
        completion_tokens_details={"reasoning_tokens": used.reasoning}, agentflow=Bill.of(reply),
    )  # fmt: skip


def _tool_calls(reply: Reply[str]) -> list[ToolCallPart] | None:
    found = [
        ToolCallPart.model_validate({"id": c.id, "function": {"name": c.name, "arguments": c.arguments}})
        for c in reply.tool_calls
    ]
    return found or None


def _finish(reply: Reply[str]) -> str:
    if reply.tool_calls:
        return "tool_calls"
    return "stop" if reply.completion is None else reply.completion.finish_reason


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > 4 or not all(0 < len(one) <= 256 for one in stops):
        raise UsageError("'stop' is one to four words of 1 to 256 characters each.")
    return stops
