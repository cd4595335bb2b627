"""Calibration: what a rung's signal is worth at a task, learned from outcomes, kept as JSON that can be read.

Below 400 labels Platt's logistic on the log-odds, from 400 on isotonic regression: the first needs fewer labels, the
second any shape. Until there are enough labels the answer is None, never a made-up probability. May import outcomes
and routing.regression; ``policy`` asks it, ``agentflow cascade calibration`` shows it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentflow.cascade.outcomes import Labelled
from agentflow.cascade.routing.regression import Floats, chance, folds, log_odds, logistic
from agentflow.errors import UsageError

# With fewer labels nothing is said. On MMLU, mean over nine models, the expected calibration error at 50 labels is .064
# (raw .127); at 400 isotonic and Platt cross (.041 and .042).
LEAST: Final = 50
ISOTONIC_FROM: Final = 400
_BINS: Final = 10
_PENALTY: Final = 1.0

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class CalibrationMap(BaseModel):
    """From a signal of one rung at one task to the chance that its reply is good.

    Platt: ``1 / (1 + exp(-(intercept + slope * log_odds(signal))))``. Isotonic: linear between ``knots``, level beyond
    them. ``ece_before`` and ``ece_after`` were found by cross-validation: ``ece_after`` is of maps that did not see
    the labels they are held against.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    rung: str
    task: str
    signal: str = "confidence"
    kind: Literal["platt", "isotonic"]
    n: Annotated[int, Field(ge=1)]
    learned: datetime
    intercept: Number = 0.0
    slope: Number = 1.0
    knots: tuple[tuple[Share, Share], ...] = ()
    ece_before: Share
    ece_after: Share

    def probability(self, signal: float) -> float:
        """The chance that a reply with this signal is good, 0 to 1."""
        if self.kind == "platt":
            return float(chance(np.array(self.intercept) + self.slope * log_odds(np.array(signal))))
        return _between(self.knots, signal)


