"""What a server was asked for and did not do, though it said nothing of it. Imports untrusted, messages.

Servers of the OpenAI API leave out in silence what they do not know. What a reply shows by itself is looked for here,
without counting tokens unless its figures look odd; what no single reply can show (``seed``, ``temperature``) is not.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from agentflow.backends.untrusted import mapping
from agentflow.messages import Completion, Request, TokenUsage, ToolCall

Count = Callable[[Request, str], TokenUsage]

# Prose has 4 to 5 characters a token, code fewer: only counts of longer tokens than these are counted again.
_LONG_TOKENS: Final = 5
# Below these parts of our own count a server's is not believed to be true: of an exact one, and of an estimate.
_LEAST_OF_EXACT: Final = 0.9
_LEAST_OF_ESTIMATE: Final = 0.5
# Tokens that a server's template and tools may add, and those of one picture.
_MARGIN: Final = 1_000
_MOST_OF_PICTURE: Final = 20_000
# What is too short to be judged.
_FEW_CHARACTERS: Final = 80
# How models write a call of a tool when their server does not read it out of the text.
_CALL_IN_TEXT: Final = re.compile(r"\s*(?:<tool_call>|<\|python_tag\|>|\[TOOL_CALLS\]|<function=)")
# What dates a model's name or numbers its revision: ``-2024-08-06``, ``-20250514``, ``-0613``, ``-001``, ``-v1:0``.
_REVISION: Final = r"(?:[-@:](?:\d{4}-\d\d-\d\d|\d{3,8}|latest))?(?:[-:]v\d+(?::\d+)?)?"
_PREFIX: Final = r"(?:.*[/.:])?"
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "number": (int, float),
    "integer": (int, float),
}  # fmt: skip


def ignored(request: Request, completion: Completion, count: Count) -> tuple[str, ...]:
    """What of a request a whole reply shows not to have been done.

    Args:
        request: as it was sent.
        completion: the reply; its ``model`` as the server named it.
        count: counts tokens as the model does, or nearly.

    Returns:
        Names among ``logprobs``, ``schema``, ``tools``, ``tool_choice``, ``parallel_tool_calls``, ``stop``,
        ``max_tokens`` and ``usage_too_low``.
    """
    text, usage = completion.text, completion.usage
    whole = completion.finish_reason == "stop"
    found = {
        "logprobs": request.logprobs and completion.logprobs is None and bool(text),
        "schema": request.schema is not None and whole and bool(text) and not _is_of(text, request.schema.schema),
        "tools": bool(request.tools) and not completion.tool_calls and _calls_in_text(text, request),
        "tool_choice": bool(text or completion.tool_calls) and not is_chosen(request, completion.tool_calls),
        "parallel_tool_calls": request.tool_choice.parallel is False and len(completion.tool_calls) > 1,
        "stop": any(stop and stop in text for stop in request.stop),
        "max_tokens": request.max_output_tokens is not None and _longer(usage, request.max_output_tokens),
        "usage_too_low": _too_low(request, completion, count),
    }
    return tuple(name for name, is_so in found.items() if is_so)


@functools.lru_cache(maxsize=256)
def is_same_model(asked: str, replied: str) -> bool:
    """Whether two names are of one model: equal, or one of them the other's with a date, a revision or a prefix.

    Example:
        >>> is_same_model("gpt-4o", "gpt-4o-2024-08-06"), is_same_model("openai/gpt-4o", "gpt-4o")
        (True, True)
        >>> is_same_model("gpt-4o", "gpt-4o-mini"), is_same_model("claude-sonnet-4", "claude-sonnet-4-5")
        (False, False)
    """
    short, long = sorted((_plain(asked), _plain(replied)), key=len)
    return bool(short) and re.fullmatch(_PREFIX + re.escape(short) + _REVISION, long) is not None


def _plain(model: str) -> str:
    """A name in lower case without the folders of a file or the owner of a model."""
    return model.strip().lower().removesuffix(".gguf").replace("\\", "/").rsplit("/", 1)[-1]


def is_absurd(usage: TokenUsage, request: Request, reply: str, count: Count) -> bool:
    """Whether a server claims more tokens than there can be: no bill is believed that has nothing to show for it.

    A prompt has at most twice the tokens that we count, and what templates and pictures add. A reply has at most twice
    what it was limited to, which leaves room for thoughts that are not shown, or what its text can have.
    """
    most = request.max_output_tokens
    if most is not None and usage.output > max(2 * most, 4 * len(reply)) + _MARGIN:
        return True
    characters = sum(len(message.content) for message in request.messages)
    if usage.input <= characters + _MARGIN:
        return False
    pictures = sum(len(message.images) for message in request.messages)
    return usage.input > 2 * count(request, "").input + _MARGIN + _MOST_OF_PICTURE * pictures


def _is_of(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a reply could follow a schema: JSON of its kind, with its required fields. Values are not read."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    kinds = schema.get("type")
    names = cast("list[Any]", kinds if isinstance(kinds, list) else [kinds])
    if kinds is not None and not any(isinstance(value, _TYPES.get(str(name), object)) for name in names):
        return False
    required, fields = schema.get("required"), mapping(value)
    if fields is None or not isinstance(required, list):
        return True
    return all(name in fields for name in cast("list[str]", required))


def _calls_in_text(text: str, request: Request) -> bool:
    if _CALL_IN_TEXT.match(text):
        return True
    if not text.lstrip().startswith("{"):
        return False
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    called = (mapping(value) or {}).get("name")
    return any(called == tool.name for tool in request.tools)


def is_chosen(request: Request, calls: Sequence[ToolCall]) -> bool:
    """Whether the tools that had to be called were, and no other."""
    choice, called = request.tool_choice, [call.name for call in calls]
    if not request.tools or not choice.forced:
        return True
    return bool(called) and (choice.name is None or set(called) == {choice.name})


def _longer(usage: TokenUsage, most: int) -> bool:
    return usage.source != "estimate" and usage.output > most


def _too_low(request: Request, completion: Completion, count: Count) -> bool:
    """Whether the server's counts are lower than the texts can have: a bill made out too low is wrong as well."""
    usage, reply = completion.usage, len(completion.text)
    if usage.source not in ("provider", "server"):
        return False
    pictures = any(message.images for message in request.messages)
    prompt = 0 if pictures else sum(len(message.content) for message in request.messages)
    odd_prompt = prompt > max(_FEW_CHARACTERS, _LONG_TOKENS * usage.input)
    odd_reply = reply > max(_FEW_CHARACTERS, _LONG_TOKENS * usage.output)
    if not (odd_prompt or odd_reply):
        return False
    ours = count(request, completion.text)
    least = _LEAST_OF_EXACT if ours.source == "tokenizer" else _LEAST_OF_ESTIMATE
    return (odd_prompt and usage.input < least * ours.input) or (odd_reply and usage.output < least * ours.output)
