"""Bodies of responses, both ways. Imports messages, parameters, bill.

No web framework: workers read and write them too.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, JsonValue, field_validator

from agentflow.cascade.reply import Reply
from agentflow.errors import UsageError
from agentflow.messages import Message, Request, ToolCall
from agentflow.server.openai.bill import Bill
from agentflow.server.openai.chat_bodies import token_of
from agentflow.server.openai.messages import Content, addresses_of, images_of, text_of
from agentflow.server.openai.parameters import (
    Effort,
    FunctionSpec,
    Name,
    Parameters,
    Part,
    Refused,
    SchemaPart,
    Verbosity,
    choice_of,
    sampling_of,
    schema_of,
    tool_of,
)
from agentflow.server.openai.pictures import Pictures

_LOGPROBS: Final = "message.output_text.logprobs"
ResponseId = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


def _whole_only(value: object) -> object:
    if value not in (None, "disabled"):
        raise ValueError("is not offered here but as 'disabled': send what fits the model")
    return None


class InputItem(Part):
    """One turn: a message, a call that the model asked for, or what such a call came to."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    id: str | None = Field(default=None, max_length=512)
    role: Literal["system", "developer", "user", "assistant"] = "user"
    content: Content = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: Content = None

    def message(self, pictures: Pictures) -> Message:
        """The turn as a chain reads it.

        Raises:
            UsageError: something of it is missing, or cannot be read.
        """
        if self.type == "function_call":
            if not self.call_id or not self.name:
                raise UsageError("A function_call in 'input' needs call_id and name.")
            return Message("assistant", "", (ToolCall(self.call_id, self.name, self.arguments),))
        if self.type == "function_call_output":
            images = images_of(self.output, pictures)
            return Message("tool", text_of(self.output), tool_call_id=self.call_id, images=images)
        role = "system" if self.role == "developer" else self.role
        return Message(role, text_of(self.content), images=images_of(self.content, pictures))

    def kept(self, pictures: Pictures) -> InputItem:
        """The same to be stored: with a name, and its pictures inside."""
        short = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}[self.type]
        return self.model_copy(
            update={
                "id": self.id or f"{short}_{secrets.token_hex(16)}",
                "content": _held(self.content, pictures),
                "output": _held(self.output, pictures),
            }
        )

    def shown(self) -> dict[str, JsonValue]:
        """The turn as clients read it back."""
        members = {
            "message": {"id", "type", "role", "content"},
            "function_call": {"id", "type", "call_id", "name", "arguments"},
            "function_call_output": {"id", "type", "call_id", "output"},
        }[self.type]
        data: dict[str, Any] = self.model_dump(mode="json", include=members, exclude_none=True)
        for place in ("content", "output"):
            if isinstance(data.get(place), list):
                data[place] = [_flat(part) for part in data[place]]
        if self.type == "message" and isinstance(self.content, str):
            kind = "output_text" if self.role == "assistant" else "input_text"
            data["content"] = [{"type": kind, "text": self.content}]
        return {**data, "status": "completed"}


class FormatItem(SchemaPart):
    """How the reply is written."""

    type: str = "text"

    def shown(self) -> dict[str, JsonValue]:
        """The format as clients read it back."""
        return {"type": self.type, **self.model_dump(mode="json", by_alias=True, exclude_unset=True)}


class TextItem(Part):
    """What is wanted of the reply's text."""

    format: FormatItem = FormatItem()
    verbosity: Verbosity = None


class ToolItem(FunctionSpec):
    """A function that a model may ask for."""

    type: Literal["function"] = "function"


class NamedItem(Part):
    """The function that a model must ask for."""

    type: Literal["function"]
    name: Name


class ReasoningItem(Part):
    """How long a model thinks."""

    effort: Effort | None = None
    summary: Refused = None
    generate_summary: Refused = None