class CalibrationFile(BaseModel):
    """All maps, as they are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    maps: tuple[CalibrationMap, ...] = ()


class Calibration:
    """Maps by rung and task.

    Args:
        maps: at most one for each rung and task.

    Example:
        >>> calibration = Calibration.learn(labelled(outcomes))             # doctest: +SKIP
        >>> calibration.probability("small", "triage", 0.9)                 # doctest: +SKIP
        0.71
    """

    def __init__(self, maps: Iterable[CalibrationMap] = ()) -> None:
        self._maps = {(of.rung, of.task): of for of in maps}

    @classmethod
    def learn(cls, labels: Iterable[Labelled], now: datetime | None = None) -> Calibration:
        """Maps of every rung and task that has at least ``LEAST`` labels, good ones and bad ones among them."""
        now = now or datetime.now(UTC)
        gathered: defaultdict[tuple[str, str], list[Labelled]] = defaultdict(list)
        for label in labels:
            gathered[label.rung, label.task].append(label)
        return cls(
            _learned(rung, task, found, now)
            for (rung, task), found in sorted(gathered.items())
            if len(found) >= LEAST and 0 < sum(label.good for label in found) < len(found)
        )

    @property
    def maps(self) -> tuple[CalibrationMap, ...]:
        """Every map, by rung and task."""
        return tuple(self._maps[key] for key in sorted(self._maps))

    def probability(self, rung: str, task: str, signal: float) -> float | None:
        """The chance that a reply of this rung with this signal is good; None where too little is known to say."""
        of = self._maps.get((rung, task))
        return None if of is None or not math.isfinite(signal) else of.probability(min(max(signal, 0.0), 1.0))

    def merged(self, newer: Calibration) -> Calibration:
        """These maps, with ``newer`` ones in the place of those of the same rung and task."""
        return Calibration((*self.maps, *newer.maps))

    def to_json(self) -> str:
        """Every map, as ``save`` writes it."""
        return CalibrationFile(maps=self.maps).model_dump_json(indent=2) + "\n"

    def save(self, path: Path) -> None:
        """Write every map, whole or not at all.

        Raises:
            UsageError: the file cannot be written.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(path.name + ".lock")):
                partial.write_text(self.to_json(), "utf-8")
                partial.replace(path)
        except OSError as error:
            raise UsageError(f"Calibration cannot be written to {path}: {error.strerror}. Check the folder.") from error

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read maps; a file that is not there holds none.

        Raises:
            UsageError: the file cannot be read, or is no calibration of this version.
        """
        try:
            return cls(CalibrationFile.model_validate_json(path.read_text("utf-8")).maps)
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read as text. Check the path.") from error
        except ValidationError as error:
            wrong = error.errors(include_input=False)[0]
            where = ".".join(map(str, wrong["loc"])) or "the file"
            raise UsageError(
                f"{path} is no calibration: {where}: {wrong['msg']}. Learn it again from outcomes, or remove it."
            ) from error


def expected_calibration_error(probabilities: Floats, good: Floats) -> float:
    """Mean distance between stated and true chance over ten bins of equal width, weighed by their counts."""
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    error = 0.0
    for at in range(_BINS):
        inside = bins == at
        if inside.any():
            error += inside.mean() * abs(probabilities[inside].mean() - good[inside].mean())
    return float(error)


def isotonic(signals: Floats, good: Floats) -> list[tuple[float, float]]:
    """Knots of the non-decreasing function of least squares, by pooling adjacent violators.

    Args:
        signals: any order; equal ones are pooled.
        good: 0 to 1.

    Returns:
        Pairs of signal and chance, both non-decreasing: the ends of each level stretch.
    """
    values, places, counts = np.unique(signals, return_inverse=True, return_counts=True)
    means = np.bincount(places, good) / counts
    # Each block: first value, last value, mean, weight.
    blocks: list[tuple[float, float, float, float]] = []
    for value, mean, count in zip(values.tolist(), means.tolist(), counts.tolist(), strict=True):
        block = (value, value, mean, float(count))
        while blocks and blocks[-1][2] >= block[2]:
            first, _, before, weight = blocks.pop()
            total = weight + block[3]
            block = (first, block[1], (before * weight + block[2] * block[3]) / total, total)
        blocks.append(block)
    return [(x, mean) for first, last, mean, _ in blocks for x in ((first, last) if first < last else (first,))]


def fitted(signals: Floats, good: Floats) -> CalibrationMap:
    """The map of one rung and task, of the kind that its number of labels allows; no name, no date."""
    common = {"rung": "", "task": "", "n": len(good), "learned": datetime.min.replace(tzinfo=UTC)}
    errors = {"ece_before": 0.0, "ece_after": 0.0}
    if len(good) >= ISOTONIC_FROM:
        return CalibrationMap.model_validate(
            {**common, **errors, "kind": "isotonic", "knots": [(x, min(y, 1.0)) for x, y in isotonic(signals, good)]}
        )
    intercept, slope = logistic(np.stack([np.ones(len(good)), log_odds(signals)], axis=1), good, _PENALTY).tolist()
    # A signal that falls as replies get better is no confidence: it is then worth no more than the mean.
    if slope < 0:
        intercept, slope = float(log_odds(np.array(good.mean()))), 0.0
    return CalibrationMap.model_validate({**common, **errors, "kind": "platt", "intercept": intercept, "slope": slope})


def _learned(rung: str, task: str, labels: Sequence[Labelled], now: datetime) -> CalibrationMap:
    signals = np.array([label.signal for label in labels], float)
    good = np.array([label.good for label in labels], float)
    apart = np.empty(len(labels))
    fold = folds(len(labels), 2)
    for half in (0, 1):
        other = fitted(signals[fold != half], good[fold != half])
        apart[fold == half] = [other.probability(signal) for signal in signals[fold == half].tolist()]
    return fitted(signals, good).model_copy(
        update={
            "rung": rung,
            "task": task,
            "learned": now,
            "ece_before": expected_calibration_error(signals, good),
            "ece_after": expected_calibration_error(apart, good),
        }
    )


def _between(knots: Sequence[tuple[float, float]], signal: float) -> float:
    """Linear between neighbouring knots, level beyond the ends."""
    at = bisect_right(knots, (signal, math.inf))
    if at == 0:
        return knots[0][1]
    if at == len(knots):
        return knots[-1][1]
    (x0, y0), (x1, y1) = knots[at - 1], knots[at]
    return y0 + (y1 - y0) * (signal - x0) / (x1 - x0)
