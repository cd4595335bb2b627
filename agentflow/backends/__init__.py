"""Backends: what speaks to models. ``base`` is the protocol; each file adapts one way of speaking."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agentflow.backends.base import Backend, Probe
from agentflow.config import ModelSettings
from agentflow.messages import Request, TokenUsage

if TYPE_CHECKING:
    from agentflow.backends.server_metrics import ServerMetrics

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
    if not facts.base_urls:
        return _server(facts.base_url or "", facts, count, retries=facts.retries)
    from agentflow.backends.replicas import Replica, ReplicatedBackend

    replicas = [
        Replica(url.rstrip("/"), _server(url, facts, count, retries=0), _metrics(url, facts)) for url in facts.base_urls
    ]
    return ReplicatedBackend(replicas, retries=facts.retries)


def _server(url: str, facts: ModelSettings, count: Count, *, retries: int) -> Backend:
    """What speaks to one OpenAI-compatible server."""
    from agentflow.backends.openai_http import OpenAIBackend

    backend = OpenAIBackend(
        url, count, api_key_env=facts.api_key_env, retries=retries, stream=facts.stream, dialect=facts.dialect
    )
    if not facts.metrics:
        return backend
    from agentflow.backends.observed import ObservedBackend

    return ObservedBackend(backend, _metrics(url, facts))


def _metrics(url: str, facts: ModelSettings) -> ServerMetrics:
    from agentflow.backends.server_metrics import ServerMetrics

    return ServerMetrics(url, model=facts.model or None, api_key_env=facts.api_key_env)
