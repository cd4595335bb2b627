"""Backends: what speaks to models. ``base`` is the protocol; each file adapts one way of speaking."""

from __future__ import annotations

from collections.abc import Callable

from agentflow.backends.base import Backend, Probe
from agentflow.config import ModelSettings
from agentflow.messages import Request, TokenUsage

__all__ = ["Backend", "Probe", "make_backend"]

Count = Callable[[Request, str], TokenUsage]


def make_backend(name: str, facts: ModelSettings, count: Count) -> Backend:
    """The backend of a configured model. Contacts nobody, loads nothing.

    Args:
        name: the model's name in the configuration.
        facts: its table.
        count: counts the tokens of a reply whose server sent no usage.

    Raises:
        ConfigError: a file it needs is missing, or is not what it must be.
    """
    if facts.backend == "llamacpp" and facts.path is not None:
        from agentflow.backends.llamacpp import LlamaCppBackend

        return LlamaCppBackend(
            facts.path,
            context=facts.context or 4096,
            slots=facts.slots,
            threads=facts.threads,
            gpu_layers=facts.gpu_layers,
        )
    if facts.backend == "litellm":
        from agentflow.backends.litellm import LiteLLMBackend

        return LiteLLMBackend(facts.model, count, base_url=facts.base_url, api_key_env=facts.api_key_env)
    from agentflow.backends.openai_http import OpenAIBackend

    backend = OpenAIBackend(
        facts.base_url or "", count, api_key_env=facts.api_key_env, retries=facts.retries, stream=facts.stream
    )
    if not facts.metrics:
        return backend
    from agentflow.backends.observed import ObservedBackend
    from agentflow.backends.server_metrics import ServerMetrics

    return ObservedBackend(
        backend, ServerMetrics(facts.base_url or "", model=facts.model or None, api_key_env=facts.api_key_env)
    )
