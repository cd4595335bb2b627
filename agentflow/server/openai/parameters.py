"""How OpenAI's clients say how a reply is to be written: what both dialects share. Imports cascade.checks.

What would change a reply and cannot be honoured is refused by its name; what changes nothing is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from agentflow.budget.budget import Budget
from agentflow.cascade.checks import Candidate, Check
from agentflow.cascade.reply import Verdict
from agentflow.errors import UsageError
from agentflow.jobs.job import JobBudget
from agentflow.messages import OutputSchema, Request, Sampling, ToolChoice, ToolSpec

# Clients that say nothing expect what OpenAI does then.
DEFAULT_TEMPERATURE: Final = 1.0
MOST_ALTERNATIVES: Final = 20


def _refuse(value: object) -> None:
    if value:
        raise ValueError("is not offered here: leave it out")


def _plain(value: object) -> object:
    if value not in (None, "medium"):
        raise ValueError("is not offered here but as 'medium': leave it out")
    return value


Name = Annotated[str, Field(min_length=1, max_length=128)]
Refused = Annotated[None, BeforeValidator(_refuse)]
"""What is accepted only where it asks for nothing: null, false, empty."""
Effort = Annotated[str, Field(pattern=r"^[a-z]{1,16}$", description="how long a model thinks that can be told")]
Verbosity = Annotated[str | None, BeforeValidator(_plain)]
ModelName = Annotated[str, Field(min_length=1, max_length=128, description="a cascade, or one model")]


class Part(BaseModel):
    """What all of these have in common: unknown members are passed over, as OpenAI's own server does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FunctionSpec(Part):
    """A function that a model may ask for."""

    name: Name
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None


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


class Parameters(Part):
    """What both dialects may say of how a reply is written."""

    model: ModelName
    temperature: float | None = Field(default=None, ge=0, le=2, description="1 when left out, as at OpenAI")
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_ALTERNATIVES)
    parallel_tool_calls: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    moderation: Refused = None
    stream: bool | None = False
    agentflow: Extension = Extension()

    @property
    def warmth(self) -> float:
        """The temperature, where none is said too."""
        return DEFAULT_TEMPERATURE if self.temperature is None else self.temperature


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


def choice_of(
    tools: Sequence[ToolSpec], *, required: bool, name: str | None, parallel: bool | None
) -> tuple[tuple[ToolSpec, ...], ToolChoice]:
    """The tools of a request, and what must be done with them.

    Raises:
        UsageError: a tool is forced that is not there.
    """
    if name is not None and name not in [tool.name for tool in tools]:
        raise UsageError(f"tool_choice: there is no tool '{name}' among the tools. Name one of them.")
    if required and not tools:
        raise UsageError("tool_choice: a tool is required, and there is none. Send tools.")
    if not tools:
        return (), ToolChoice()
    return tuple(tools), ToolChoice(required, name, parallel)


def sampling_of(
    *,
    top_p: float | None,
    frequency: float | None = None,
    presence: float | None = None,
    effort: str | None = None,
) -> Sampling:
    """How tokens are chosen; a value that changes nothing is the same as none, so that no server need know it."""
    return Sampling(None if top_p == 1.0 else top_p, frequency or None, presence or None, effort)


def checks_of(request: Request) -> tuple[Check, ...]:
    """The judges of a reply: one that ought to be JSON is; one that must ask for a tool does."""
    if request.tool_choice.forced:
        return (calls_tool,)
    return () if request.schema is None else (is_json,)


def is_json(candidate: Candidate) -> Verdict:
    """A check: the reply is a JSON object, or asks for tools. One that is not is mended, or climbs to the next rung."""
    if candidate.completion is not None and candidate.completion.tool_calls:
        return Verdict(valid=True)
    try:
        found: Any = json.loads(str(candidate.output))
    except ValueError as error:
        return Verdict(valid=False, reason=f"the reply is not JSON: {error}")
    return Verdict(isinstance(found, dict), reason="" if isinstance(found, dict) else "the reply is not a JSON object")


def calls_tool(candidate: Candidate) -> Verdict:
    """A check: the reply asks for the tool that had to be asked for. One that does not climbs to the next rung."""
    choice = candidate.request.tool_choice
    calls = () if candidate.completion is None else candidate.completion.tool_calls
    if calls and (choice.name is None or all(call.name == choice.name for call in calls)):
        return Verdict(valid=True)
    wanted = "a tool" if choice.name is None else f"the tool '{choice.name}'"
    return Verdict(valid=False, reason=f"the reply does not call {wanted}")
