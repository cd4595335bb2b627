"""What travels between a chain and a model: messages, requests, completions, token counts.

Plain frozen values without behaviour. A backend sees only what is in this file; it knows nothing of
budgets, cascades or spans. Imports nothing of agentflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
class Request:
    """One question to a cascade.

    ``priority`` and ``cache_salt`` change who waits for whom and whose prompt cache is used, on servers that know them
    (vLLM): lower goes first, and tenants of different salt share no cached prefix. Neither changes the reply.

    ``messages`` is what a model rung reads; ``inputs`` is the same question as typed data, which a code
    rung reads. ``max_output_tokens`` bounds the reply; None means the rung's default.
    ``timeout_s`` bounds the wall clock of the whole call, over all its attempts; a backend, of the one it is asked for.
    ``key`` is the attempt's name in the ledger: servers are told a digest of it as the request's id, so that their logs
    and the ledger can be laid side by side.
    """

    messages: tuple[Message, ...]
    inputs: Any = None
    max_output_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: OutputSchema | None = None
    tools: tuple[ToolSpec, ...] = ()
    logprobs: bool = False
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
        parts = {
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
    names what was asked for and is known not to have been heeded.
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


def writable(text: str) -> str:
    """A name as every database and viewer can write it: without NUL, and without halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")
