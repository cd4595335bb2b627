"""What the contract of backends is tried on: every backend there is, each with a way to say what it shall reply."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentflow.backends.base import Backend, Probe
from agentflow.backends.cassette import Cassette, RecordingBackend, ReplayBackend
from agentflow.backends.litellm import LiteLLMBackend
from agentflow.backends.llamacpp import LlamaCppBackend
from agentflow.backends.measured import MeasuredBackend
from agentflow.backends.observed import ObservedBackend
from agentflow.backends.openai_http import OpenAIBackend
from agentflow.backends.replicas import Replica, ReplicatedBackend
from agentflow.backends.server_metrics import ServerMetrics
from agentflow.energy.shared_meter import SharedMeter
from agentflow.errors import BackendError, BackendUnavailable, ContextOverflow, RequestRejected
from agentflow.messages import Completion, Delta, Request, TokenUsage, ToolCall
from agentflow.testing import ScriptedModel, ScriptedReply
from agentflow.tokens import TokenCounter
from tests.conftest import RUNGS
from tests.servers.openai_server import ScriptedServer

COUNT = TokenCounter.for_model("unknown").usage

# Of a server that each test scripts; of the scripted model, which has no server; of a tiny model that says what it can.
OVER_HTTP = ("openai", "openai-whole", "litellm", "observed", "recording", "replicas")
SCRIPTED = (*OVER_HTTP, "replay", "scripted-model")
TINY = ("llamacpp", "measured", "llamacpp-http")


@dataclass
class Subject:
    """A backend under test.

    ``script`` sets its next reply as a step of tests/servers/openai_server.py; a tiny model has none. ``generated``
    counts the tokens that a tiny model's server has generated so far.
    """

    kind: str
    backend: Backend
    model: str
    script: Callable[[dict[str, Any]], None] = lambda step: None
    server: ScriptedServer | None = None
    generated: Callable[[], int] | None = None
    scripts: dict[str, str] = field(default_factory=dict)

    @property
    def tiny(self) -> bool:
        return self.kind in TINY


class Replayed:
    """Records each call and at once replays it: what a caller gets went through a cassette."""

    provider = "scripted"
    in_process = False

    def __init__(self, inner: Backend, path: Path) -> None:
        self._inner = inner
        self._path = path

    async def complete(self, model: str, request: Request, tell: Callable[[Delta], None] | None = None) -> Completion:
        path = self._path.with_name(f"{id(request)}.jsonl")
        with contextlib.suppress(BackendError):
            await RecordingBackend(self._inner, Cassette(path), rung="r").complete(model, request)
        return await ReplayBackend(Cassette(path), rung="r").complete(model, request, tell)

    async def probe(self) -> Probe:
        return await ReplayBackend(Cassette(self._path), rung="r").probe()

    async def aclose(self) -> None:
        await self._inner.aclose()


def over_http(kind: str, server: ScriptedServer, folder: Path) -> Subject:
    """A backend that speaks to the scripted server."""

    def script(step: dict[str, Any]) -> None:
        server.script({"*": [step]})

    backend: Backend = OpenAIBackend(server.url, COUNT, stream=kind != "openai-whole", retries=0)
    if kind == "litellm":
        backend = LiteLLMBackend("openai/m", COUNT, base_url=server.url, options={"api_key": "none"})
    elif kind == "observed":
        backend = ObservedBackend(backend, ServerMetrics(server.url))
    elif kind == "replicas":
        backend = ReplicatedBackend([Replica(server.url, backend, ServerMetrics(server.url))], retries=0)
    elif kind == "recording":
        backend = RecordingBackend(backend, Cassette(folder / "recording.jsonl"))
    return Subject(kind, backend, "openai/m" if kind == "litellm" else "m", script, server)


def without_server(kind: str, folder: Path) -> Subject:
    """The scripted model, and what a cassette replays of it."""
    step: dict[str, Any] = {}

    def answer(_: Request) -> ScriptedReply:
        return reply_of(step)

    def script(given: dict[str, Any]) -> None:
        step.clear()
        step.update(given)

    model = ScriptedModel(answer)
    return Subject(kind, Replayed(model, folder / "replay.jsonl") if kind == "replay" else model, "scripted", script)


def tiny(kind: str, address: str, patient: Path) -> Subject:
    """A tiny model of llama.cpp: in this process, measured, or behind its own server."""
    if kind == "llamacpp-http":
        return Subject(
            kind, OpenAIBackend(f"{address}/v1", COUNT), "large", generated=lambda: tokens_predicted(address)
        )
    inner = LlamaCppBackend(patient, context=8192)

    def generated() -> int:
        server = inner._load()
        return tokens_predicted(server.address, server._key)

    backend: Backend = inner if kind == "llamacpp" else MeasuredBackend(inner, SharedMeter(()))
    return Subject(kind, backend, "large", generated=generated)


def reply_of(step: dict[str, Any]) -> ScriptedReply:
    """A step of the scripted server as a reply of the scripted model."""
    if "status" in step:
        return ScriptedReply(_failure(step))
    usage = step.get("usage")
    content = json.dumps(step["json"]) if "json" in step else step.get("text", "")
    calls = [
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in step.get("tool_calls", ())
    ]
    return ScriptedReply(
        calls or content,
        usage and TokenUsage(usage["prompt_tokens"], usage["completion_tokens"], source="provider"),
        tuple(step["logprobs"]) if "logprobs" in step else None,
        asyncio.Event() if "gate" in step else None,
    )


def _failure(step: dict[str, Any]) -> BackendError:
    text = str(step.get("error", "scripted"))
    if step["status"] in (429, 503):
        return BackendUnavailable(text)
    if step["status"] >= 500:
        return BackendError(text)
    return ContextOverflow(text) if "context" in text else RequestRejected(text)


def tokens_predicted(address: str, key: str = "") -> int:
    """How many tokens a llama.cpp server has generated, by its own counter."""
    request = urllib.request.Request(f"{address}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        found = re.search(r"^llamacpp:tokens_predicted_total (\d+)", reply.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


LARGE = RUNGS / "large.gguf"
