"""Checks: code that judges a reply. A check is any callable from Candidate to Verdict; ``&`` of verdicts combines.

``parse_output`` turns a reply's text into the type that the caller asked for, and says what is wrong with it
in words that a model can act on. May import messages, confidence, reply.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agentflow.cascade.confidence import joint_probability
from agentflow.cascade.reply import Verdict
from agentflow.messages import Completion, OutputSchema, Request

_FENCED = re.compile(r"\A\s*```[a-zA-Z]*\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)
_SHOWN_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A parsed reply on trial. ``completion`` is None when a code rung gave it."""

    request: Request
    output: Any
    completion: Completion | None


Check = Callable[[Candidate], Verdict]


def run_checks(checks: tuple[Check, ...], candidate: Candidate) -> Verdict:
    """Every check's verdict, combined; with no checks the reply is valid and of unknown confidence."""
    return functools.reduce(lambda verdict, check: verdict & check(candidate), checks, Verdict(valid=True))


def token_confidence(candidate: Candidate) -> Verdict:
    """A check: confidence from the reply's token probabilities, where the backend gave them."""
    completion = candidate.completion
    if completion is None or completion.logprobs is None:
        return Verdict(valid=True)
    return Verdict(valid=True, confidence=joint_probability(completion.logprobs))


def output_schema(output: type[Any]) -> OutputSchema | None:
    """The JSON schema a server should hold the model to, or None for plain text."""
    if output is str:
        return None
    return OutputSchema(getattr(output, "__name__", "reply"), _adapter(output).json_schema())


def parse_output(output: type[Any], text: str) -> tuple[Any, Verdict]:
    """Read a reply's text as ``output``.

    Returns:
        The value and a verdict; when it does not parse, None and the reason.
    """
    if output is str:
        return text, Verdict(valid=bool(text.strip()), reason="" if text.strip() else "the reply is empty")
    fenced = _FENCED.match(text)
    try:
        return _adapter(output).validate_json((fenced.group(1) if fenced else text).strip()), Verdict(valid=True)
    except ValidationError as error:
        return None, Verdict(valid=False, reason=_reason(error))


@functools.lru_cache(maxsize=256)
def _adapter(output: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(output)


def _reason(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{'.'.join(map(str, d['loc'])) or 'reply'}: {d['msg']}" for d in details[:_SHOWN_ERRORS]]
    more = f" (and {len(details) - _SHOWN_ERRORS} more)" if len(details) > _SHOWN_ERRORS else ""
    return "; ".join(shown) + more
