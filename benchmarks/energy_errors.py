"""How wide an interval must be to hold nine in ten measured runs, and how well constants carry to what they never saw.

Families of models are the unit, not runs: the runs of one model err together. Splits are by family, and a calibration
takes each family's errors from constants that were fitted without it. Needs numpy and scipy.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agentflow.energy.constants import TIERS, Fitted, Tier
from benchmarks.energy_fit import fit
from benchmarks.energy_rows import Row, families
from benchmarks.energy_scores import FLOOR, Error, Score, errors

# Calibrated this high, intervals of unseen families hold the ninety percent they state: families differ.
_CALIBRATED_AT = 0.95
# Any engine that is not an old one.
_FITTED_ENGINE = "vllm-0.11"
_NO_WIDTHS: Mapping[Tier, float] = dict.fromkeys(TIERS, 1.0)


def fitted_on(rows: Sequence[Row], widths: Mapping[Tier, float] = _NO_WIDTHS) -> Fitted:
    """Constants of some rows, with these widths."""
    chips = frozenset(row.chip.name for row in rows)
    return Fitted(fit(rows), chips, widths, widths, FLOOR, "a benchmark's split")


def calibrated(rows: Sequence[Row]) -> Fitted:
    """Constants of some rows, with intervals as wide as their families' errors ask for when each is left out."""
    left_out = one_family_out(rows)
    return fitted_on(rows, {tier: quantile(found, _CALIBRATED_AT) for tier, found in left_out.items()})


def one_family_out(rows: Sequence[Row]) -> dict[Tier, list[Error]]:
    """Every row's errors under constants of all families but its own."""
    found: dict[Tier, list[Error]] = {tier: [] for tier in TIERS}
    for family in families(rows):
        without = fitted_on([row for row in rows if row.family != family])
        for tier in TIERS:
            found[tier] += errors([row for row in rows if row.family == family], without, tier)
    return found


def quantile(found: Sequence[Error], level: float) -> float:
    """The scaled error that this share lies below, every family weighing the same."""
    counts = Counter(error.row.family for error in found)
    reached = 0.0
    for error in sorted(found, key=lambda e: e.scaled):
        reached += 1.0 / counts[error.row.family] / len(counts)
        if reached >= level:
            return error.scaled
    return max(error.scaled for error in found)


def halves(rows: Sequence[Row], splits: int, seed: int) -> list[tuple[list[Row], list[Row]]]:
    """Train and test rows, split by family; of current and of old engines, half of the families each."""
    chance = random.Random(seed)
    current, old = families(r for r in rows if r.current), families(r for r in rows if not r.current)
    found: list[tuple[list[Row], list[Row]]] = []
    for _ in range(splits):
        train = set(chance.sample(current, len(current) // 2)) | set(chance.sample(old, len(old) // 2))
        found.append(([r for r in rows if r.family in train], [r for r in rows if r.family not in train]))
    return found


def held_out(
    rows: Sequence[Row], splits: int, seed: int, told: Callable[[Row], Row] = lambda row: row
) -> dict[Tier, list[Score]]:
    """Scores of each split's test half, under constants and widths of its other half.

    ``told`` is what the estimate is told of a run that is judged: less, for one, than is known of it.
    """
    scores: dict[Tier, list[Score]] = {tier: [] for tier in TIERS}
    for train, test in halves(rows, splits, seed):
        fitted = calibrated(train)
        for tier in TIERS:
            scores[tier].append(Score.of(errors([told(row) for row in test], fitted, tier)))
    return scores


def same_engine(fitted: Fitted) -> Fitted:
    """The same constants, every engine taken for the one that they were fitted on."""
    return replace(fitted, constants=replace(fitted.constants, old_engine=1.0))


def transferred(train: Sequence[Row], test: Sequence[Row]) -> dict[Tier, Score]:
    """Scores on one chip of constants fitted on another: its data sheet is all that is known of it."""
    fitted = same_engine(calibrated(train))
    known = [replace(row, engine=_FITTED_ENGINE) for row in test]
    return {tier: Score.of(errors(known, fitted, tier)) for tier in TIERS}


def widths_between(chips: Sequence[Sequence[Row]]) -> dict[Tier, float]:
    """How wide intervals must be to hold on a chip whose runs the constants were not fitted on: the worst of all pairs.

    The engine is taken for an unknown one, as it is for whoever has only the other chip's runs.
    """
    widths: dict[Tier, float] = dict.fromkeys(TIERS, 0.0)
    for train in chips:
        fitted = fitted_on(train)
        for test in chips:
            if test is not train:
                strangers = [replace(row, engine="") for row in test]
                for tier in TIERS:
                    widths[tier] = max(widths[tier], quantile(errors(strangers, fitted, tier), _CALIBRATED_AT))
    return widths
