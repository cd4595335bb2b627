"""``POST /v1/responses``: the newer dialect of OpenAI's clients, whole or streamed. Imports asking, messages, bill.

Nothing is stored between requests: a conversation is sent whole, as ``input``.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field, JsonValue
from starlette.responses import Response

from agentflow.cascade.reply import Reply
from agentflow.errors import UsageError
from agentflow.messages import Message, Request, ToolCall
from agentflow.server.access import AdmittingRoute, Submitter
from agentflow.server.answering import Head, WorkedResponse
from agentflow.server.openai.asking import Ask
from agentflow.server.openai.bill import Bill, headers
from agentflow.server.openai.messages import (
    DEFAULT_TEMPERATURE,
    Content,
    Extension,
    FunctionSpec,
    Neutral,
    Part,
    SchemaPart,
    schema_of,
    text_of,
    tool_of,
)
from agentflow.server.problems import Problem
from agentflow.server.state import Server, TheServer

router = APIRouter(prefix="/v1", tags=["openai"], route_class=AdmittingRoute)
_EXAMPLE = {"model": "default", "input": "Which of these tickets is urgent? ...", "max_output_tokens": 200}


class InputItem(Part):
    """One turn: a message, a call that the model asked for, or what such a call came to."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: Content = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: Content = None


class FormatItem(SchemaPart):
    """How the reply is written."""

    type: str = "text"


class TextItem(Part):
    """What is wanted of the reply's text."""

    format: FormatItem = FormatItem()


class ToolItem(FunctionSpec):
    """A function that a model may ask for."""

    type: Literal["function"] = "function"


class ResponseRequest(Neutral):
    """What OpenAI's clients send to responses."""

    model: Annotated[str, Field(min_length=1, max_length=128, description="a cascade, or one model")]
    input: str | list[InputItem] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, gt=0, le=10_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    text: TextItem = TextItem()
    tools: list[ToolItem] | None = Field(default=None, max_length=128)
    tool_choice: Literal["auto", "none"] | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    stream: bool | None = False
    background: Literal[False] | None = Field(default=None, description="long work is a research job: /v1/research")
    previous_response_id: None = Field(default=None, description="nothing is stored: send the whole conversation")
    agentflow: Extension = Extension()

    def request(self) -> Request:
        """The same as a chain reads it.

        Raises:
            UsageError: it asks for what cannot be done.
        """
        items = [InputItem(content=self.input)] if isinstance(self.input, str) else self.input
        messages = [] if self.instructions is None else [Message("system", self.instructions)]
        messages += [_message(item) for item in items]
        wanted = self.text.format
        return Request(
            messages=_joined(messages),
            max_output_tokens=self.max_output_tokens,
            temperature=DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
            schema=schema_of(wanted.type, wanted),
            tools=() if self.tool_choice == "none" else tuple(tool_of(tool) for tool in self.tools or ()),
        )


class ResponseUsage(BaseModel):
    """Tokens of all attempts together, and the whole bill."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int
    agentflow: Bill


class ResponseBody(BaseModel):
    """A reply, as OpenAI's clients read it; its bill is ``usage.agentflow``."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    model: str
    output: list[dict[str, JsonValue]]
    parallel_tool_calls: bool = True
    tool_choice: str
    tools: list[dict[str, JsonValue]]
    temperature: float
    instructions: str | None
    metadata: dict[str, str]
    error: None = None
    incomplete_details: dict[str, str] | None = None
    usage: ResponseUsage | None = None


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
    ask = Ask(caller, "response", body.model, body.request(), body.agentflow)
    answer = _Answer(server, ask, body)
    if body.stream:
        return WorkedResponse(answer.streamed, answer.apology, server.refused)
    return WorkedResponse(answer.whole, refused=server.refused)


