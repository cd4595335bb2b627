"""``agentflow models``: the configured rungs, what they cost, and whether they answer. Next: ``model_prices``."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from agentflow.backends.base import Probe
from agentflow.budget.price import Price, in_dollars
from agentflow.cli.model_prices import priced_models, show_prices
from agentflow.config import Settings, load_settings
from agentflow.energy.estimate import CallFacts
from agentflow.energy.interval import format_joules
from agentflow.errors import AgentflowError, UsageError
from agentflow.messages import Timings, TokenUsage
from agentflow.runtime import Runtime

# The call that energy is quoted for.
_EXAMPLE = CallFacts(TokenUsage(input=1_000, output=500), Timings(total_s=10.0, cpu_s=10.0))


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One rung. Prices are dollars per million tokens; joules are of 1,000 tokens in and 500 out."""

    name: str
    backend: str
    model: str
    cascades: tuple[str, ...]
    input: str
    output: str
    price_source: str
    joules_low: float | None
    joules_mean: float | None
    joules_high: float | None
    reachable: bool
    round_trip_ms: float | None
    detail: str


@click.command("models")
@click.argument("names", nargs=-1)
@click.option("--prices", is_flag=True, help="What each model costs, which source says so, and where sources disagree.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(names: tuple[str, ...], prices: bool, config: Path | None, as_json: bool) -> None:
    """List the configured models: price, energy, latency, whether each can be reached.

    Joules are of a call with 1,000 tokens in and 500 out (10 CPU seconds for a model in this process).

    With --prices nothing is contacted; NAMES may be configured models, or ids as gpt-4o and groq/openai/gpt-oss-120b.
    """
    settings = load_settings(config)
    if prices:
        show_prices(priced_models(settings, names), as_json=as_json)
        return
    if names:
        raise UsageError(f"Names are for prices, got {', '.join(names)}: agentflow models --prices {' '.join(names)}")
    lines = asyncio.run(_lines(settings))
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=2))
        return
    if not lines:
        click.echo(
            "No models are configured: jobs run on code rungs alone, at $0. See agentflow doctor for an example."
        )
        return
    for line in lines:
        click.echo(_for_people(line))


def _for_people(line: ModelLine) -> str:
    """A model in three lines that fit any terminal."""
    reach = "reachable" if line.reachable else "NOT reachable"
    price = f"${line.input} in, ${line.output} out per million tokens ({line.price_source})"
    joules = "joules unknown"
    if line.joules_mean is not None and line.joules_low is not None and line.joules_high is not None:
        ends = f"{format_joules(line.joules_low)} to {format_joules(line.joules_high)}"
        joules = f"{format_joules(line.joules_mean)} ({ends}) a call of 1,000 in and 500 out"
    latency = "" if line.round_trip_ms is None else f", round trip {line.round_trip_ms:.0f} ms"
    head = f"{click.style(line.name, bold=True)}  {line.model} ({line.backend})"
    return f"{head}\n  {reach}: {line.detail}{latency}\n  {price}\n  {joules}"


async def _lines(settings: Settings) -> list[ModelLine]:
    runtime = Runtime(settings)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_line(runtime, name)) for name in settings.models]
        return [task.result() for task in tasks]
    finally:
        await runtime.aclose()


async def _line(runtime: Runtime, name: str) -> ModelLine:
    facts = runtime.settings.models[name]
    cascades = tuple(c for c, chosen in runtime.settings.cascades.items() if name in chosen.rungs) or ("default",)
    try:
        rung = runtime.rung(name)
    except AgentflowError as error:
        model = facts.model or name
        return ModelLine(
            name, facts.backend, model, cascades, "?", "?", "unknown", None, None, None, False, None, str(error)
        )
    probe: Probe = await rung.backend.probe()
    energy = rung.profile.estimate(_EXAMPLE)
    return ModelLine(
        name,
        facts.backend,
        rung.model,
        cascades,
        _dollars("input", rung.price),
        _dollars("output", rung.price),
        rung.price.source,
        energy.low,
        energy.mean,
        energy.high,
        probe.reachable,
        None if probe.round_trip_s is None else round(probe.round_trip_s * 1000, 1),
        probe.detail,
    )


def _dollars(unit: str, price: Price) -> str:
    rate = price.rates.stated().get(unit)
    return "?" if rate is None else f"{in_dollars(unit, rate).normalize():f}"
