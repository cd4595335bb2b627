"""``agentflow energy probe``: what this machine's counters say for some seconds, and what keeps the others silent."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from agentflow.energy.interval import Energy, format_joules
from agentflow.energy.probes import Absent, Sampler, Survey, Window, survey, total
from agentflow.energy.probes.polled import CrossCheck, cross_checks
from agentflow.energy.probes.rapl import POWERCAP


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement of this machine: each counter's window, what is absent, and the sum."""

    survey: Survey
    windows: tuple[Window, ...]

    @property
    def total(self) -> Energy | None:
        """The machine's joules; None when a part of them is not known."""
        return total(self.windows)


@click.command("probe")
@click.option(
    "--seconds",
    type=click.FloatRange(0.2, 86_400.0),
    default=5.0,
    show_default=True,
    help="How long to measure. Boards need at least 1, better 10.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--powercap",
    type=click.Path(path_type=Path),
    default=POWERCAP,
    show_default=True,
    help="Where RAPL's files are; in a container, where the host's are mounted.",
)
def command(seconds: float, as_json: bool, powercap: Path) -> None:
    """Measure this machine for some seconds, and say what can be measured here.

    Every probe is listed: what it counted, or why it cannot be read and what to do. Leave the machine alone meanwhile
    to learn its idle power, or run your work beside it to learn what that draws.
    """
    if math.isnan(seconds):
        raise click.BadParameter("nan is not a number of seconds.", param_hint="--seconds")
    if not as_json:
        click.echo(f"Measuring for {seconds:g} s ...", err=True)
    measurement = measure(seconds, powercap)
    if as_json:
        click.echo(json.dumps(as_record(measurement), indent=2))
        return
    click.echo("\n".join(for_people(measurement)))


def measure(seconds: float, powercap: Path = POWERCAP) -> Measurement:
    """Look at every counter of this machine for so long."""
    found = survey(powercap)
    with Sampler(found.counters, period_s=min(1.0, seconds / 2)) as sampler:
        mark = sampler.mark()
        threading.Event().wait(seconds)
        return Measurement(found, sampler.since(mark))


def for_people(measurement: Measurement) -> list[str]:
    """The measurement as lines that fit a terminal."""
    lines = [f"{measurement.survey.served_by[0].upper()}{measurement.survey.served_by[1:]}."]
    for window in measurement.windows:
        lines += ["", *_window_lines(window)]
    lines += [line for check in cross_checks(measurement.windows) for line in ("", _check_line(check))]
    whole = measurement.total
    idle = ", idle power left out" if any(w.facts.provenance == "modelled" for w in measurement.windows) else ""
    lines += ["", f"Together{idle}: {whole if whole is not None else 'not known, since a part of it is not'}"]
    if measurement.survey.absent:
        lines += ["", "Not readable here:"]
        lines += [line for absent in measurement.survey.absent for line in _absent_lines(absent)]
    return lines


def as_record(measurement: Measurement) -> dict[str, object]:
    """The measurement as JSON."""
    return {
        "served_by": measurement.survey.served_by,
        "probes": [_window_record(window) for window in measurement.windows],
        "cross_checks": [
            {"counter": check.counter, "difference": check.difference, "agrees": check.agrees}
            for check in cross_checks(measurement.windows)
        ],
        "absent": [
            {"probe": one.probe, "reason": one.reason, "why": one.why, "remedy": one.remedy}
            for one in measurement.survey.absent
        ],
        "total": _joules(measurement.total),
    }


def _window_record(window: Window) -> dict[str, object]:
    least = window.least_watts if window.facts.provenance == "measured" else None
    split = None if least is None else window.less_idle(least)
    above, idle = (None, None) if split is None else split
    return window.as_record() | {
        "joules": _joules(window.energy()),
        "idle_microjoules": idle,
        "above_idle_microjoules": above,
    }


def _window_lines(window: Window) -> list[str]:
    facts, energy = window.facts, window.energy()
    head = click.style(facts.name, bold=True) + ("" if facts.counted else " (beside or inside another; not added)")
    if energy is None or window.watts is None:
        return [f"{head}: no figure", f"  {window.detail}"]
    ends = f"{format_joules(energy.low)} to {format_joules(energy.high)}, {energy.provenance}"
    return [
        f"{head}: {format_joules(energy.mean)} in {window.seconds:.3g} s",
        f"  {window.watts:.3g} W on average; {ends}",
        f"  idle: {_idle(window)}",
        f"  covers {facts.covers}",
        f"  {facts.why}",
    ]


def _check_line(check: CrossCheck) -> str:
    verdict = "they agree" if check.agrees else "over 5 %: measure longer; if it stays, one of them is wrong"
    return f"{check.counter}: its polled power says {check.difference:+.1%} ({verdict})"


def _idle(window: Window) -> str:
    if window.facts.provenance == "modelled":
        return "not known: only busy seconds are counted"
    if window.least_watts is None:
        return "not known: that takes a few seconds more"
    above, idle = window.less_idle(window.least_watts) or (0, 0)
    parts = f"{format_joules(idle / 1e6)} of it, {format_joules(above / 1e6)} above"
    return f"at most {window.least_watts:.3g} W, the least of any second: {parts}"


def _absent_lines(absent: Absent) -> Sequence[str]:
    return [f"  {absent.probe}: {absent.why}", *([f"    {absent.remedy}"] if absent.remedy else [])]


def _joules(energy: Energy | None) -> dict[str, object] | None:
    if energy is None:
        return None
    return {
        "low": energy.low,
        "mean": energy.mean,
        "high": energy.high,
        "provenance": energy.provenance,
        "scope": energy.scope,
        "assumed": list(energy.assumed),
    }