@dataclass(slots=True)
class _Answer:
    """One reply on its way to a client."""

    server: Server
    ask: Ask
    body: ResponseRequest
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(16)}")
    item: str = field(default_factory=lambda: f"msg_{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))
    number: int = 0

    async def whole(self) -> AsyncGenerator[Head | bytes]:
        """In one piece, its bill in the headers too."""
        async with await self.ask.chain(self.server) as chain:
            reply = await self.ask.whole(chain)
        self.server.metrics.served(reply)
        yield Head("application/json", headers(reply))
        yield self._ended(reply).model_dump_json().encode()

    async def streamed(self) -> AsyncGenerator[Head | bytes]:
        """As it comes: the events that OpenAI's clients expect, each with its number."""
        async with await self.ask.chain(self.server) as chain:
            begun, text = False, ""
            async for piece in self.ask.pieces(chain):
                if not begun:
                    begun = True
                    yield Head("text/event-stream", {"x-accel-buffering": "no"})
                    for event in self._beginning():
                        yield event
                if isinstance(piece, str):
                    text += piece
                    if piece:
                        yield self._event("response.output_text.delta", delta=piece, logprobs=[], **self._place)
                else:
                    self.server.metrics.served(piece)
                    for event in self._ending(piece, text):
                        yield event

    def apology(self, problem: Problem) -> bytes:
        """What a stream that broke off says last."""
        return self._event("error", code=problem.kind.name.replace("-", "_"), message=problem.detail, param=None)

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self.item, "output_index": 0, "content_index": 0}

    def _beginning(self) -> Iterator[bytes]:
        open = self._response("in_progress", []).model_dump(mode="json")
        yield self._event("response.created", response=open)
        yield self._event("response.in_progress", response=open)
        yield self._event("response.output_item.added", output_index=0, item=self._message("", "in_progress"))
        yield self._event("response.content_part.added", part=_text_part(""), **self._place)

    def _ending(self, reply: Reply[str], text: str) -> Iterator[bytes]:
        yield self._event("response.output_text.done", text=text, logprobs=[], **self._place)
        yield self._event("response.content_part.done", part=_text_part(text), **self._place)
        yield self._event("response.output_item.done", output_index=0, item=self._message(text, "completed"))
        for place, call in enumerate(reply.tool_calls, start=1):
            item = _call_item(call)
            where = {"item_id": item["id"], "output_index": place}
            yield self._event("response.output_item.added", output_index=place, item={**item, "arguments": ""})
            yield self._event("response.function_call_arguments.delta", delta=call.arguments, **where)
            yield self._event(
                "response.function_call_arguments.done", arguments=call.arguments, name=call.name, **where
            )
            yield self._event("response.output_item.done", output_index=place, item=item)
        ended = self._ended(reply)
        yield self._event(f"response.{ended.status}", response=ended.model_dump(mode="json"))

    def _ended(self, reply: Reply[str]) -> ResponseBody:
        output = [self._message(reply.text, "completed")] if reply.text or not reply.tool_calls else []
        output += [_call_item(call) for call in reply.tool_calls]
        cut = reply.completion is not None and reply.completion.finish_reason == "length"
        response = self._response("incomplete" if cut else "completed", output)
        details = {"reason": "max_output_tokens"} if cut else None
        return response.model_copy(update={"usage": _usage(reply), "incomplete_details": details})

    def _response(
        self, status: Literal["in_progress", "completed", "incomplete"], output: list[dict[str, Any]]
    ) -> ResponseBody:
        request = self.ask.request
        return ResponseBody(
            id=self.id, created_at=self.created, status=status, model=self.body.model, output=output,
            tool_choice=self.body.tool_choice or "auto", temperature=request.temperature,
            tools=[{**tool.model_dump(mode="json"), "strict": False} for tool in self.body.tools or ()],
            instructions=self.body.instructions, metadata=self.body.metadata or {},
        )  # fmt: skip

    def _message(self, text: str, status: str) -> dict[str, Any]:
        content = [_text_part(text)] if status == "completed" else []
        return {"id": self.item, "type": "message", "role": "assistant", "status": status, "content": content}

    def _event(self, kind: str, **members: Any) -> bytes:
        data = {"type": kind, "sequence_number": self.number, **members}
        self.number += 1
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def _usage(reply: Reply[str]) -> ResponseUsage:
    used = reply.spend.usage
    return ResponseUsage(
        input_tokens=used.input, input_tokens_details={"cached_tokens": used.cached_input},
        output_tokens=used.output, output_tokens_details={"reasoning_tokens": used.reasoning},
        total_tokens=used.total, agentflow=Bill.of(reply),
    )  # fmt: skip


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call_item(call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"fc_{call.id}", "type": "function_call", "call_id": call.id, "name": call.name,
        "arguments": call.arguments, "status": "completed",
    }  # fmt: skip


def _message(item: InputItem) -> Message:
    if item.type == "function_call":
        if not item.call_id or not item.name:
            raise UsageError("A function_call in 'input' needs call_id and name.")
        return Message("assistant", "", (ToolCall(item.call_id, item.name, item.arguments),))
    if item.type == "function_call_output":
        return Message("tool", text_of(item.output), tool_call_id=item.call_id)
    return Message("system" if item.role == "developer" else item.role, text_of(item.content))


def _joined(messages: list[Message]) -> tuple[Message, ...]:
    """Calls that stand side by side are one turn of the model's, as chat models know it."""
    joined: list[Message] = []
    for message in messages:
        before = joined[-1] if joined else None
        if message.tool_calls and before is not None and before.role == "assistant":
            joined[-1] = Message("assistant", before.content, (*before.tool_calls, *message.tool_calls))
        else:
            joined.append(message)
    return tuple(joined)
