"""One request and what came of it, as a line of a cassette: JSON that a person can read. Imports messages, errors.

The request is kept for reading and for telling what differs; a request is found by its digest. Pictures are kept as
digests only, and what looks like a key is struck out. ``cassette`` keeps the lines.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, cast

from pydantic import TypeAdapter, ValidationError

from agentflow.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BadReply,
    ConnectionDropped,
    ContextOverflow,
    RequestRejected,
)
from agentflow.messages import Completion, Message, Request

_ERRORS: Final[dict[str, type[BackendError]]] = {
    kind.__name__: kind
    for kind in (
        BackendError, BackendTimeout, BackendUnavailable, BadReply, ConnectionDropped, ContextOverflow, RequestRejected,
    )
}  # fmt: skip
_SECRET = re.compile(r"\b((?:sk|pk|rk|gsk|hf|xai|ghp|pplx|nvapi)[-_]|AIza|AKIA|Bearer\s+)[\w.\-]{8,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and the reply or the error that it got.

    Args:
        rung: who was asked, by the name in the configuration.
        provider: the OpenTelemetry provider name of the backend.
        model: the backend's own name of the model.
        digest: names the request but for the bound on its reply: see ``question``.
        turn: which of the equal requests it was, from 1.
        request: the request, readable.
        outcome: what it got.
        deltas: the pieces of text that were told, in order.
        line: where on the cassette it stands; 0 when it does not yet.
    """

    rung: str
    provider: str
    model: str
    digest: str
    turn: int
    request: Mapping[str, Any]
    outcome: Completion | BackendError
    deltas: tuple[str, ...] = ()
    line: int = 0

    def within(self, bound: int | None) -> bool:
        """Whether its reply could have been given to a request with this bound on the tokens of a reply."""
        if self.request.get("max_output_tokens") == bound or bound is None:
            return True
        return isinstance(self.outcome, BackendError) or self.outcome.usage.output <= bound


def question(request: Request) -> str:
    """The digest of a request but for the bound on its reply, which follows what a budget has left at that moment."""
    return replace(request, max_output_tokens=None).digest()


def readable(request: Request) -> dict[str, Any]:
    """A request as JSON for people: what is left at its default is left out."""
    data: dict[str, Any] = {
        "messages": [_message(message) for message in request.messages],
        "max_output_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "stop": list(request.stop),
        "schema": request.schema and {"name": request.schema.name, "schema": dict(request.schema.schema)},
        "tools": [
            {"name": t.name, "description": t.description, "parameters": dict(t.parameters)} for t in request.tools
        ],
        "tool_choice": _said(asdict(request.tool_choice)),
        **request.sampling.said(),
        "logprobs": request.logprobs,
        "top_logprobs": request.top_logprobs,
    }
    # Zero is a value: a temperature, a seed.
    return {name: value for name, value in data.items() if not (value is None or value is False or value in ([], {}))}


def struck(text: str) -> str:
    """Text without what looks like a key."""
    return _SECRET.sub("…", text)


def to_line(exchange: Exchange) -> bytes:
    """An exchange as one line of JSON."""
    data: dict[str, Any] = {
        "rung": exchange.rung,
        "provider": exchange.provider,
        "model": exchange.model,
        "digest": exchange.digest,
        "turn": exchange.turn,
        "request": exchange.request,
    }
    if isinstance(exchange.outcome, BackendError):
        data["error"] = _error_json(exchange.outcome)
    else:
        data["completion"] = _completions().dump_python(
            exchange.outcome, mode="json", exclude_defaults=True, fallback=str
        )
    if exchange.deltas:
        data["deltas"] = exchange.deltas
    return json_line(data)


def json_line(data: Mapping[str, Any]) -> bytes:
    """JSON on one line, with its end."""
    try:
        return json.dumps(data, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Halves of characters cannot be written as UTF-8, but can be escaped.
        return json.dumps(data).encode() + b"\n"


def from_line(data: Mapping[str, Any], line: int) -> Exchange:
    """An exchange read back.

    Raises:
        ValueError: it is not one; the message says what is wrong.
    """
    try:
        names = {name: _text(name, data[name]) for name in ("rung", "provider", "model", "digest")}
        turn, request, deltas = data["turn"], data["request"], data.get("deltas", [])
        outcome = _error(data["error"]) if "error" in data else _completions().validate_python(data["completion"])
    except KeyError as missing:
        raise ValueError(f"{missing.args[0]} is missing") from missing
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"completion.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if not isinstance(turn, int) or not isinstance(request, dict) or not isinstance(deltas, list):
        raise ValueError("turn must be a number, request an object, deltas a list")
    pieces = tuple(map(str, cast("list[Any]", deltas)))
    told = cast("dict[str, Any]", request)
    return Exchange(**names, turn=turn, request=told, outcome=outcome, deltas=pieces, line=line)


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value not in (None, False)}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text")
    return value


def _message(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {"role": message.role, "content": struck(message.content)}
    if message.tool_calls:
        data["tool_calls"] = [
            {"id": c.id, "name": c.name, "arguments": struck(c.arguments)} for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        data["tool_call_id"] = message.tool_call_id
    if message.images:
        data["images"] = [
            {
                "sha256": hashlib.sha256(i.data).hexdigest(),
                "media_type": i.media_type,
                "width": i.width,
                "height": i.height,
            }
            for i in message.images
        ]
    return data


def _error_json(error: BackendError) -> dict[str, Any]:
    kind = next(parent.__name__ for parent in type(error).__mro__ if parent.__name__ in _ERRORS)
    data: dict[str, Any] = {"kind": kind, "message": struck(str(error)), "sent": error.sent}
    if isinstance(error, BackendUnavailable) and error.retry_after_s is not None:
        data["retry_after_s"] = error.retry_after_s
    return data


def _error(data: Any) -> BackendError:
    facts = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    kind = _ERRORS.get(str(facts.get("kind")))
    if kind is None:
        raise ValueError(f"error.kind must be one of {', '.join(_ERRORS)}")
    error = kind(str(facts["message"]))
    error.sent = bool(facts["sent"])
    if isinstance(error, BackendUnavailable) and isinstance(facts.get("retry_after_s"), (int, float)):
        error.retry_after_s = float(facts["retry_after_s"])
    return error


@functools.cache
def _completions() -> TypeAdapter[Completion]:
    return TypeAdapter(Completion)
