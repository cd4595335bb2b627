"""The OpenAI chat dialect: a Request as JSON, a reply's JSON as values. Every backend shares it.

Everything a server sends is checked before it is believed; counts that make no sense are treated as not sent.
Imports untrusted, messages, errors.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic_core import to_json

from agentflow.backends.untrusted import count, items, mapping, name, number, text
from agentflow.errors import BadReply
from agentflow.messages import Delta, FinishReason, Image, Message, Request, Token, TokenUsage, ToolCall, ToolChoice

_MOST_REPLY_CHARS = 8_000_000
_MOST_JOULES = 1e12
# What servers mean by minus infinity, as a figure that JSON and databases can hold.
_IMPROBABLE = -1e4
# More alternatives than any server was asked for are not kept.
_MOST_TOP = 20
_SUMMARY = frozenset(("usage", "timings", "energy_joules", "energy_kwh"))
_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter",
    "function_call": "tool_calls", "abort": "error", "error": "error",
}  # fmt: skip


def request_json(model: str, request: Request) -> dict[str, Any]:
    """The body of POST /chat/completions."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message_json(message) for message in request.messages],
        "temperature": request.temperature,
    }
    if request.max_output_tokens is not None:
        body["max_tokens"] = request.max_output_tokens
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    body.update(request.sampling.said())
    if request.logprobs:
        body["logprobs"] = True
        if request.top_logprobs is not None:
            body["top_logprobs"] = request.top_logprobs
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
            }
            for t in request.tools
        ]
        body.update(_choice_json(request.tool_choice))
    if request.schema is not None:
        schema = {"name": request.schema.name, "schema": dict(request.schema.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def forced_alone(body: dict[str, Any], request: Request) -> None:
    """Say which tool must be called to a server that cannot be told its name (llama.cpp): it sees no other."""
    name = request.tool_choice.name
    if name is not None and "tools" in body:
        body["tools"] = [tool for tool in body["tools"] if tool["function"]["name"] == name]
        body["tool_choice"] = "required"


def written(body: Mapping[str, Any]) -> bytes:
    """A body as the bytes of its JSON."""
    try:
        # Several times as fast as the standard library.
        return to_json(body)
    except ValueError:
        # Text that is no Unicode: half of a character.
        return json.dumps(body).encode()


@dataclass(slots=True)
class Gathered:
    """A reply as its chunks come in, or all at once; ``tell`` is told of each piece of its text."""

    tell: Callable[[Delta], None] | None = None
    # Whether the texts of tokens are kept beside their probabilities.
    token_texts: bool = False
    text: list[str] = field(default_factory=list[str])
    calls: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    logprobs: list[float] = field(default_factory=list[float])
    tokens: list[Token] = field(default_factory=list[Token])
    finish: FinishReason | None = None
    usage: Mapping[str, Any] | None = None
    timings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    id: str | None = None
    model: str | None = None
    joules: float | None = None
    _size: int = 0

    def add(self, chunk: Any) -> bool:
        """Take in one chunk, or a whole reply. Returns whether it carried content.

        Raises:
            BadReply: it is not a chat completion, or the reply grows beyond all sense.
        """
        data = mapping(chunk)
        if data is None:
            raise BadReply(f"The server sent {_shown(chunk)} where a chat completion was due.")
        if self.id is None:
            self.id = name(data.get("id"))
        if self.model is None:
            self.model = name(data.get("model"))
        # A long stream is many chunks, and most say none of this.
        if not data.keys().isdisjoint(_SUMMARY):
            self.usage = mapping(data.get("usage")) or self.usage
            self.timings = mapping(data.get("timings")) or self.timings
            self.joules = _reported_joules(data, self.joules)
        choices = data.get("choices")
        if not isinstance(choices, list):
            raise BadReply(f"The server's reply has no list of choices: {_shown(chunk)}.")
        return self._choice(mapping(cast("list[Any]", choices)[0])) if choices else False

    def _choice(self, choice: Mapping[str, Any] | None) -> bool:
        if choice is None:
            raise BadReply("The server's reply has a choice that is not an object.")
        part = mapping(choice.get("delta")) or mapping(choice.get("message")) or {}
        content = part.get("content")
        if content is not None and not isinstance(content, str):
            raise BadReply(f"The server's reply has content of type {type(content).__name__}, not text.")
        if content:
            self.text.append(content)
            if self.tell is not None:
                self.tell(Delta(content))
            self._grow(len(content))
        tool_calls, logprobs = part.get("tool_calls"), choice.get("logprobs")
        if tool_calls:
            for place, call in enumerate(items(tool_calls)):
                self._tool_call(place, call)
        if logprobs:
            found = _logprobs(logprobs)
            self.logprobs.extend(found)
            self._grow(len(found))
            if self.token_texts:
                tokens = _tokens(logprobs)
                self.tokens.extend(tokens)
                self._grow(sum(len(token.text) + sum(len(one) for one, _ in token.top) for token in tokens))
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish = _REASONS.get(reason, "stop")
        return bool(content or tool_calls)

    def _tool_call(self, place: int, call: Mapping[str, Any]) -> None:
        """One tool call, or a piece of it: the index says which it belongs to, or else its id."""
        index, id = call.get("index"), name(call.get("id"))
        if not isinstance(index, int):
            known = (at for at, entry in self.calls.items() if id is not None and entry["id"] == id)
            begun = id is not None and bool(self.calls.get(place, {}).get("id"))
            index = next(known, len(self.calls) if begun else place)
        entry = self.calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        entry["id"] = id or entry["id"]
        function = mapping(call.get("function")) or {}
        called, arguments = text(function.get("name")) or "", text(function.get("arguments")) or ""
        entry["name"] += called
        entry["arguments"] += arguments
        self._grow(1 + len(called) + len(arguments))

    def _grow(self, characters: int) -> None:
        self._size += characters
        if self._size > _MOST_REPLY_CHARS:
            raise BadReply(f"The reply is longer than {_MOST_REPLY_CHARS:,} characters; it was cut off there.")

    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return tuple(ToolCall(c["id"], c["name"], c["arguments"]) for _, c in sorted(self.calls.items()))


def usage_of(data: Mapping[str, Any] | None, timings: Mapping[str, Any] | None = None) -> TokenUsage | None:
    """A usage object as counts, or None when it is missing or cannot be true.

    Args:
        data: the usage object.
        timings: llama.cpp's, whose ``cache_n`` is the cached part of the prompt where the usage does not tell it.
    """
    if data is None:
        return None
    prompt, reply = count(data.get("prompt_tokens")), count(data.get("completion_tokens"))
    if prompt is None or reply is None:
        return None
    prompt_details = mapping(data.get("prompt_tokens_details")) or {}
    reply_details = mapping(data.get("completion_tokens_details")) or {}
    cached = count(prompt_details.get("cached_tokens")) or count((timings or {}).get("cache_n")) or 0
    written = (
        count(prompt_details.get("cache_creation_tokens"))
        # vLLM's own name, with --enable-prompt-tokens-details.
        or count(prompt_details.get("created_cache_tokens"))
        or count(data.get("cache_creation_input_tokens"))
        or 0
    )
    reasoning = count(reply_details.get("reasoning_tokens")) or 0
    cached = min(cached, prompt)
    return TokenUsage(prompt, reply, cached, min(written, prompt - cached), min(reasoning, reply), "provider")


def seconds(timings: Mapping[str, Any], key: str) -> float | None:
    """Milliseconds of llama.cpp's timings as seconds; None when they are missing or make no sense."""
    value = number(timings.get(key))
    return None if value is None or value < 0 else value / 1000.0


def _message_json(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        words = [{"type": "text", "text": message.content}] if message.content else []
        body["content"] = [*words, *map(_image_json, message.images)]
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body


def _image_json(image: Image) -> dict[str, Any]:
    place = {"url": f"data:{image.media_type};base64,{base64.b64encode(image.data).decode('ascii')}"}
    return {"type": "image_url", "image_url": place if image.detail == "auto" else {**place, "detail": image.detail}}


def _logprobs(value: Any) -> list[float]:
    tokens = items((mapping(value) or {}).get("content"))
    # Left out, a token of no probability at all would make the reply look surer than it is.
    told = [_IMPROBABLE if token.get("logprob") == -math.inf else number(token.get("logprob")) for token in tokens]
    return [min(p, 0.0) for p in told if p is not None]


def _tokens(value: Any) -> list[Token]:
    return [
        Token(text(token.get("token")) or "", _logprob(token), tuple(_top(token)))
        for token in items((mapping(value) or {}).get("content"))
    ]


def _top(token: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for other in items(token.get("top_logprobs"))[:_MOST_TOP]:
        yield text(other.get("token")) or "", _logprob(other)


def _logprob(token: Mapping[str, Any]) -> float:
    found = number(token.get("logprob"))
    return _IMPROBABLE if found is None else min(found, 0.0)


def _choice_json(choice: ToolChoice) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if choice.name is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.required:
        body["tool_choice"] = "required"
    if choice.parallel is not None:
        body["parallel_tool_calls"] = choice.parallel
    return body


def _reported_joules(data: Mapping[str, Any], before: float | None) -> float | None:
    usage = mapping(data.get("usage")) or {}
    for place, key, factor in (
        (data, "energy_joules", 1.0),
        (usage, "energy_joules", 1.0),
        (data, "energy_kwh", 3.6e6),
    ):
        value = number(place.get(key))
        if value is not None and 0 <= value * factor <= _MOST_JOULES:
            return value * factor
    return before


def _shown(value: Any) -> str:
    return repr(value)[:120]
