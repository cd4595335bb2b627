"""``agentflow doctor``: what is there, what is missing, and how to get it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from agentflow.config import EXAMPLE, Settings, load_settings
from agentflow.errors import AgentflowError, ConfigError
from agentflow.orchestration.library import shipped_agents
from agentflow.runtime import Runtime
from agentflow.tokens import TokenCounter

_EXTRAS = {
    "local": ("xllamacpp", "models inside this process (llama.cpp)"),
    "embeddings": ("sentence_transformers", "embedding models that re-score BM25"),
    "gpu": ("pynvml", "joules of NVIDIA boards, measured"),
    "plots": ("matplotlib", "pictures of joules"),
    "otel": ("opentelemetry.sdk", "sending spans to an OpenTelemetry viewer"),
}
_MALICIOUS = ("1.82.7", "1.82.8")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``ok`` is None when it is optional and missing."""

    what: str
    ok: bool | None
    detail: str


@click.command("doctor")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
@click.option("--example", is_flag=True, help="Print an example agentflow.toml.")
def command(config: Path | None, example: bool) -> int:
    """Say what is missing, and how to get it. Exit code 1 when something needed is."""
    if example:
        click.echo(EXAMPLE, nl=False)
        return 0
    findings = list(_installation())
    try:
        settings = load_settings(config)
        findings.append(
            Finding("configuration", True, f"{len(settings.models)} models, {len(settings.cascades)} cascades")
        )
        findings.extend(_places(settings))
        findings.extend(asyncio.run(_models(settings)))
    except ConfigError as error:
        findings.append(Finding("configuration", False, str(error)))
    for finding in findings:
        mark = {True: "ok     ", False: "MISSING", None: "not set"}[finding.ok]
        click.echo(f"{mark}  {finding.what}: {finding.detail}")
    return 1 if any(finding.ok is False for finding in findings) else 0


def _installation() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), f"{version} (3.11 or later is needed)")
    litellm = importlib.metadata.version("litellm")
    bad = litellm in _MALICIOUS
    yield Finding(
        "litellm",
        not bad,
        f"{litellm}" + (": a malicious upload; remove it and change every key on this machine" if bad else ""),
    )
    exact = TokenCounter.for_model("gpt-4o").exact
    yield Finding(
        "token tables", True if exact else None, "exact for OpenAI models" if exact else "none; counts are estimates"
    )
    yield Finding("sub-agents", True, ", ".join(shipped_agents()))
    for extra, (module, purpose) in _EXTRAS.items():
        there = _importable(module)
        how = "installed" if there else f"missing; for {purpose}: pip install 'agentflow[{extra}]'"
        yield Finding(f"extra {extra}", True if there else None, how)


def _places(settings: Settings) -> Iterator[Finding]:
    runs = settings.stores.runs
    above = next(p for p in (runs, *runs.absolute().parents) if p.exists())
    writable = os.access(above, os.W_OK)
    yield Finding("run folders", writable, f"{runs}" + ("" if writable else " cannot be written; set stores.runs"))
    if not settings.models:
        detail = "none; jobs run on code alone, at $0. agentflow doctor --example prints a configuration with models"
        yield Finding("models", None, detail)
    for name, model in settings.models.items():
        if model.api_key_env and not os.environ.get(model.api_key_env):
            yield Finding(f"key of {name}", False, f"variable {model.api_key_env} is not set; export it")


async def _models(settings: Settings) -> list[Finding]:
    runtime = Runtime(settings)
    findings: list[Finding] = []
    try:
        for name in settings.models:
            try:
                probe = await runtime.rung(name).backend.probe()
                findings.append(Finding(f"model {name}", probe.reachable, probe.detail))
            except AgentflowError as error:
                findings.append(Finding(f"model {name}", False, str(error)))
    finally:
        await runtime.aclose()
    return findings


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
