"""``agentflow energy explain``: where a call's joules come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from agentflow.config import load_settings
from agentflow.energy.estimate import CallFacts, Deployment, EnergyProfile, profile_of
from agentflow.energy.explain import Line, explain, figure
from agentflow.energy.interval import format_joules
from agentflow.energy.profiles import CpuProfile, profile_for
from agentflow.errors import UsageError
from agentflow.jobs.runs import RunFolder, RunStore
from agentflow.messages import Timings, TokenUsage
from agentflow.research.report import AttemptEnergy, AttemptLine, Report


@click.command("explain")
@click.argument("call", required=False)
@click.option("--model", help="Exact id of a published model, as meta-llama/Llama-3.1-8B-Instruct.")
@click.option("--active-b", type=float, help="Active parameters in billions, for a model that is not listed.")
@click.option("--total-b", type=float, help="Total parameters in billions.")
@click.option("--precision", help="Of the weights: bf16, fp8, int4, nf4, mxfp4, nvfp4.")
@click.option("--chip", help="The accelerator, as H100. Without one the call is a remote model's.")
@click.option("--gpus", type=click.IntRange(min=1), help="How many of them; the fewest that hold the model.")
@click.option("--engine", help="The server and its version, as vllm-0.11.")
@click.option("--batch", type=click.FloatRange(min=1), help="Sequences decoded together.")
@click.option(
    "--itl", type=click.FloatRange(min=0, min_open=True), help="Milliseconds between two tokens of the reply."
)
@click.option(
    "--input", "input_tokens", type=click.IntRange(min=0), default=0, help="Prompt tokens, cached ones included."
)
@click.option("--cached", type=click.IntRange(min=0), default=0, help="Prompt tokens read from a cache.")
@click.option("--output", "output_tokens", type=click.IntRange(min=0), default=0, help="Reply tokens.")
@click.option("--scope", type=click.Choice(["board", "server", "facility"]), default="facility", show_default=True)
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file instead of ./agentflow.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(call: str | None, config: Path | None, as_json: bool, **facts: Any) -> None:
    """Print how the joules of CALL were found, line by line, for a pocket calculator.

    CALL is a run (its folder, its job's id, or 'latest') and the number of a call in it, as latest:3; a run alone lists
    its calls. Without CALL, the options describe one:

    agentflow energy explain --model meta-llama/Llama-3.1-8B-Instruct --chip H100 --batch 64 --input 500 --output 300
    """
    if call is None:
        profile, told = _described(**facts)
        _print(explain(profile, told), as_json=as_json)
        return
    folder, number = _named(call, config)
    report = folder.report()
    if number is None:
        _list(report, as_json=as_json)
        return
    attempts = report.meter.attempts
    if not 1 <= number <= len(attempts):
        raise UsageError(f"Run {report.job} has calls 1 to {len(attempts)}, not {number}. Name one of them.")
    lines, note = _of_run(attempts[number - 1], config)
    _print(lines, note, as_json=as_json)


def _described(
    *, model: str | None, active_b: float | None, total_b: float | None, precision: str | None, chip: str | None,
    gpus: int | None, engine: str | None, batch: float | None, itl: float | None, input_tokens: int, cached: int,
    output_tokens: int, scope: Any,
) -> tuple[EnergyProfile, CallFacts]:  # fmt: skip
    if input_tokens + output_tokens == 0:
        raise UsageError("Nothing to explain. Name a CALL, as latest:1, or give --input and --output tokens.")
    deployment = Deployment(
        model=model, active_b=active_b, total_b=total_b, precision=precision, chip=chip, gpus=gpus, engine=engine
    )
    usage = TokenUsage(input=input_tokens, output=output_tokens, cached_input=cached)
    facts = CallFacts(usage, batch=batch, itl_s=None if itl is None else itl / 1e3)
    return profile_of(deployment, scope=scope), facts


def _named(call: str, config: Path | None) -> tuple[RunFolder, int | None]:
    name, _, number = call.rpartition(":")
    if not (name and number.isdecimal()):
        name, number = call, ""
    return RunStore(load_settings(config).stores.runs).find(name), int(number) if number else None


def _list(report: Report, *, as_json: bool) -> None:
    attempts = report.meter.attempts
    if as_json:
        click.echo(json.dumps([attempt.model_dump(mode="json") for attempt in attempts], indent=2))
        return
    for number, attempt in enumerate(attempts, 1):
        click.echo(f"{number:3}  {attempt.call} ({attempt.rung}): {format_joules(attempt.joules)}")
    total = report.meter.total.joules
    click.echo(f"all calls: {figure(total.mean)} J ({figure(total.low)} to {figure(total.high)} J, {total.provenance})")
    click.echo(f"One of them, line by line: agentflow energy explain {report.job}:1")


def _of_run(attempt: AttemptLine, config: Path | None) -> tuple[list[Line], str]:
    """The derivation of a call of a run, and whether it gives what the run stored."""
    kept = attempt.energy
    if kept is None:
        raise UsageError(
            f"Call {attempt.call} kept no figures to derive its joules from: its report is an older one's."
        )
    profile, facts = _profile(attempt, config), _facts(kept, attempt.seconds)
    lines = explain(profile, facts)
    stored = f"{figure(kept.mean)} J ({figure(kept.low)} to {figure(kept.high)} J, {kept.provenance}, {kept.scope})"
    if abs(profile.estimate(facts).mean - kept.mean) <= 1e-4 * kept.mean:
        return lines, f"stored by the run: {stored}"
    return lines, f"stored by the run: {stored}. That differs: the configuration or the constants changed since"


def _profile(attempt: AttemptLine, config: Path | None) -> EnergyProfile:
    if attempt.kind == "code":
        return CpuProfile()
    model = load_settings(config).models.get(attempt.rung)
    if model is None:
        raise UsageError(
            f"Call {attempt.call} ran on '{attempt.rung}', which the configuration no longer has: "
            "name the one it ran with by --config."
        )
    return profile_for(
        model.energy,
        model=attempt.rung,
        in_process=model.backend == "llamacpp",
        threads=model.threads,
        served=model.model or attempt.rung,
    )


def _facts(kept: AttemptEnergy, seconds: float) -> CallFacts:
    usage = TokenUsage(kept.input_tokens, kept.output_tokens, kept.cached_input_tokens)
    timings = Timings(total_s=seconds, cpu_s=kept.basis.get("cpu_s"))
    reported = kept.mean if kept.provenance == "reported" else None
    return CallFacts(
        usage, timings, reported, kept.basis.get("batch"), kept.basis.get("token_s"), step_s=kept.basis.get("step_s")
    )


def _print(lines: Sequence[Line], note: str = "", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"lines": [asdict(line) for line in lines], "note": note}, indent=2))
        return
    for line in lines:
        click.echo(str(line))
    if note:
        click.echo(note)
