"""Bodies of chat completions, both ways. Imports messages, parameters, bill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from agentflow.cascade.reply import Reply
from agentflow.errors import UsageError
from agentflow.messages import Request, Token
from agentflow.server.openai.bill import Bill, spend_of
from agentflow.server.openai.messages import ChatMessage, ToolCallPart, addresses_of
from agentflow.server.openai.parameters import (
    MOST_ALTERNATIVES,
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

MOST_REPLIES = 128
_Penalty = Annotated[float | None, Field(ge=-2, le=2)]


def _words_only(value: object) -> object:
    if value not in (None, ["text"], []):
        raise ValueError("is not offered here but as ['text']: leave it out")
    return None


class ToolPart(Part):
    """A tool that a model may ask for."""

    type: Literal["function"] = "function"
    function: FunctionSpec


class NamedFunction(Part):
    """The name of a function."""

    name: Name


class NamedTool(Part):
    """The tool that a model must ask for."""

    type: Literal["function"]
    function: NamedFunction


class FormatPart(Part):
    """How the reply is written."""

    type: str = "text"
    json_schema: SchemaPart | None = None


class StreamOptions(Part):
    """What a stream tells besides text."""

    include_usage: bool = False


class ChatRequest(Parameters):
    """What OpenAI's clients send to chat completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(default=None, gt=0, le=10_000_000)
    max_tokens: int | None = Field(default=None, gt=0, le=10_000_000)
    n: int | None = Field(default=None, ge=1, le=MOST_REPLIES, description="replies, each a call of its own")
    frequency_penalty: _Penalty = None
    presence_penalty: _Penalty = None
    reasoning_effort: Effort | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    response_format: FormatPart | None = None
    tools: list[ToolPart] | None = Field(default=None, max_length=128)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    stream_options: StreamOptions | None = None
    modalities: Annotated[None, BeforeValidator(_words_only)] = None
    verbosity: Verbosity = None
    store: Refused = None
    audio: Refused = None
    logit_bias: Refused = None
    functions: Refused = None
    function_call: Refused = None
    web_search_options: Refused = None

    @property
    def addresses(self) -> list[str]:
        """Where its pictures are."""
        return list(addresses_of([message.content for message in self.messages]))

    def request(self, pictures: Pictures) -> Request:
        """The same as a chain reads it.

        Args:
            pictures: those that were fetched.

        Raises:
            UsageError: it asks for what cannot be done.
        """
        if self.top_logprobs is not None and not self.logprobs:
            raise UsageError("top_logprobs: needs logprobs. Set logprobs to true, or leave top_logprobs out.")
        wanted, choice = self.response_format or FormatPart(), self.tool_choice
        specs = [] if choice == "none" else [tool_of(tool.function) for tool in self.tools or ()]
        tools, tool_choice = choice_of(
            specs, required=choice == "required", parallel=self.parallel_tool_calls,
            name=choice.function.name if isinstance(choice, NamedTool) else None,
        )  # fmt: skip
        return Request(
            messages=tuple(message.message(pictures) for message in self.messages),
            max_output_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.warmth,
            seed=self.seed,
            stop=_stops(self.stop),
            schema=schema_of(wanted.type, wanted.json_schema),
            tools=tools,
            tool_choice=tool_choice,
            sampling=sampling_of(
                top_p=self.top_p, frequency=self.frequency_penalty, presence=self.presence_penalty,
                effort=self.reasoning_effort,
            ),
            logprobs=bool(self.logprobs),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )  # fmt: skip


class ReplyMessage(BaseModel):
    """What the model wrote."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCallPart] | None = None


class Alternative(BaseModel):
    """A token that could have stood there, and the natural log of its probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenBody(Alternative):
    """A token of the reply, and the likeliest in its place."""

    top_logprobs: list[Alternative]


class Logprobs(BaseModel):
    """The tokens of a reply."""

    content: list[TokenBody]
    refusal: None = None


class Choice(BaseModel):
    """One reply."""

    index: int = 0
    message: ReplyMessage
    finish_reason: str
    logprobs: Logprobs | None = None

    @classmethod
    def of(cls, reply: Reply[str], index: int) -> Choice:
        """A reply as clients read it."""
        message = ReplyMessage(content=reply.text or None, tool_calls=tool_calls_of(reply))
        return cls(index=index, message=message, finish_reason=finish_of(reply), logprobs=logprobs_of(reply))


class Usage(BaseModel):
    """Tokens of all attempts together, and the whole bill."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]
    agentflow: Bill

    @classmethod
    def of(cls, replies: Sequence[Reply[str]]) -> Usage:
        """What these replies used."""
        used = spend_of(replies).usage
        return cls(
            prompt_tokens=used.input, completion_tokens=used.output, total_tokens=used.total,
            prompt_tokens_details={"cached_tokens": used.cached_input},
            completion_tokens_details={"reasoning_tokens": used.reasoning}, agentflow=Bill.of(*replies),
        )  # fmt: skip


class ChatCompletion(BaseModel):
    """Replies, as OpenAI's clients read them; their bill is ``usage.agentflow``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


def tool_calls_of(reply: Reply[str]) -> list[ToolCallPart] | None:
    """The tools that a reply asks for."""
    found = [
        ToolCallPart.model_validate({"id": c.id, "function": {"name": c.name, "arguments": c.arguments}})
        for c in reply.tool_calls
    ]
    return found or None


def finish_of(reply: Reply[str]) -> str:
    """Why a reply ended."""
    if reply.tool_calls:
        return "tool_calls"
    return "stop" if reply.completion is None else reply.completion.finish_reason


def logprobs_of(reply: Reply[str]) -> Logprobs | None:
    """The tokens of a reply, where they were asked for and given."""
    if reply.completion is None or reply.completion.tokens is None:
        return None
    return Logprobs(content=[token_of(token) for token in reply.completion.tokens])


def token_of(token: Token) -> TokenBody:
    """A token as clients read it."""
    others = [Alternative(token=text, logprob=logprob, bytes=_bytes(text)) for text, logprob in token.top]
    return TokenBody(
        token=token.text, logprob=token.logprob, bytes=_bytes(token.text), top_logprobs=others[:MOST_ALTERNATIVES]
    )


def _bytes(text: str) -> list[int] | None:
    """The bytes of a token; None for a part of a character, whose bytes its text does not tell."""
    return None if "\ufffd" in text else list(text.encode("utf-8", "replace"))


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > 4 or not all(0 < len(one) <= 256 for one in stops):
        raise UsageError("'stop' is one to four words of 1 to 256 characters each.")
    return stops
