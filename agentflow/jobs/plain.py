"""Plain: what pages, models and code may hold, as text that every database keeps and every JSON reader takes.

Imports errors, messages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, cast

from agentflow.errors import UsageError
from agentflow.messages import encodable

# What is nested deeper than that is cut off.
_DEEPEST: Final = 100


def _said(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return type(value).__name__


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_said, allow_nan=False)


def clean(text: str) -> str:
    """The text without the character zero, and with U+FFFD for halves of characters: PostgreSQL keeps neither."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    return encodable(text)


def compact(value: Any) -> str:
    """JSON on one line, whatever it is given: no number is null, and what has no other form is told in words."""
    try:
        return encodable(_ENCODER.encode(value))
    except (TypeError, ValueError, RecursionError):
        return encodable(_ENCODER.encode(_plain(value, ())))


def result_text(value: Any) -> str:
    """The same, of a job's result.

    Raises:
        UsageError: it is no JSON.
    """
    try:
        json.dumps(value, default=_said)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"The job's code returned what is no JSON: {clean(str(error))}.") from error
    return compact(value)


def holds_zero(value: Any) -> bool:
    """Whether the character zero is anywhere in a value of JSON."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, Mapping):
        return any(holds_zero(part) for item in cast("Mapping[Any, Any]", value).items() for part in item)
    if isinstance(value, (list, tuple)):
        return any(holds_zero(part) for part in cast("list[Any]", value))
    return False


def _plain(value: Any, inside: tuple[int, ...]) -> Any:
    """A value without what JSON has no form for. ``inside`` are those that hold it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if id(cast("object", value)) in inside or len(inside) > _DEEPEST:
        return "..."
    inside = (*inside, id(cast("object", value)))
    if isinstance(value, Mapping):
        return {_said(key): _plain(part, inside) for key, part in cast("Mapping[Any, Any]", value).items()}
    return [_plain(part, inside) for part in cast("list[Any]", value)]
