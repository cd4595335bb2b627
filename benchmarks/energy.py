"""Joules against measured runs: ``python -m benchmarks.energy [--json] [--data FILE] [--write CONSTANTS]``

Without FILE: the measured H100 and A100 runs, split by model family; constants fitted on half of the families, judged
on the other half, averaged over splits. With FILE: the constants that the package ships, on runs that they were never
fitted on. Boards alone; text alone. ``--write`` fits all runs and writes the package's constants.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentflow.energy.constants import TIERS, Tier, shipped
from agentflow.energy.roofline import Constants
from benchmarks.ecologits_peer import peer
from benchmarks.energy_rows import MEASURED, Row, Rows, by_size_alone, read_rows
from benchmarks.energy_scores import FLOOR, Error, Score, errors
from benchmarks.table import Figure, show

SPLITS, SEED = 30, 2026
# Accepted: error at most, share within a factor of two at least; intervals hold 88 to 96 %.
LIMITS: Mapping[Tier, tuple[float, float]] = {
    "batch+latency": (0.06, 0.99), "batch": (0.09, 0.95), "latency": (0.15, 0.80), "tokens": (0.30, 0.0),
}  # fmt: skip
_COVERAGE = (0.88, 0.96)
_BATCH1_AT_LEAST = 10.0
_BATCHES = (1, 12, 24, 48, 96, 192, 384, 4096)
_NOTE = (
    "value: fitted on all runs. half_fits: lowest and highest over fits on half of the model families. They trade off "
    "against each other: effective values, not physics"
)
_WIDTHS_NOTE = (
    "spreads either side that hold 90 %, by what is known: families left out one by one, weighing the same, at .95; "
    "unfitted: the widest between chips, for one that was not measured"
)
_UNITS = {
    "old_engine": "times",
    "s_per_layer": "s",
    "s_per_sequence": "s",
    "byte_power": "TDP / (B/s)",
    "flop_power": "TDP / (FLOP/s)",
}


@dataclass
class Result:
    """Everything that was found, as printed with --json."""

    rows: str
    peer: str
    cases: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    transfer: dict[str, float | None] = field(default_factory=dict[str, "float | None"])
    batch1_error_ratio_vs_ecologits: float | None = None
    fitted_constants: int = len(fields(Constants))
    all_text: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    by_chip: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict[str, dict[str, dict[str, float]]])
    transfer_by_case: dict[str, dict[str, dict[str, float]]] = field(
        default_factory=dict[str, dict[str, dict[str, float]]]
    )
    by_size_alone: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    by_batch: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    batch1: dict[str, float] = field(default_factory=dict[str, float])
    constants: dict[str, float] = field(default_factory=dict[str, float])
    notes: list[str] = field(default_factory=list[str])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--data", type=Path, help="a CSV of measured runs; its columns are those of the default one")
    parser.add_argument("--write", type=Path, metavar="CONSTANTS", help="fit all runs, and write the constants there")
    asked = parser.parse_args()
    read = read_rows(asked.data or MEASURED)
    refit = asked.data is None or (bool(read.rows) and _keys(read) <= _keys(read_rows(MEASURED)))
    if (refit or asked.write) and importlib.util.find_spec("scipy") is None:
        print("fitting needs scipy: pip install 'agentflow[bench]'")
        return 2
    if not read.rows:
        return _nothing(asked.data or MEASURED, read, as_json=asked.json)
    if asked.write:
        return write(asked.write, read, asked.data or MEASURED)
    result = cross_validated(read) if refit else judged(read)
    if asked.json:
        print(json.dumps(asdict(result), indent=2))
        return 0
    title = f"joules per output token, boards alone, beside {result.peer}: {result.rows}"
    return show(title, figures(result, judge=refit), result.notes)


def _keys(read: Rows) -> set[tuple[object, ...]]:
    return {row.key for row in read.rows}


def _nothing(path: Path, read: Rows, *, as_json: bool) -> int:
    """Say that a file holds no run that can be judged, and why."""
    result = Result(f"no run could be read of {path.name}", peer()[0], notes=read.notes)
    print(json.dumps(asdict(result), indent=2) if as_json else "\n  ".join([result.rows, *result.notes]))
    return 2


def cross_validated(read: Rows) -> Result:
    """Half of the model families against the other half, and one chip against the other."""
    from benchmarks.energy_errors import held_out, one_family_out, transferred

    name, eco = peer()
    h100, a100 = (_of_chip(read.rows, chip) for chip in ("H100", "A100"))
    first = h100 or a100
    result = Result(f"{len(first)} text runs on {'H100' if h100 else 'A100'}, model families held out", name)
    result.notes = [*read.notes, f"half of the model families fitted, the other half judged; mean of {SPLITS} splits"]

    def cases(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
        theirs = _peer_on_halves(rows, eco)
        return {
            tier: _figures(Score.mean(found)) | theirs | {"worst_split_coverage90": min(s.coverage90 for s in found)}
            for tier, found in held_out(rows, SPLITS, SEED).items()
        }

    result.cases = cases(first)
    result.by_size_alone = {
        tier: _figures(Score.mean(found)) for tier, found in held_out(first, SPLITS, SEED, told=by_size_alone).items()
    }
    result.by_batch = _by_batch(one_family_out(first), eco)
    if h100 and a100:
        result.all_text = cases(read.rows)
        directions = {"a100_to_h100": transferred(a100, h100), "h100_to_a100": transferred(h100, a100)}
        result.transfer = {name: scores["batch"].mdale for name, scores in directions.items()}
        result.transfer_by_case = {
            name: {tier: _figures(score) for tier, score in scores.items()} for name, scores in directions.items()
        }
        result.notes.append("transfer: batch known; engines of both chips taken for the same")
        _single_requests(result, h100, a100, eco)
    result.constants = asdict(shipped().constants)
    result.notes.append(f"constants shipped: {shipped().source}")
    return result


def judged(read: Rows) -> Result:
    """The shipped constants on runs that they were never fitted on."""

    name, eco = peer()
    fitted_on = _keys(read_rows(MEASURED))
    rows = [row for row in read.rows if row.key not in fitted_on]
    result = Result(f"{len(rows)} runs that the shipped constants were not fitted on", name)
    result.notes = list(read.notes)
    if len(rows) < len(read.rows):
        result.notes.append(f"{len(read.rows) - len(rows)} rows left out: the constants were fitted on them")
    guessed = sum(row.shape.guessed for row in rows)
    if guessed:
        result.notes.append(f"{guessed} rows of models that are not listed: shape guessed from their size")

    def cases(of: Sequence[Row]) -> dict[str, dict[str, float]]:
        theirs = _peer_mdale(of, eco)
        scores = {tier: Score.of(errors(of, shipped(), tier)) for tier in TIERS}
        return {tier: _figures(score) | {"ecologits_mdale": theirs} for tier, score in scores.items()}

    result.cases = cases(rows)
    result.by_chip = {
        chip: cases([r for r in rows if r.chip.name == chip]) for chip in sorted({r.chip.name for r in rows})
    }
    result.transfer = {"a100_to_h100": None, "h100_to_a100": None}
    result.constants = asdict(shipped().constants)
    result.notes.append(f"constants: {shipped().source}")
    return result


def _by_batch(left_out: Mapping[Tier, Sequence[Error]], eco: Callable[[Row], float]) -> dict[str, dict[str, float]]:
    """Median error by batch, each family left out of the fit in turn."""
    found: dict[str, dict[str, float]] = {}
    for low, high in pairwise(_BATCHES):
        within = {tier: [e for e in all_ if low <= e.row.batch < high] for tier, all_ in left_out.items()}
        rows = [error.row for error in within["batch"]]
        if rows:
            ours = {tier: round(Score.of(some).mdale, 4) for tier, some in within.items()}
            found[f"{low:g} to {high:g}"] = {"rows": len(rows), **ours, "ecologits": _peer_mdale(rows, eco)}
    return found


def _single_requests(result: Result, h100: Sequence[Row], a100: Sequence[Row], eco: Callable[[Row], float]) -> None:
    """One request alone on A100s, by constants that saw H100 runs alone: how many times off, and EcoLogits."""
    from benchmarks.energy_errors import fitted_on, same_engine

    alone = [row for row in a100 if row.batch < 1.5]
    if not alone:
        return
    ours = math.exp(statistics.median(abs(e.log) for e in errors(alone, same_engine(fitted_on(h100)), "batch")))
    theirs = 10 ** _peer_mdale(alone, eco)
    result.batch1 = {"rows": len(alone), "times_off": ours, "ecologits_times_off": theirs}
    result.batch1_error_ratio_vs_ecologits = theirs / ours


def write(path: Path, read: Rows, data: Path) -> int:
    """Fit every run, and write the constants with their ranges, widths, date and command."""
    from benchmarks.energy_errors import calibrated, halves, widths_between
    from benchmarks.energy_fit import fit

    fitted = calibrated(read.rows)
    parts = [fit(train) for train, _ in halves(read.rows, SPLITS, SEED)]
    constants = {
        f.name: {
            "value": _short(getattr(fitted.constants, f.name)),
            "half_fits": [_short(end(getattr(part, f.name) for part in parts)) for end in (min, max)],
            "unit": _UNITS.get(f.name, "share"),
        }
        for f in fields(Constants)
    }
    chips = [_of_chip(read.rows, chip) for chip in ("H100", "A100")]
    between = widths_between([rows for rows in chips if rows])
    table = {
        "note": _NOTE,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "rows": len(read.rows),
        "data": "text runs on H100 and A100: ML.ENERGY leaderboards v3 and v2, splitwise-sim"
        if data == MEASURED
        else data.name,
        "command": "python -m benchmarks.energy --write agentflow/energy/data/constants.json",
        "chips": sorted(fitted.chips),
        "engines": "current: vLLM 0.11 (2025); old: vLLM of 2023 and 0.5 (2024)",
        "constants": constants,
        "intervals": {
            "note": _WIDTHS_NOTE,
            "floor": FLOOR,
            "widths": {tier: _short(fitted.widths[tier]) for tier in TIERS},
            "unfitted": {tier: _short(max(between[tier], fitted.widths[tier])) for tier in TIERS},
        },
    }
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"{path}: {len(constants)} constants of {len(read.rows)} runs")
    return 0


def figures(result: Result, *, judge: bool) -> list[Figure]:
    """The result as a table; ``judge`` holds the first cases against what is accepted."""
    found: list[Figure] = []
    for title, cases, limits in (
        ("", result.cases, judge),
        ("all text runs, ", result.all_text, False),
        ("model known by its size alone, ", result.by_size_alone, False),
        *((f"{chip}, ", cases, False) for chip, cases in result.by_chip.items()),
        *((f"{name}, ", cases, False) for name, cases in result.transfer_by_case.items()),
    ):
        for tier, case in cases.items():
            found += _case(f"{title}{tier}", case, LIMITS[_tier(tier)] if limits else None)
    for batches, case in result.by_batch.items():
        said = f"{case['batch']:.3f} batch known, {case['tokens']:.3f} tokens alone, EcoLogits {case['ecologits']:.3f}"
        found.append(Figure(f"batch {batches} ({case['rows']:.0f} runs)", said))
    if result.batch1_error_ratio_vs_ecologits is not None:
        b = result.batch1
        said = f"{b['times_off']:.2f}x off, EcoLogits {b['ecologits_times_off']:.1f}x off"
        passed = result.batch1_error_ratio_vs_ecologits >= _BATCH1_AT_LEAST
        found.append(Figure(f"one request alone on A100 ({b['rows']:.0f} runs)", said, "a tenth of EcoLogits'", passed))
    found.append(Figure("fitted constants", str(result.fitted_constants), "at most 10", result.fitted_constants <= 10))
    return found


def _case(title: str, case: Mapping[str, float], limits: tuple[float, float] | None) -> list[Figure]:
    low, high = _COVERAGE
    theirs = f", EcoLogits {case['ecologits_mdale']:.3f}" if "ecologits_mdale" in case else ""
    error = f"{case['mdale']:.3f}{theirs}"
    within = f"{case['within2']:.1%} within 2x, {case['within3']:.1%} within 3x"
    held = f"held {case['coverage90']:.1%}"
    if limits is None:
        return [Figure(f"{title}: median |log10|", error), Figure("  shares", within), Figure("  90 % interval", held)]
    most, share = limits
    return [
        Figure(f"{title}: median |log10|", error, f"at most {most}", case["mdale"] <= most),
        Figure("  shares", within, f"at least {share:.0%} within 2x", case["within2"] >= share)
        if share
        else Figure("  shares", within),
        Figure("  90 % interval", held, f"{low:.0%} to {high:.0%}", low <= case["coverage90"] <= high),
    ]


def _tier(name: str) -> Tier:
    return next(tier for tier in TIERS if tier == name)


def _of_chip(rows: Sequence[Row], chip: str) -> list[Row]:
    return [row for row in rows if row.chip.name.startswith(chip)]


def _figures(score: Any) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(score).items()}


def _peer_mdale(rows: Sequence[Row], eco: Callable[[Row], float]) -> float:
    return round(statistics.median(abs(math.log10(eco(row) / row.joules)) for row in rows), 4)


def _peer_on_halves(rows: Sequence[Row], eco: Callable[[Row], float]) -> dict[str, float]:
    """EcoLogits on the same test halves, averaged as ours is."""
    from benchmarks.energy_errors import halves

    return {"ecologits_mdale": statistics.fmean(_peer_mdale(test, eco) for _, test in halves(rows, SPLITS, SEED))}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    raise SystemExit(main())
