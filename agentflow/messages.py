"""What travels between a chain and a model: messages, requests, completions, token counts.

Plain frozen values without behaviour. A backend sees only what is in this file; it knows nothing of
budgets, cascades or spans. Imports nothing of agentflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error"]
UsageSource = Literal["provider", "server", "tokenizer", "estimate"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a model asks for. ``arguments`` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it. ``parameters`` is a JSON schema of the arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a message, as the bytes of its file: what is counted is what is sent.

    ``width`` and ``height`` are pixels; ``detail`` is how closely a model is asked to look, where it can be asked.
    """

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    detail: Literal["auto", "low", "high"] = "auto"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. Its images follow its text."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The JSON schema a reply must follow, sent to servers that can constrain their output."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What a model has to do with its tools.

    ``required``: it asks for one, whichever; ``name``: it asks for this one. ``parallel``: whether it may ask for
    several at once; None leaves that to its server.
    """

    required: bool = False
    name: str | None = None
    parallel: bool | None = None

    @property
    def forced(self) -> bool:
        """Whether a reply without a call of a tool is none."""
        return self.required or self.name is not None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of a reply are chosen, beside temperature and seed. None leaves it to the model's server.

    ``top_p`` (above 0, to 1): from the likeliest tokens that have this probability together. ``frequency_penalty`` and
    ``presence_penalty`` (-2 to 2): against what has been written already, by how often, or at all.
    ``reasoning_effort``: how long a model thinks that can be told (``low``, ``medium``, ``high`` ...).
    """

    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None

    def said(self) -> dict[str, float | str]:
        """What is not left to the server, by its name."""
        told = {
            "top_p": self.top_p,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "reasoning_effort": self.reasoning_effort,
        }
        return {name: value for name, value in told.items() if value is not None}


_ANY_CHOICE: Final = ToolChoice()
_ANY_SAMPLING: Final = Sampling()


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a cascade.

    ``priority`` and ``cache_salt`` change who waits for whom and whose prompt cache is used, on servers that know them
    (vLLM): lower goes first, and tenants of different salt share no cached prefix. Neither changes the reply.

    ``messages`` is what a model rung reads; ``inputs`` is the same question as typed data, which a code
    rung reads. ``max_output_tokens`` bounds the reply; None means the rung's default.
    ``timeout_s`` bounds the wall clock of the whole call, over all its attempts; a backend, of the one it is asked for.
    ``key`` is the attempt's name in the ledger: servers are told a digest of it as the request's id, so that their logs
    and the ledger can be laid side by side. ``top_logprobs``: with ``logprobs``, each token's text is told too, and as
    many of the likeliest in its place.
    """

    messages: tuple[Message, ...]
    inputs: Any = None
    max_output_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: OutputSchema | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = _ANY_CHOICE
    sampling: Sampling = _ANY_SAMPLING
    logprobs: bool = False
    top_logprobs: int | None = None
    timeout_s: float | None = None
    priority: int | None = None
    cache_salt: str | None = None
    key: str | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """Every image of its messages, in order."""
        return tuple([image for message in self.messages for image in message.images])

    def digest(self) -> str:
        """A name for this request's content: equal requests have equal digests, in any process."""
        return self.fingerprint()[:16]

    def fingerprint(self) -> str:
        """The digest in full, where requests of strangers must not be mistaken for each other: 64 hex digits."""
        parts: dict[str, Any] = {
            "messages": [
                [m.role, m.content, [[c.id, c.name, c.arguments] for c in m.tool_calls], m.tool_call_id]
                + [[i.media_type, i.detail, hashlib.sha256(i.data).hexdigest()] for i in m.images]
                for m in self.messages
            ],
            "max_output_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stop": self.stop,
            "schema": self.schema and [self.schema.name, dict(self.schema.schema)],
            "tools": [[t.name, t.description, dict(t.parameters)] for t in self.tools],
            "logprobs": self.logprobs,
        }
        # Only where they are said: requests without them keep the names that they have in ledgers and on cassettes.
        if self.tool_choice != _ANY_CHOICE:
            parts["tool_choice"] = asdict(self.tool_choice)
        if self.sampling != _ANY_SAMPLING:
            parts["sampling"] = self.sampling.said()
        if self.top_logprobs is not None:
            parts["top_logprobs"] = self.top_logprobs
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply as it comes. Calls of tools are told with the whole reply only."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one attempt.

    ``input`` includes ``cached_input`` and ``cache_write``; ``output`` includes ``reasoning`` (the OpenAI
    convention: backends of providers that count them apart normalise to it). ``source`` says who counted.
    ``images`` and ``audio_ms`` are units beside the tokens: pictures, and milliseconds of sound, in and out.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write: int = 0
    reasoning: int = 0
    source: UsageSource = "estimate"
    images: int = 0
    audio_ms: int = 0

    @property
    def total(self) -> int:
        """Input and output together."""
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a reply: its text, the natural log of its probability, and the likeliest in its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of one attempt, on the monotonic clock. None is unknown."""

    total_s: float
    first_token_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class MeasuredJoules:
    """What counters of this machine measured of an attempt: a 90 % interval around a mean.

    ``alone`` is whether nothing else ran meanwhile; else it is a share that was made by a model. ``scope`` is whose
    joules they are, ``assumed`` what the figure rests on.
    """

    mean: float
    low: float
    high: float
    alone: bool
    scope: Literal["board", "server", "facility"]
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backend hands back: one whole reply of one model, with the facts the meter needs.

    ``logprobs`` are natural-log probabilities of the reply's tokens, in order, when they were asked for
    and the server gave them. ``reported_joules`` is what the server itself said it used, ``batch`` how many sequences
    it decoded together meanwhile, where that is known; ``measured`` is what our own counters say of it. ``ignored``
    names what was asked for and is known not to have been heeded. ``tokens`` are the reply's, where their texts were
    asked for (``top_logprobs``).
    """

    text: str
    model: str
    usage: TokenUsage
    timings: Timings
    finish_reason: FinishReason = "stop"
    id: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[float, ...] | None = None
    reported_joules: float | None = None
    batch: float | None = None
    measured: MeasuredJoules | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ignored: tuple[str, ...] = ()
    tokens: tuple[Token, ...] | None = None


def writable(text: str) -> str:
    """A name as every database and viewer can write it: without NUL, and without halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def encodable(text: str) -> str:
    """Text that UTF-8 can carry: halves of characters, which broken documents and models yield, become U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