class ResponseRequest(Parameters):
    """What OpenAI's clients send to responses."""

    input: str | list[InputItem] = Field(min_length=1)
    instructions: str | None = None
    previous_response_id: ResponseId | None = Field(default=None, description="the response that this one goes on from")
    store: bool | None = Field(
        default=None, description="keep the response, to be read and gone on from; true if left out"
    )
    background: bool | None = Field(
        default=None, description="a durable job, done by a worker: read it later by its id"
    )
    max_output_tokens: int | None = Field(default=None, gt=0, le=10_000_000)
    text: TextItem = TextItem()
    reasoning: ReasoningItem | None = None
    include: list[str] | None = Field(default=None, max_length=16)
    tools: list[ToolItem] | None = Field(default=None, max_length=128)
    tool_choice: Literal["auto", "none", "required"] | NamedItem | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    truncation: Annotated[None, BeforeValidator(_whole_only)] = None
    conversation: Refused = None
    prompt: Refused = None
    context_management: Refused = None

    @field_validator("metadata")
    @classmethod
    def _short(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for name, said in (value or {}).items():
            if len(name) > 64 or len(said) > 512:
                raise ValueError("a name has at most 64 characters, a value at most 512")
        return value

    @property
    def stored(self) -> bool:
        """Whether it is kept."""
        return self.store is not False

    @property
    def items(self) -> list[InputItem]:
        """The turns that it brings."""
        return [InputItem(content=self.input)] if isinstance(self.input, str) else self.input

    @property
    def addresses(self) -> list[str]:
        """Where its pictures are."""
        return list(addresses_of([content for item in self.items for content in (item.content, item.output)]))

    def kept(self, pictures: Pictures) -> ResponseRequest:
        """The same to be stored: turns by their names, and with their pictures inside."""
        return self.model_copy(update={"input": [item.kept(pictures) for item in self.items]})

    def request(self, earlier: Sequence[InputItem], pictures: Pictures) -> Request:
        """The same as a chain reads it.

        Args:
            earlier: the turns of the conversation that it goes on with.
            pictures: those that were fetched.

        Raises:
            UsageError: it asks for what cannot be done.
        """
        told = (self.include is not None and _LOGPROBS in self.include) or bool(self.top_logprobs)
        messages = [] if self.instructions is None else [Message("system", self.instructions)]
        messages += [item.message(pictures) for item in (*earlier, *self.items)]
        wanted, choice = self.text.format, self.tool_choice
        specs = [] if choice == "none" else [tool_of(tool) for tool in self.tools or ()]
        tools, tool_choice = choice_of(
            specs, required=choice == "required", parallel=self.parallel_tool_calls,
            name=choice.name if isinstance(choice, NamedItem) else None,
        )  # fmt: skip
        effort = None if self.reasoning is None else self.reasoning.effort
        return Request(
            messages=_joined(messages),
            max_output_tokens=self.max_output_tokens,
            temperature=self.warmth,
            schema=schema_of(wanted.type, wanted),
            tools=tools,
            tool_choice=tool_choice,
            sampling=sampling_of(top_p=self.top_p, effort=effort),
            logprobs=told,
            top_logprobs=(self.top_logprobs or 0) if told else None,
        )


class ResponseUsage(BaseModel):
    """Tokens of all attempts together, and the whole bill."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int
    agentflow: Bill


class ResponseFault(BaseModel):
    """Why a response failed."""

    code: str
    message: str


class ResponseBody(BaseModel):
    """A reply, as OpenAI's clients read it; its bill is ``usage.agentflow``."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: bool
    model: str
    output: list[dict[str, JsonValue]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    tool_choice: JsonValue
    tools: list[dict[str, JsonValue]]
    temperature: float
    top_p: float
    max_output_tokens: int | None
    instructions: str | None
    metadata: dict[str, str]
    store: bool
    text: dict[str, JsonValue]
    error: ResponseFault | None = None
    incomplete_details: dict[str, str] | None = None
    usage: ResponseUsage | None = None

    @classmethod
    def of(cls, id: str, created: int, asked: ResponseRequest, status: Status) -> ResponseBody:
        """A response that has no output yet."""
        return cls(
            id=id, created_at=created, status=status, background=bool(asked.background), model=asked.model, output=[],
            parallel_tool_calls=asked.parallel_tool_calls is not False,
            previous_response_id=asked.previous_response_id,
            tool_choice=asked.tool_choice.model_dump(mode="json")
            if isinstance(asked.tool_choice, NamedItem)
            else asked.tool_choice or "auto",
            tools=[{**tool.model_dump(mode="json"), "strict": False} for tool in asked.tools or ()],
            temperature=asked.warmth, top_p=1.0 if asked.top_p is None else asked.top_p,
            max_output_tokens=asked.max_output_tokens, instructions=asked.instructions,
            metadata=asked.metadata or {}, store=asked.stored,
            text={"format": asked.text.format.shown()},
        )  # fmt: skip

    def ended(self, reply: Reply[str], item: str) -> ResponseBody:
        """The same with what the model wrote.

        Args:
            reply: the reply.
            item: the name of the message in it.
        """
        output = [message_item(item, reply)] if reply.text or not reply.tool_calls else []
        output += [_call_item(call) for call in reply.tool_calls]
        cut = reply.completion is not None and reply.completion.finish_reason == "length"
        changed = {
            "status": "incomplete" if cut else "completed", "output": output, "usage": _usage(reply),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        }  # fmt: skip
        return self.model_copy(update=changed)

    def turns(self) -> list[InputItem]:
        """Its output, as turns of a conversation."""
        return [InputItem.model_validate(item) for item in self.output]


def new_item_id() -> str:
    """A name for a message."""
    return f"msg_{secrets.token_hex(16)}"


def text_part(text: str, reply: Reply[str] | None = None) -> dict[str, Any]:
    """The text of a message, with its tokens where they were asked for."""
    completion = None if reply is None else reply.completion
    tokens = () if completion is None or completion.tokens is None else completion.tokens
    logprobs = [token_of(token).model_dump(mode="json") for token in tokens]
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def message_item(id: str, reply: Reply[str]) -> dict[str, Any]:
    """The message of a reply."""
    return {
        "id": id, "type": "message", "role": "assistant", "status": "completed",
        "content": [text_part(reply.text, reply)],
    }  # fmt: skip


def _call_item(call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"fc_{call.id}", "type": "function_call", "call_id": call.id, "name": call.name,
        "arguments": call.arguments, "status": "completed",
    }  # fmt: skip


def _usage(reply: Reply[str]) -> ResponseUsage:
    used = reply.spend.usage
    return ResponseUsage(
        input_tokens=used.input, input_tokens_details={"cached_tokens": used.cached_input},
        output_tokens=used.output, output_tokens_details={"reasoning_tokens": used.reasoning},
        total_tokens=used.total, agentflow=Bill.of(reply),
    )  # fmt: skip


def _held(content: Content, pictures: Pictures) -> Content:
    return [part.held(pictures) for part in content] if isinstance(content, list) else content


def _flat(part: dict[str, Any]) -> dict[str, Any]:
    """A piece of a message in this dialect's own shape, whichever it came in."""
    image = part.pop("image_url", None)
    if image is None:
        return {"type": part["type"], "text": part["text"]}
    address = image if isinstance(image, str) else image["url"]
    detail = part.get("detail") or (None if isinstance(image, str) else image.get("detail"))
    return {"type": "input_image", "image_url": address, "detail": detail or "auto"}


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
