"""Which model answers, and what it costs: ``python -m benchmarks.cascade [--json] [--quick] [--data FILE] [--no-live]``

Recorded outcomes of nine models on four benchmarks, under two accountings: as recorded (every answer pays for its
signal) and as paid (a signal is paid for where it is read). Half of the questions to fit, the other half to report;
three seeds; nothing is fitted or chosen on a test half. Then a benchmark left out, calibration, the same with joules
in place of dollars, and a real cascade of three tiny models.

Two rows are no policies but bounds: ours fitted on the very half that it is scored on, and what could be had if every
model's reply and signal were seen for nothing before one answer is paid for.

``gap`` is the share of the way from no intelligence (the zero router) to the oracle, by the area under quality against
the logarithm of cost; ``c98`` and ``c100`` the share of the best model's cost at which 98 and 100 % of its quality are
reached; ``latency`` the mean latency at 98 %, over the best model's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.routing_data import Accounting, load
from benchmarks.routing_live import run_live
from benchmarks.routing_tables import NO_BOUNDS, SEEDS, calibration_errors, leave_one_out, policies
from benchmarks.table import Figure, show

DATA = Path(__file__).parents[2] / "shared/data/routing/rational_cascades/outcomes.parquet"
ACCOUNTINGS: tuple[Accounting, ...] = ("recorded", "as_paid")
SHOWN = ("nauc", "nauclog", "gap", "gap_sd", "best", "c95", "c98", "c100", "latency", "p95")
# What is asked of our own decisions: at least this gap, at most these costs and this latency.
TARGETS: Mapping[Accounting, Mapping[str, float]] = {
    "recorded": {"gap": 15.0, "c98": 0.33, "c100": 0.45, "latency": 1.0},
    "as_paid": {"gap": 9.0, "c98": 0.42, "c100": 0.60, "latency": 1.0},
}
LARGE_SHARE = 0.45


def measure(data: Path, *, quick: bool, with_live: bool) -> dict[str, Any]:
    """Every figure, as printed with --json."""
    outcomes = load(data)
    seeds = 1 if quick else SEEDS
    errors, cells = calibration_errors(outcomes)
    found: dict[str, Any] = {
        "policies": {accounting: policies(outcomes, accounting, seeds) for accounting in ACCOUNTINGS},
        "ece": errors,
        "ece_cells": [dict(zip(("benchmark", "model", "n", "raw", "calibrated"), cell, strict=True)) for cell in cells],
        "seeds": seeds,
    }
    every = {accounting: leave_one_out(outcomes, accounting) for accounting in ACCOUNTINGS}
    found["leave_one_out"] = {
        accounting: {benchmark: row["agentflow"] for benchmark, row in rows.items()}
        for accounting, rows in every.items()
    }
    found["leave_one_out_policies"] = every
    if not quick:
        joules = load(data, joules=True)
        found["joules"] = {accounting: policies(joules, accounting, seeds, NO_BOUNDS) for accounting in ACCOUNTINGS}
    if with_live:
        found["live"] = run_live().figures()
    return found


def report(found: Mapping[str, Any]) -> int:
    """Print the tables; the exit code is 1 when a target is missed."""
    for key, unit in (("policies", "dollars"), ("joules", "joules")):
        for accounting, rows in found.get(key, {}).items():
            print(f"{unit}, {accounting.replace('_', ' ')}, mean of {found['seeds']} test halves")
            print("  " + "policy".ljust(22) + "".join(name.rjust(9) for name in SHOWN))
            for name, row in rows.items():
                print("  " + name.ljust(22) + "".join(_short(name, row[name]).rjust(9) for name in SHOWN))
            print()
    print("gap on a benchmark that was left out")
    for accounting, rows in found["leave_one_out_policies"].items():
        for benchmark, row in rows.items():
            figures = "  ".join(f"{name} {gap:5.1f}" for name, gap in row.items())
            print(f"  {accounting.replace('_', ' '):9} {benchmark:12} {figures}")
    print()
    return show("Targets of our own decisions", held_against(found))


def held_against(found: Mapping[str, Any]) -> list[Figure]:
    """Our figures against their targets."""
    shown: list[Figure] = []
    for accounting, targets in TARGETS.items():
        row = found["policies"][accounting]["agentflow"]
        for name, target in targets.items():
            passed = row[name] >= target if name == "gap" else row[name] <= target
            sign = ">=" if name == "gap" else "<="
            shown.append(Figure(f"{accounting} {name}", _short(name, row[name]), f"{sign} {target:g}", passed))
        lowest = min(found["leave_one_out"][accounting].values())
        shown.append(Figure(f"{accounting} lowest gap left out", f"{lowest:.1f}", ">= 0", lowest >= 0))
    errors = found["ece"]
    shown.append(
        Figure(
            "calibration error",
            f"{errors['calibrated']:.3f}",
            f"< {errors['raw']:.3f} raw",
            errors["calibrated"] < errors["raw"],
        )
    )
    return shown + _live(found["live"]) if "live" in found else shown


def _live(live: Mapping[str, float]) -> list[Figure]:
    right, large, share = live["accuracy"], live["large_accuracy"], live["large_share"]
    return [
        Figure("live accuracy", f"{right:.3f}", f">= {large:.3f} of large alone", right >= large),
        Figure("live calls that ask large", f"{share:.3f}", f"<= {LARGE_SHARE}", share <= LARGE_SHARE),
        Figure("live joules", f"{live['joules']:.1f} J", f"{live['large_joules']:.1f} J of large alone"),
        Figure("live joules saved", f"{live['joules_saved']:.0%}"),
        Figure("live seconds", f"{live['seconds']:.2f} s", f"{live['large_seconds']:.2f} s of large alone"),
        Figure("live seconds saved", f"{live['seconds_saved']:.0%}"),
    ]


def _short(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if name.startswith("gap") else f"{value:.4f}" if name.startswith("nauc") else f"{value:.3f}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="one seed, and no joules")
    parser.add_argument("--data", type=Path, default=DATA, help="a parquet file of outcomes with the same columns")
    parser.add_argument("--no-live", action="store_true", help="leave the real cascade out")
    given = parser.parse_args()
    if not given.data.is_file():
        print(f"There is no {given.data}: name a file of outcomes with --data.", file=sys.stderr)
        return 2
    found = measure(given.data, quick=given.quick, with_live=not given.no_live)
    if given.json:
        print(json.dumps(found, indent=2))
        return int(any(figure.passed is False for figure in held_against(found)))
    return report(found)


if __name__ == "__main__":
    sys.exit(main())
