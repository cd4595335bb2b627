"""What litellm raises, as errors of ours. Told apart by names, so that litellm need not be imported. Imports errors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final

from agentflow.backends.exchange import struck
from agentflow.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BadReply,
    ConnectionDropped,
    ContextOverflow,
    RequestRejected,
)

_SHORTEN: Final = "Shorten the prompt, or name a model with a longer context."
_LATER: Final = "Try later, or another rung."
_REQUEST: Final = "Check the request and the model's name."
_UNKNOWN_COST: Final = "What it cost is not known."
# By the most special class of an exception that has a name here. openai's classes, which litellm's inherit, share them.
_KINDS: Final[dict[str, tuple[type[BackendError], str]]] = {
    "ContextWindowExceededError": (ContextOverflow, _SHORTEN),
    "AuthenticationError": (RequestRejected, "Set the key in the variable named by api_key_env."),
    "PermissionDeniedError": (RequestRejected, "The key may not use this model."),
    "PaymentRequiredError": (RequestRejected, "The account has no credit left."),
    "NotFoundError": (RequestRejected, "Check the model's name."),
    "LiteLLMUnknownProvider": (RequestRejected, "Begin the model's name with its provider, as in openai/gpt-4o."),
    "ModelNotMappedError": (RequestRejected, "Check the model's name."),
    "ContentPolicyViolationError": (RequestRejected, "The provider's policy refuses the prompt; another one may not."),
    "ImageFetchError": (RequestRejected, "Send the picture itself."),
    "BadRequestError": (RequestRejected, _REQUEST),
    "UnprocessableEntityError": (RequestRejected, _REQUEST),
    "RateLimitError": (BackendUnavailable, _LATER),
    # A stream that broke off, and a kind of ServiceUnavailableError: but what was generated is paid for.
    "MidStreamFallbackError": (ConnectionDropped, _UNKNOWN_COST),
    "ServiceUnavailableError": (BackendUnavailable, _LATER),
    # A gateway says so of a server that may have generated everything before it was lost.
    "BadGatewayError": (ConnectionDropped, _UNKNOWN_COST),
    "Timeout": (BackendTimeout, "Raise the model's timeout_s."),
    "APITimeoutError": (BackendTimeout, "Raise the model's timeout_s."),
    "APIResponseValidationError": (BadReply, _UNKNOWN_COST),
    "JSONSchemaValidationError": (BadReply, _UNKNOWN_COST),
    "APIConnectionError": (ConnectionDropped, "Check the network and base_url."),
    "InternalServerError": (BackendError, "Look at the provider's status."),
    "APIError": (BackendError, "Look at the provider's status."),
    "OpenAIError": (BackendError, "Look at the provider's status."),
}
# Nothing was sent when one of these is at the bottom of it: no connection was made.
_NOT_CONNECTED: Final = frozenset(("ConnectError", "ConnectTimeout", "ClientConnectorError", "gaierror"))
_CONTEXT = re.compile(r"context.{0,20}(length|window|limit|size)|too long|maximum.{0,20}(length|tokens)", re.IGNORECASE)
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)


def mapped(error: Exception, provider: str, model: str, keys: tuple[str, ...] = ()) -> BackendError:
    """An exception of litellm as one of ours, which says whether it may have cost something.

    Args:
        error: what was raised.
        provider: who was asked.
        model: the model that was.
        keys: secrets that may stand in its text, beside what looks like one and what the environment holds.
    """
    told = f"{provider} failed for '{model}': {type(error).__name__}"
    names = [kind.__name__ for kind in type(error).__mro__]
    if not _NOT_CONNECTED.isdisjoint(type(cause).__name__ for cause in _causes(error)):
        return BackendUnavailable(f"{provider} cannot be reached for '{model}'. Check the network and base_url.")
    kind, advice = next((_KINDS[name] for name in names if name in _KINDS), (BackendError, ""))
    if kind is BackendError and isinstance(error, (KeyError, TypeError, ValueError)):
        kind, advice = BadReply, _UNKNOWN_COST
    status = getattr(error, "status_code", None)
    if kind is BackendError and isinstance(status, int) and 400 <= status < 500:
        kind, advice = RequestRejected, _REQUEST
    if kind is not RequestRejected:
        found = kind(f"{told}. {advice}".rstrip())
        if isinstance(found, BackendUnavailable):
            found.retry_after_s = _retry_after(error)
        return found
    # The prompt may be echoed in the text of other errors; what is wrong with a request is worth its risk.
    said = _without_keys(_reason(error), keys)
    if _CONTEXT.search(said):
        return ContextOverflow(f"{told}: {said}. {_SHORTEN}")
    return RequestRejected(f"{told}: {said}. {advice}")


def _reason(error: Exception) -> str:
    """The provider's own words, on one line."""
    text = str(getattr(error, "message", error))
    text = re.sub(r"^(litellm\.)?(\w*Error: )*(\w*(Exception|Error) - )?", "", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200].rstrip(".") or "no reason given"


def _without_keys(text: str, keys: tuple[str, ...]) -> str:
    held = (value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= 8)
    for secret in (*keys, *held):
        text = text.replace(secret, "…")
    return struck(text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _retry_after(error: Exception) -> float | None:
    headers: Any = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    value = str(headers.get("retry-after", "")) if hasattr(headers, "get") else ""
    return float(value) if re.fullmatch(r"\d{1,6}(\.\d+)?", value) else None
