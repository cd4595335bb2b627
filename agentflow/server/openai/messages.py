"""What OpenAI's clients send, in both dialects, and what it is to a chain. Imports messages, cascade.checks.

What would change a reply and cannot be honoured is refused; what changes nothing is passed over.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from agentflow.budget.budget import Budget
from agentflow.cascade.checks import Candidate
from agentflow.cascade.reply import Verdict
from agentflow.errors import UsageError
from agentflow.jobs.job import JobBudget
from agentflow.messages import Message, OutputSchema, Role, ToolCall, ToolSpec

# Clients that say nothing expect what OpenAI does then.
DEFAULT_TEMPERATURE: Final = 1.0
_TEXT: Final = ("text", "input_text", "output_text")
_Name = Annotated[str, Field(min_length=1, max_length=128)]


class Part(BaseModel):
    """What all of these have in common: unknown members are passed over, as OpenAI's own server does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FunctionCall(Part):
    """A call that a model asked for."""

    name: _Name
    arguments: str = ""


class ToolCallPart(Part):
    """A tool that a model asked for, as its message is sent back."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: FunctionCall


class ContentPart(Part):
    """A piece of a message."""

    type: str
    text: str = ""


Content = str | list[ContentPart] | None


class ChatMessage(Part):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    tool_calls: list[ToolCallPart] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = None


class FunctionSpec(Part):
    """A function that a model may ask for."""

    name: _Name
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None


class ToolPart(Part):
    """A tool that a model may ask for."""

    type: Literal["function"] = "function"
    function: FunctionSpec


class SchemaPart(Part):
    """A JSON schema that the reply must follow."""

    name: str = Field(default="reply", max_length=64)
    # "schema" is a name that pydantic has for itself.
    schema_: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue], alias="schema")


class Extension(BaseModel):
    """Ours: send it as ``extra_body={"agentflow": {...}}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: JobBudget = Field(default=JobBudget(), description="limits of this request")

    def limits(self, configured: Budget) -> Budget:
        """The configured limits, each with the request's own in its place."""
        return configured.with_limits(self.budget.limits())


class Neutral(Part):
    """Parameters that are accepted at the value that changes nothing, and refused at any other."""

    n: Literal[1] | None = None
    top_p: float | None = Field(default=None, description="1 or nothing")
    presence_penalty: float | None = Field(default=None, description="0 or nothing")
    frequency_penalty: float | None = Field(default=None, description="0 or nothing")
    logprobs: Literal[False] | None = None
    logit_bias: dict[str, float] | None = Field(default=None, description="empty or nothing")

    @field_validator("top_p")
    @classmethod
    def _is_one(cls, value: float | None) -> float | None:
        if value not in (None, 1.0):
            raise ValueError("is not offered: leave it out, and use temperature")
        return value

    @field_validator("presence_penalty", "frequency_penalty")
    @classmethod
    def _is_nought(cls, value: float | None) -> float | None:
        if value:
            raise ValueError("is not offered: leave it out")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _is_empty(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value:
            raise ValueError("is not offered: leave it out")
        return value


def text_of(content: Content) -> str:
    """The text of a message.

    Raises:
        UsageError: it holds something other than text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    strange = next((part.type for part in content if part.type not in _TEXT), None)
    if strange is not None:
        raise UsageError(f"A part of a message is of type '{strange[:40]}'; here only text is read. Send text.")
    return "".join(part.text for part in content)


def message_of(message: ChatMessage) -> Message:
    """A turn as a chain reads it.

    Raises:
        UsageError: it holds something other than text.
    """
    role: Role = "system" if message.role == "developer" else message.role
    calls = tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or ())
    return Message(role, text_of(message.content), calls, message.tool_call_id)


def tool_of(function: FunctionSpec) -> ToolSpec:
    """A tool as a chain reads it."""
    return ToolSpec(function.name, function.description or "", function.parameters or {"type": "object"})


def schema_of(type: str, schema: SchemaPart | None) -> OutputSchema | None:
    """The schema that a wanted format means: any object for ``json_object``, none for ``text``.

    Raises:
        UsageError: the format is none that is known, or its schema is missing.
    """
    if type == "text":
        return None
    if type == "json_object":
        return OutputSchema("reply", {"type": "object"})
    if type != "json_schema" or schema is None or not schema.schema_:
        raise UsageError(
            f"The format '{type[:40]}' is not known, or has no schema. Use text, json_object, json_schema."
        )
    return OutputSchema(schema.name, schema.schema_)


def is_json(candidate: Candidate) -> Verdict:
    """A check: the reply is a JSON object, or asks for tools. One that is not is mended, or climbs to the next rung."""
    if candidate.completion is not None and candidate.completion.tool_calls:
        return Verdict(valid=True)
    try:
        found: Any = json.loads(str(candidate.output))
    except ValueError as error:
        return Verdict(valid=False, reason=f"the reply is not JSON: {error}")
    return Verdict(isinstance(found, dict), reason="" if isinstance(found, dict) else "the reply is not a JSON object")
