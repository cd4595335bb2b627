"""Remote providers through litellm, imported on first use, in a thread. Imports wire, base, litellm_errors.

Of litellm only the translation is used: its retries, router, budgets and callbacks are off, because two layers that
retry or count spend twice.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, Final

from agentflow.backends.base import Probe
from agentflow.backends.litellm_errors import mapped
from agentflow.backends.wire import Gathered, request_json, usage_of
from agentflow.errors import BackendError, BackendTimeout, BadReply, ConfigError, ConnectionDropped
from agentflow.messages import Completion, Delta, Request, Timings, TokenUsage

# Read by litellm when it is imported: without these it fetches its price map, loads ./.env, and looks for
# tokenizers on a hub.
_ENVIRONMENT: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "HF_HUB_OFFLINE": "1"}
# What is sent, by what was asked for: a provider that does not know the one does not heed the other.
_SENT_AS: Final = {
    "max_tokens": "max_output_tokens", "temperature": "temperature", "seed": "seed", "stop": "stop",
    "logprobs": "logprobs", "top_logprobs": "top_logprobs", "tools": "tools", "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls", "response_format": "schema", "top_p": "top_p",
    "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
    "reasoning_effort": "reasoning_effort",
}  # fmt: skip


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
        self._known: frozenset[str] | None = None

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        """Ask the provider, within ``request.timeout_s``.

        Raises:
            BackendError: as the subclass that says whether it may have cost something.
            ConfigError: litellm is not installed.
        """
        litellm = await self._load(model)
        started = time.monotonic()
        body = self._body(model, request)
        gathered, first_s = Gathered(tell, request.top_logprobs is not None), None
        try:
            async with asyncio.timeout(request.timeout_s):
                stream = await litellm.acompletion(**body)
                try:
                    async for chunk in stream:
                        if gathered.add(_plain(chunk)) and first_s is None:
                            first_s = time.monotonic() - started
                finally:
                    await _closed(stream)
        except TimeoutError as error:
            raise BackendTimeout(
                f"{self.provider} gave no whole reply of '{model}' within {request.timeout_s} s. "
                "Raise the model's timeout_s, or the budget's seconds."
            ) from error
        except BackendError:
            raise
        except Exception as error:
            raise mapped(error, self.provider, model, self._keys()) from error
        self._refuse_unfinished(stream, gathered, model)
        usage = usage_of(gathered.usage) if _usage_was_sent(stream) else None
        text, calls = "".join(gathered.text), gathered.tool_calls()
        return Completion(
            text=text,
            model=gathered.model or model,
            usage=usage or self._count(request, text + "".join(call.name + call.arguments for call in calls)),
            timings=Timings(time.monotonic() - started, first_s),
            finish_reason=gathered.finish or "stop",
            id=gathered.id,
            tool_calls=calls,
            logprobs=tuple(gathered.logprobs) or None,
            tokens=tuple(gathered.tokens) or None,
            reported_joules=gathered.joules,
            ignored=self._ignored(body, request),
        )

    async def probe(self) -> Probe:
        """Whether the key is set; a provider is not asked, for that may cost."""
        if self._key_env and not os.environ.get(self._key_env):
            return Probe(False, f"variable {self._key_env} is not set")
        return Probe(True, f"{self.provider}, not contacted")

    async def aclose(self) -> None:
        """Litellm holds its connections for the process; nothing of ours is open."""

    def _body(self, model: str, request: Request) -> dict[str, Any]:
        body = request_json(model, request)
        if self._base_url:
            body["api_base"] = self._base_url
        if keys := self._keys():
            body["api_key"] = keys[0]
        body |= {"stream": True, "stream_options": {"include_usage": True}, "num_retries": 0, "max_retries": 0}
        # With tools it would look for its own gateway's first, and cannot without a package that it does not ask for.
        body["_skip_mcp_handler"] = True
        return body | {"timeout": request.timeout_s, "drop_params": True} | self._options

    def _keys(self) -> tuple[str, ...]:
        key = os.environ.get(self._key_env or "", "")
        return (key,) if key else ()

    def _ignored(self, body: dict[str, Any], request: Request) -> tuple[str, ...]:
        """What was asked for and litellm drops, because the provider does not know it, or has no word for itself."""
        found = [name for name in ("priority", "cache_salt") if getattr(request, name) is not None]
        if self._known is not None:
            found += [ours for theirs, ours in _SENT_AS.items() if theirs in body and theirs not in self._known]
        return tuple(found)

    def _refuse_unfinished(self, stream: Any, gathered: Gathered, model: str) -> None:
        """Refuse a reply that broke off: litellm ends it as if it were whole."""
        if _finish_was_sent(stream) or gathered.tool_calls():
            return
        if gathered.text:
            raise ConnectionDropped(f"{self.provider} ended the stream before the reply of '{model}' was whole.")
        raise BadReply(f"{self.provider} answered with something that is no chat completion of '{model}'.")

    async def _load(self, model: str) -> Any:
        if self._litellm is None:
            self._litellm = await asyncio.to_thread(_import_litellm)
            self._known = _known_parameters(self._litellm, model)
        return self._litellm


def _import_litellm() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import litellm
    except ImportError as error:
        raise ConfigError("litellm is not installed. Run: pip install agentflow") from error
    module: Any = litellm
    module.suppress_debug_info = True
    module.disable_hf_tokenizer_download = True
    module.telemetry = False
    return module


def _known_parameters(litellm: Any, model: str) -> frozenset[str] | None:
    """What the provider can be asked for, by litellm's table; None when it has none."""
    try:
        names = litellm.get_supported_openai_params(model=model)
    except Exception:
        # Each provider's table is code of its own; what goes wrong in it says nothing of the call.
        return None
    return None if names is None else frozenset(map(str, names))


def _usage_was_sent(stream: Any) -> bool:
    """Whether the provider sent usage. Litellm ends every stream with some, of its own invention where none came."""
    return any(getattr(chunk, "usage", None) is not None for chunk in getattr(stream, "chunks", ()))


def _finish_was_sent(stream: Any) -> bool:
    """Whether the provider said why the reply ended. Litellm says "stop" by itself where it did not."""
    names = ("received_finish_reason", "intermittent_finish_reason")
    return any(getattr(stream, name, None) is not None for name in names)


def _plain(chunk: Any) -> Any:
    return chunk.model_dump() if hasattr(chunk, "model_dump") else chunk


async def _closed(stream: Any) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
