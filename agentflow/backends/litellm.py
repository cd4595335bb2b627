"""Remote providers through litellm, imported on first use, in a thread. Imports wire, base, errors.

Of litellm only the translation is used: its retries, router, budgets and callbacks are off, because two layers that
retry or count spend twice.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from agentflow.backends.base import Probe
from agentflow.backends.wire import Gathered, request_json, usage_of
from agentflow.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    BadReply,
    ConnectionDropped,
    ContextOverflow,
    RequestRejected,
)
from agentflow.messages import Completion, Delta, Request, Timings, TokenUsage

# Read by litellm when it is imported: without these it fetches its price map, loads ./.env, and looks for
# tokenizers on a hub.
_ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "HF_HUB_OFFLINE": "1"}


class LiteLLMBackend:
    """One model of a remote provider.

    Args:
        model: litellm's name, ``provider/model``.
        count: counts the tokens of a reply whose provider sent no usage that makes sense.
        base_url: another address of the provider's API.
        api_key_env: the environment variable that holds the key; litellm's own default when None.
        options: more arguments of ``litellm.acompletion``.
    """

    in_process = False

    def __init__(
        self,
        model: str,
        count: Callable[[Request, str], TokenUsage],
        *,
        base_url: str | None = None,
        api_key_env: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.provider = model.split("/", 1)[0] if "/" in model else "openai"
        self._count = count
        self._base_url = base_url
        self._key_env = api_key_env
        self._options = options or {}
        self._litellm: Any = None

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask the provider, within ``request.timeout_s``.

        Raises:
            BackendError: as the subclass that says whether it may have cost something.
        """
        litellm = await self._load()
        started = time.monotonic()
        body = request_json(model, request)
        if self._base_url:
            body["api_base"] = self._base_url
        key = os.environ.get(self._key_env or "", "")
        if key:
            body["api_key"] = key
        body |= {"stream": True, "stream_options": {"include_usage": True}, "num_retries": 0, "max_retries": 0}
        gathered, first_s = Gathered(tell), None
        try:
            async with asyncio.timeout(request.timeout_s):
                stream = await litellm.acompletion(**body, timeout=request.timeout_s, drop_params=True, **self._options)
                try:
                    async for chunk in stream:
                        if gathered.add(_plain(chunk)) and first_s is None:
                            first_s = time.monotonic() - started
                finally:
                    await _closed(stream)
        except TimeoutError as error:
            raise BackendTimeout(
                f"{self.provider} gave no whole reply of '{model}' within {request.timeout_s} s."
            ) from error
        except BackendError:
            raise
        except Exception as error:
            raise _mapped(error, litellm, self.provider, model) from error
        text = "".join(gathered.text)
        # litellm invents usage for a stream that had none, and nothing marks it: only its chunks tell.
        usage = usage_of(gathered.usage) or self._count(request, text)
        return Completion(
            text=text,
            model=gathered.model or model,
            usage=usage,
            timings=Timings(time.monotonic() - started, first_s),
            finish_reason=gathered.finish or "stop",
            id=gathered.id,
            tool_calls=gathered.tool_calls(),
            logprobs=tuple(gathered.logprobs) or None,
            reported_joules=gathered.joules,
        )

    async def probe(self) -> Probe:
        """Whether the key is set; a provider is not asked, for that may cost."""
        if self._key_env and not os.environ.get(self._key_env):
            return Probe(False, f"variable {self._key_env} is not set")
        return Probe(True, f"{self.provider}, not contacted")

    async def aclose(self) -> None:
        """Litellm holds its connections for the process; nothing of ours is open."""

    async def _load(self) -> Any:
        if self._litellm is None:
            self._litellm = await asyncio.to_thread(_import_litellm)
        return self._litellm


def _import_litellm() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import litellm

    module: Any = litellm
    module.suppress_debug_info = True
    module.disable_hf_tokenizer_download = True
    module.telemetry = False
    return module


def _plain(chunk: Any) -> Any:
    return chunk.model_dump() if hasattr(chunk, "model_dump") else chunk


async def _closed(stream: Any) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _mapped(error: Exception, litellm: Any, provider: str, model: str) -> BackendError:
    """Litellm's exception as ours. Its text may hold request data: only its kind is told."""
    told = f"{provider} failed for '{model}': {type(error).__name__}"
    text = str(error).lower()
    kinds: tuple[tuple[str, type[BackendError], str], ...] = (
        ("ContextWindowExceededError", ContextOverflow, "Shorten the prompt, or name a model with a longer context."),
        ("AuthenticationError", RequestRejected, "Set the key in the variable named by api_key_env."),
        ("PermissionDeniedError", RequestRejected, "The key may not use this model."),
        ("NotFoundError", RequestRejected, "Check the model's name."),
        ("RateLimitError", BackendUnavailable, "Try later, or another rung."),
        ("ServiceUnavailableError", BackendUnavailable, "Try later, or another rung."),
        ("Timeout", BackendTimeout, "Raise the model's timeout_s."),
        ("APIConnectionError", ConnectionDropped, "Check the network and base_url."),
    )
    if isinstance(error, litellm.BadRequestError) and ("context" in text or "too long" in text):
        return ContextOverflow(f"{told}. Shorten the prompt, or name a model with a longer context.")
    for name, kind, advice in kinds:
        if isinstance(error, getattr(litellm, name)):
            return kind(f"{told}. {advice}")
    if isinstance(error, litellm.BadRequestError):
        return RequestRejected(f"{told}. Check the request and the model's name.")
    return BadReply(f"{told}.") if isinstance(error, (KeyError, TypeError, ValueError)) else BackendError(f"{told}.")
