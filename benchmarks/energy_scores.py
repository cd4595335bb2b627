"""How far estimates lie from measurements, in short. Needs nothing but agentflow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from agentflow.energy.constants import Fitted, Tier
from agentflow.energy.gpu import GpuProfile
from benchmarks.energy_rows import Row

# Spread of the natural logarithm of an estimate whose batch is known.
FLOOR = 0.3


@dataclass(frozen=True)
class Error:
    """One run against its estimate: natural logarithms of predicted over measured, and whether the interval held it."""

    row: Row
    log: float
    spread: float
    covered: bool

    @property
    def scaled(self) -> float:
        """The error in units of the spread that the estimate itself stated."""
        return abs(self.log) / math.hypot(self.spread, FLOOR)


@dataclass(frozen=True)
class Score:
    """Errors in short: median absolute log10 error, shares within a factor, share of intervals that held."""

    rows: float
    mdale: float
    within2: float
    within3: float
    coverage90: float
    bias: float

    @staticmethod
    def of(errors: Sequence[Error]) -> Score:
        """The score of some errors, at least one."""
        logs = [error.log for error in errors]
        return Score(
            len(logs),
            statistics.median(map(abs, logs)) / math.log(10),
            sum(abs(e) < math.log(2) for e in logs) / len(logs),
            sum(abs(e) < math.log(3) for e in logs) / len(logs),
            sum(error.covered for error in errors) / len(errors),
            statistics.median(logs) / math.log(10),
        )

    @staticmethod
    def mean(scores: Sequence[Score]) -> Score:
        """Each figure averaged over splits."""
        columns = zip(*((s.rows, s.mdale, s.within2, s.within3, s.coverage90, s.bias) for s in scores), strict=True)
        return Score(*(statistics.fmean(column) for column in columns))


def errors(rows: Sequence[Row], fitted: Fitted, tier: Tier) -> list[Error]:
    """Every row's estimate, boards alone, when only what the tier says is told of it."""
    batch, time = tier in ("batch+latency", "batch"), tier in ("batch+latency", "latency")
    found: list[Error] = []
    for row in rows:
        profile = GpuProfile(row.shape, row.chip, row.gpus, scope="board", engine=row.engine, fitted=fitted)
        facts = row.facts(batch=batch, time=time)
        estimate = profile.weigh(facts)
        measured = row.joules * facts.usage.output
        held = estimate.joules.low <= measured <= estimate.joules.high
        found.append(Error(row, math.log(estimate.median / measured), estimate.spread, held))
    return found
